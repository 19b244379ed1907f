"""Hedge: the kernel that moves the weight between base and corrected with every joined example."""

from __future__ import annotations

import math

import numba
import numpy as np

from riverdelta.core.link import RESIDUAL_BOUND
from riverdelta.core.log_loss import BOUND
from riverdelta.evaluation.gate.delays import keep

#: What the rate is tuned against, in nats: it stays 1 until the labels' delay has cost this much.
PATIENCE = 16.0
#: The served weight stays this far from 0 and 1, where a float32 still tells 1 - w from 0 with 3 % to spare.
LEAST_WEIGHT = 1e-6
#: As long as there are fewer examples, the shares alone keep the weight that far from 0 and 1.
NEAR = 0.5 / LEAST_WEIGHT
#: What that distance costs at most in one example, for each logit between the two experts.
FAR_COST = LEAST_WEIGHT / (1.0 - LEAST_WEIGHT)
#: Sums of logs are brought up to date, and the rate with them, after so many examples.
STRIDE = 16
#: The places of the state: examples, corrected's weight, rate; what base lost over corrected and over served and what delay
#: has cost, in nats, each a sum and a product that is still to be added to it as a log; then the sums that `Gate` reports on.
(EXAMPLES, WEIGHT, RATE, OVER_CORRECTED, OVER_SERVED, MIXED, OPEN_CORRECTED, OPEN_SERVED, OPEN_MIXED,
 SPREAD, SPREAD_SUM, SHARE_SUM, LATE_SPREAD, LATE_SHARE, MISSING, DELAY, SKIPPED,
 SLOWED, HEAVIEST, FAR_SPREAD) = range(20)  # fmt: skip
PLACES = 20
#: No position of a journal.
NOWHERE = -1
_EDGE = 88.0 - RESIDUAL_BOUND
#: Served logits up to here go the quick way; its products of probabilities are closed before they leave a float64's range.
_LARGE, _MOST = 200.0, 1e150


@numba.njit(inline="always")
def _loss(z):  # type: ignore[no-untyped-def]
    return math.log1p(math.exp(-abs(z))) + max(-z, 0.0)


@numba.njit(inline="always")
def _mix(b, c, w):  # type: ignore[no-untyped-def]
    g, e = math.exp(b - c), math.exp(min(max(-b, -_EDGE), _EDGE))
    stay, move = (1.0 - w) * (1.0 + e * g), w * (1.0 + e)
    return b - math.log((stay + move * g) / (stay + move))


@numba.njit(inline="always")
def _served(v):  # type: ignore[no-untyped-def]
    return min(max(v, LEAST_WEIGHT), 1.0 - LEAST_WEIGHT)


@numba.njit(inline="always")
def _slower(s, rate, to, v, examples):  # type: ignore[no-untyped-def]
    """Return the rate `to`, at which all that follows is mixed; what the change itself costs is added to `SLOWED`."""
    s[SLOWED] += (1.0 / to - 1.0 / rate) * (-math.log(min(v, 1.0 - v)) - math.log(examples + 1.0))
    return to


@numba.njit(inline="always")
def _last(rows, held, position):  # type: ignore[no-untyped-def]
    """The last of the rows whose first entry is not above `position`, the first row where there is none."""
    low, high = 0, held
    while high - low > 1:
        middle = (low + high) // 2
        if rows[middle, 0] <= position:
            low = middle
        else:
            high = middle
    return low


@numba.njit(
    "int64(float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], int64[::1], boolean, float64[:, ::1], int64,"
    " int64, float64[::1])",
    cache=True,
)
def judge(base, corrected, served, label, weight, position, virtual, rows, held, noted, s):  # type: ignore[no-untyped-def]
    """Take N examples in order; see `Gate` for the equations and `Delays` for `rows`, of which it returns how many there are.

    What the weight has seen so far is first kept as that of the position `noted`, unless that is `NOWHERE`.

    Row i was served with the weight of `position[i]`; without positions (length 0) with the weight as it is then. With
    `virtual`, `served` is filled with the mixture of that weight; else it holds the logits as they were served.
    """
    if noted != NOWHERE:
        held = keep(rows, held, noted, s[EXAMPLES], s[SPREAD_SUM], s[SHARE_SUM], s[WEIGHT])
    at_once = len(position) == 0
    # What every row moves lies in locals: stored to an array each time it would cost as much as the exponentials.
    examples, v, rate, spread_sum, share_sum, most_spread = (
        s[EXAMPLES], s[WEIGHT], s[RATE], s[SPREAD_SUM], s[SHARE_SUM], s[SPREAD]
    )  # fmt: skip
    late_spread, late_share, most_missing, delay = s[LATE_SPREAD], s[LATE_SHARE], s[MISSING], s[DELAY]
    far_spread = s[FAR_SPREAD]
    open_corrected, open_served, open_mixed = s[OPEN_CORRECTED], s[OPEN_SERVED], s[OPEN_MIXED]
    then_examples, then_spread, then_share, then_weight = 0.0, 0.0, 0.0, 0.0
    for i in range(base.shape[0]):
        b, y, omega = np.float64(base[i]), np.float64(label[i]), np.float64(weight[i])
        c = b + min(max(np.float64(corrected[i]) - b, -RESIDUAL_BOUND), RESIDUAL_BOUND)
        if not at_once and (i == 0 or position[i] != position[i - 1]):
            at = _last(rows, held, position[i])
            then_examples, then_spread, then_share, then_weight = rows[at, 1], rows[at, 2], rows[at, 3], rows[at, 4]
        if virtual:
            served[i] = _mix(b, c, _served(v if at_once else then_weight))
        z = np.float64(served[i])
        # y(1 - y) is 0 for 0 and 1 alone; asked one after the other, a random label would be guessed wrong half of the time.
        if not (abs(b) <= BOUND and math.isfinite(c) and math.isfinite(z) and math.isfinite(omega) and y * (1.0 - y) == 0.0):
            s[SKIPPED] += 1.0
            continue
        if omega * rate > 1.0:  # beyond 1 / weight the mixture of probabilities would lose to that of losses
            s[MIXED] += math.log(open_mixed) / rate
            open_mixed = 1.0
            rate = _slower(s, rate, 1.0 / omega, v, examples)
            s[HEAVIEST] = omega
        spread = abs(omega * (c - b))
        if omega < 0.0:  # a row that is taken back: what the mixture had won over the mean of both losses goes with it
            late_share += min(spread * abs(c - b) / 8.0, spread)
            late_spread += spread * spread / 8.0
        if not at_once and examples > then_examples:
            missing = spread_sum - then_spread
            late_spread += spread * (missing / 4.0 if omega < 0.0 else spread / 8.0 + missing / 4.0)
            late_share += spread * (share_sum - then_share) / 2.0
            most_missing = max(most_missing, missing)
            delay = max(delay, examples - then_examples)
        examples += 1.0
        if examples > NEAR:
            far_spread += spread
        most_spread = max(most_spread, spread)
        spread_sum += spread
        sign = 2.0 * y - 1.0
        b, c, z = sign * b, sign * c, sign * z
        # One step of exponential weights. Sums of logs are kept as products for a while: a log costs as much as the rest.
        if omega == 1.0 and abs(z) < _LARGE:
            inverse = 1.0 + math.exp(-b)
            ratio = inverse / (1.0 + math.exp(-c))
            open_corrected *= ratio
            open_served *= inverse / (1.0 + math.exp(-z))
            stay, moved = 1.0 - v, v * (ratio if rate == 1.0 else math.exp(rate * math.log(ratio)))
            open_mixed *= stay + moved
        else:
            loss = _loss(b)
            gain = omega * (loss - _loss(c))
            s[OVER_CORRECTED] += gain
            s[OVER_SERVED] += omega * (loss - _loss(z))
            most = max(rate * gain, 0.0)
            stay, moved = (1.0 - v) * math.exp(-most), v * math.exp(rate * gain - most)
            s[MIXED] += (most + math.log(stay + moved)) / rate
        share = 1.0 / (examples + 1.0)
        v = (1.0 - share) * (moved / (stay + moved)) + share / 2.0
        share_sum += share
        if np.int64(examples) % STRIDE == 0 or not 1.0 / _MOST < open_served < _MOST:
            s[OVER_CORRECTED] += math.log(open_corrected)
            s[OVER_SERVED] += math.log(open_served)
            s[MIXED] += math.log(open_mixed) / rate
            open_corrected = open_served = open_mixed = 1.0
            # Keeping away from 0 and 1 has a cost that delay does not cause and a slower rate would not lower.
            cost = s[MIXED] - s[OVER_SERVED] - far_spread * FAR_COST
            if rate * cost > PATIENCE:
                rate = _slower(s, rate, PATIENCE / cost, v, examples)
    s[EXAMPLES], s[WEIGHT], s[RATE], s[SPREAD_SUM], s[SHARE_SUM], s[SPREAD] = (
        examples, v, rate, spread_sum, share_sum, most_spread
    )  # fmt: skip
    s[FAR_SPREAD] = far_spread
    s[LATE_SPREAD], s[LATE_SHARE], s[MISSING], s[DELAY] = late_spread, late_share, most_missing, delay
    s[OPEN_CORRECTED], s[OPEN_SERVED], s[OPEN_MIXED] = open_corrected, open_served, open_mixed
    return held
