"""Hedge: the kernel that updates the weight between base and corrected with every joined example."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types

from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation.gate.delays import SEEN

#: The scale of the rate, in nats: it stays 1 until the labels' delay has cost this much.
PATIENCE = 16.0
#: The served weight stays this far from 0 and 1, where a float32 still separates 1 - w from 0 with 3 % to spare.
LEAST_WEIGHT = 1e-6
#: With fewer examples the fixed share alone keeps the weight that far from 0 and 1.
NEAR = 0.5 / LEAST_WEIGHT
#: The most that this distance costs per example, for each unit of spread between the two experts.
FAR_COST = LEAST_WEIGHT / (1.0 - LEAST_WEIGHT)
#: The rate is updated every this many examples.
STRIDE = 16
#: The state, one record of float64; names are those of the equations in `Gate`.
STATE = np.dtype([(name, np.float64) for name in (
    "examples", "weight", "rate",  # n, v, η
    "over_corrected", "over_served", "mixed",  # Σ of the base's loss less corrected's, less served's, less m
    "spread", "spread_sum", "share_sum",  # max a, Σ a, Σ α
    "late_spread", "late_share", "missing", "delay",  # Q, P, max Σ_M a, the most labels in flight
    "skipped",  # rows that were left out
    "slowed", "slowest",  # the last sum of (1) less the logs of n + 1; 1 / the least rate that a weight asked for
    "far_spread",  # Σ a from the example on at which w can differ from v
    "handicap",  # ln(1/2 / v) before the first example: 0 but for a gate that started over from the base
)])  # fmt: skip


def _records(dtype: Any) -> Any:
    return types.Array(numba.from_dtype(dtype), 1, "C")


@numba.njit(inline="always")
def _slow_down(s, rate):  # type: ignore[no-untyped-def]
    """Mix at `rate` from here on, and add the cost of the change."""
    s.slowed += (1.0 / rate - 1.0 / s.rate) * (-math.log(min(s.weight, 1.0 - s.weight)) - math.log(s.examples + 1.0))
    s.rate = rate


@numba.njit(inline="always")
def _serve(base, corrected, v, loss, served):  # type: ignore[no-untyped-def]
    """Serve a row with the weight v, as float32."""
    loss.mix(base, corrected, min(max(v, LEAST_WEIGHT), 1.0 - LEAST_WEIGHT), served)
    for k in range(served.shape[1]):
        served[0, k] = np.float32(served[0, k])


@numba.njit(inline="always")
def _finite(corrected, served):  # type: ignore[no-untyped-def]
    finite = True
    for k in range(served.shape[1]):
        finite = finite and math.isfinite(corrected[0, k]) and math.isfinite(served[0, k])
    return finite


@numba.njit(inline="always")
def _last(seen, held, position):  # type: ignore[no-untyped-def]
    """Return the last of the first `held` records whose position is at most `position`, or the first record."""
    low, high = 0, held
    while high - low > 1:
        middle = (low + high) // 2
        if seen[middle].position <= position:
            low = middle
        else:
            high = middle
    return seen[low]


@numba.njit(
    types.void(
        _records(STATE), types.float64[:, :, ::1], types.float64[:, ::1], types.boolean[::1], types.int64[::1],
        _records(SEEN), types.int64, types.boolean, types.float64, KERNELS,
    ),
    cache=True,
)  # fmt: skip
def update(state, raw, numbers, counted, position, seen, held, virtual, reach, loss):  # type: ignore[no-untyped-def]
    """Learn N examples in order; see `Gate` for the equations.

    `raw` float64[3, N, K] are the outputs of base, corrected and served, `numbers` float64[4, N] the rows' labels, weights,
    spreads, and mixable rates (0: the loss knows none). Row i was served with what had been observed at position[i] (`seen`);
    without positions (length 0) with everything known when it comes. With `virtual`, the served outputs are filled in.
    """
    s, then, at_once = state[0], seen[0], position.shape[0] == 0
    label, weight, spreads, limit = numbers[0], numbers[1], numbers[2], numbers[3]
    shape = (1, raw.shape[2])
    b, c, z, lost = np.empty(shape), np.empty(shape), np.empty(shape), np.empty((3, 1))
    for i in range(label.shape[0]):
        if not at_once and (i == 0 or position[i] != position[i - 1]):
            then = _last(seen, held, position[i])
        for k in range(b.shape[1]):
            b[0, k], z[0, k] = raw[0, i, k], raw[2, i, k]
            c[0, k] = b[0, k] + min(max(raw[1, i, k] - b[0, k], -reach), reach)
        if virtual:
            _serve(b, c, s.weight if at_once else then.weight, loss, z)
            for k in range(b.shape[1]):
                raw[2, i, k] = z[0, k]
        if not (counted[i] and math.isfinite(weight[i]) and _finite(c, z)):
            s.skipped += 1.0
            continue
        if 0.0 < limit[i] < s.rate:
            _slow_down(s, limit[i])
            s.slowest = 1.0 / limit[i]
        spread = abs(weight[i]) * spreads[i]
        back, unknown = weight[i] < 0.0, limit[i] == 0.0
        late = not at_once and s.examples > then.examples
        if back:  # what the mixture gained over the mean of both losses is removed with the row
            s.late_share += spread if unknown else min(spread * spreads[i] / 8.0, spread)
        if back or late or unknown:
            s.late_spread += spread * spread / 8.0
        if late:
            missing = s.spread_sum - then.spread
            s.late_spread += spread * missing / 4.0
            s.late_share += spread * (s.share_sum - then.share) / 2.0
            s.missing = max(s.missing, missing)
            s.delay = max(s.delay, s.examples - then.examples)
        s.examples += 1.0
        s.spread = max(s.spread, spread)
        s.spread_sum += spread
        if s.examples > NEAR:
            s.far_spread += spread
        # One step of exponential weights; the larger of the two exponentials is 1.
        loss.value(b, label[i : i + 1], lost[0])
        loss.value(c, label[i : i + 1], lost[1])
        loss.value(z, label[i : i + 1], lost[2])
        gain = weight[i] * (lost[0, 0] - lost[1, 0])
        less = math.exp(-abs(s.rate * gain))
        stay, moved = (1.0 - s.weight) * (less if gain > 0.0 else 1.0), s.weight * (1.0 if gain > 0.0 else less)
        s.over_corrected += gain
        s.over_served += weight[i] * (lost[0, 0] - lost[2, 0])
        s.mixed += max(gain, 0.0) + math.log(stay + moved) / s.rate
        share = 1.0 / (s.examples + 1.0)
        s.share_sum += share
        s.weight = (1.0 - share) * (moved / (stay + moved)) + share / 2.0
        if np.int64(s.examples) % STRIDE == 0:
            # Keeping away from 0 and 1 has a cost that is not due to delay and that a slower rate would not lower.
            cost = s.mixed - s.over_served - s.far_spread * FAR_COST
            if s.rate * cost > PATIENCE:
                _slow_down(s, PATIENCE / cost)
