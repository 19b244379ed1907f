"""Hedge: the kernel that updates the weight between base and corrected with every joined example."""

from __future__ import annotations

import math
import sys
from typing import Any

import numba
import numpy as np
from numba import types

from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation.gate.delays import SEEN

#: The scale of the rate, which falls once mixing has cost this many times 1 / rate.
PATIENCE = 16.0
#: The first rate of a loss in a unit of its own: in effect infinite, and a number that can be saved.
UNLIMITED = sys.float_info.max
#: The served weight stays this far from 0 and 1, where a float32 still separates 1 - w from 0 with 3 % to spare.
LEAST_WEIGHT = 1e-6
#: With fewer examples the fixed share alone keeps the weight that far from 0 and 1.
NEAR = 0.5 / LEAST_WEIGHT
#: The most that this distance costs per example, for each unit of spread between the two experts.
FAR_COST = LEAST_WEIGHT / (1.0 - LEAST_WEIGHT)
#: The rate is updated every this many examples; one that is unlimited at first, with each.
STRIDE = 16
#: The state, one record of float64; names are those of the equations in `Gate`.
STATE = np.dtype([(name, np.float64) for name in (
    "examples", "weight", "rate",  # n, v, η
    "over_corrected", "over_served", "mixed",  # Σ of the base's loss less corrected's, less served's, less m
    "spread", "spread_sum", "share_sum",  # max a, Σ a, Σ α
    "late_spread", "late_share", "missing", "delay",  # Q, P, max Σ_M a, the most labels in flight
    "skipped",  # rows that were left out
    "slowed", "slowest",  # the last sum of (1) less the logs of n + 1; 1 / the least rate that a weight asked for
    "far_spread",  # F / FAR_COST
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
def _mix(base, corrected, v, loss, served):  # type: ignore[no-untyped-def]
    """Mix with the weight v as served, as float32."""
    loss.mix(base, corrected, min(max(v, LEAST_WEIGHT), 1.0 - LEAST_WEIGHT), served)
    for j in range(served.shape[0]):
        for k in range(served.shape[1]):
            served[j, k] = np.float32(served[j, k])


@numba.njit(inline="always")
def _won(weight, base, other):  # type: ignore[no-untyped-def]
    """Return an example's weighted loss of the base less that of another, from the losses of its rows."""
    won = weight[0] * (base[0] - other[0])
    for j in range(1, weight.shape[0]):
        won += weight[j] * (base[j] - other[j])
    return won


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
        _records(STATE), types.float64[:, :, ::1], types.float64[:, ::1], types.int64[::1], types.float64[:, ::1],
        types.float64[::1], types.boolean[::1], types.int64[::1], _records(SEEN), types.int64, types.boolean, types.boolean,
        types.boolean, types.float64, types.float64[::1], KERNELS,
    ),
    cache=True,
)  # fmt: skip
def update(  # type: ignore[no-untyped-def]
    state, raw, numbers, starts, examples, caps, counted, position, seen, held, virtual, lists, exact, reach, tuned, loss
):
    """Learn M examples in order; see `Gate` for the equations.

    `raw` float64[3, N, K] are the outputs of base, corrected and served, `numbers` float64[2, N] the rows' labels and weights.
    Example i has the rows starts[i] to starts[i + 1]; with `lists` these may be a part of those served together. `examples`
    float64[4, M] are spreads d (infinite: none is known), the sums of weights above and below 0, and mixable rates (0: none).
    Example i was served with what had been observed at the position of its first row (`seen`); without positions (length 0)
    with everything known when it comes. With `virtual`, the served outputs are filled in. With `exact`, the mixture's loss is
    the mixed loss of rate 1. `tuned` and `caps` are for a rate that is unlimited at first, and otherwise empty: the cost that
    the rate is tuned to, and what an example may add to it at most.
    """
    s, then, at_once, unlimited = state[0], seen[0], position.shape[0] == 0, tuned.shape[0] > 0
    labels, weights, spreads, heavy, backs, limits = numbers[0], numbers[1], examples[0], examples[1], examples[2], examples[3]
    shape = (1, raw.shape[2])
    b, c, z, lost = np.empty(shape), np.empty(shape), np.empty(shape), np.empty((3, 1))
    for i in range(counted.shape[0]):
        first, stop = starts[i], starts[i + 1]
        rows = stop - first
        if rows != b.shape[0]:
            shape = (rows, raw.shape[2])
            b, c, z, lost = np.empty(shape), np.empty(shape), np.empty(shape), np.empty((3, rows))
        label, weight = labels[first:stop], weights[first:stop]
        if not at_once and (i == 0 or position[first] != position[first - 1]):
            then = _last(seen, held, position[first])
        finite = counted[i]
        for j in range(rows):
            for k in range(b.shape[1]):
                b[j, k], z[j, k] = raw[0, first + j, k], raw[2, first + j, k]
                c[j, k] = b[j, k] + min(max(raw[1, first + j, k] - b[j, k], -reach), reach)
        if virtual:
            _mix(b, c, s.weight if at_once else then.weight, loss, z)
            raw[2, first:stop] = z
        for j in range(rows):
            for k in range(b.shape[1]):
                finite = finite and math.isfinite(c[j, k]) and math.isfinite(z[j, k])
        gain = won = math.nan
        if finite:
            loss.value(b, label, lost[0])
            loss.value(c, label, lost[1])
            loss.value(z, label, lost[2])
            gain, won = _won(weight, lost[0], lost[1]), _won(weight, lost[0], lost[2])
        if not math.isfinite(gain + won):
            s.skipped += rows
            continue
        if 0.0 < limits[i] < s.rate:
            s.slowest = max(s.slowest, 1.0 / limits[i])
            if not unlimited:
                _slow_down(s, limits[i])
        spread, back = (heavy[i] + backs[i]) * spreads[i] if spreads[i] < math.inf else abs(gain), backs[i] > 0.0
        late, unknown = not at_once and s.examples > then.examples, limits[i] == 0.0
        if back:  # what the mixture gained over the mean of both losses is removed with the rows
            gone = backs[i] * spreads[i] if spreads[i] < math.inf else spread
            s.late_share += min(gone * spreads[i] / 8.0, gone) if exact else gone
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
        lasting = 0.0
        if s.examples > NEAR:
            s.far_spread += spread
            lasting = spread * FAR_COST
        if lists and not virtual:
            # Of a list that was shown in part, what was served is a mixture of the parts' probabilities with another weight.
            _mix(b, c, s.weight if at_once else then.weight, loss, z)
            loss.value(z, label, lost[1])
            s.far_spread += min(max(_won(weight, lost[2], lost[1]), 0.0), spread) / FAR_COST
        # One step of exponential weights; the larger of the two exponentials is 1.
        less = math.exp(-abs(s.rate * gain))
        stay, moved = (1.0 - s.weight) * (less if gain > 0.0 else 1.0), s.weight * (1.0 if gain > 0.0 else less)
        mixed = max(gain, 0.0) + math.log(stay + moved) / s.rate
        s.over_corrected += gain
        s.over_served += won
        s.mixed += mixed
        share = 1.0 / (s.examples + 1.0)
        s.share_sum += share
        s.weight = (1.0 - share) * (moved / (stay + moved)) + share / 2.0
        # Keeping away from 0 and 1 has a cost that is not due to delay and that a slower rate would not lower.
        if unlimited:
            cost = mixed - won - lasting
            tuned[0] += min(cost, caps[i])
            s.far_spread += max(cost - caps[i], 0.0) / FAR_COST
            cost = tuned[0]
        else:
            cost = s.mixed - s.over_served - s.far_spread * FAR_COST
        if (unlimited or np.int64(s.examples) % STRIDE == 0) and s.rate * cost > PATIENCE:
            _slow_down(s, PATIENCE / cost)
