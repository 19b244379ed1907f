"""Hedge: the kernel that moves the weight between base and corrected with every joined example."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import types

from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation.gate.delays import SEEN

#: What the rate is tuned against, in nats: it stays 1 until the labels' delay has cost this much.
PATIENCE = 16.0
#: The served weight stays this far from 0 and 1, where a float32 still tells 1 - w from 0 with 3 % to spare.
LEAST_WEIGHT = 1e-6
#: As long as there are fewer examples, the shares alone keep the weight that far from 0 and 1.
NEAR = 0.5 / LEAST_WEIGHT
#: What that distance costs at most in one example, for each unit of spread between the two experts.
FAR_COST = LEAST_WEIGHT / (1.0 - LEAST_WEIGHT)
#: The rate is brought up to date after so many examples.
STRIDE = 16
#: The state, one record, all float64; the names of the equations are those in `Gate`.
STATE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "examples",  # n
            "weight",  # v
            "rate",  # η
            "over_corrected",  # Σ (base's loss - corrected's loss)
            "over_served",  # Σ (base's loss - served's loss)
            "mixed",  # Σ (base's loss - m)
            "spread",  # max a
            "spread_sum",  # Σ a
            "share_sum",  # Σ α
            "late_spread",  # Q
            "late_share",  # P
            "missing",  # max Σ_M a
            "delay",  # the most examples on the way
            "skipped",  # rows that were not judged
            "slowed",  # the last sum of (1), less the logs of n + 1
            "slowest",  # 1 / the least rate that a weight asked for
            "far_spread",  # Σ a from the example on at which w can differ from v
        )
    ]
)
#: What the kernel is given of a row, beside its raw outputs; `limit` is the loss's mixable rate, 0 where it knows none.
ROW = np.dtype([*((name, np.float64) for name in ("label", "weight", "spread", "limit")), ("judged", np.bool_)])
_OUTPUTS = types.float64[:, ::1]


def _records(dtype: Any) -> Any:
    return types.Array(numba.from_dtype(dtype), 1, "C")


@numba.njit(inline="always")
def _slow_down(s, rate):  # type: ignore[no-untyped-def]
    """Mix at `rate` from here on, and add what the change itself costs."""
    s.slowed += (1.0 / rate - 1.0 / s.rate) * (-math.log(min(s.weight, 1.0 - s.weight)) - math.log(s.examples + 1.0))
    s.rate = rate


@numba.njit(inline="always")
def _serve(base, corrected, v, loss, served):  # type: ignore[no-untyped-def]
    """Serve a row with the weight v, as float32."""
    loss.mix(base, corrected, min(max(v, LEAST_WEIGHT), 1.0 - LEAST_WEIGHT), served)
    for k in range(served.shape[0]):
        served[k] = np.float32(served[k])


@numba.njit(inline="always")
def _finite(corrected, served):  # type: ignore[no-untyped-def]
    finite = True
    for k in range(served.shape[0]):
        finite = finite and math.isfinite(corrected[k]) and math.isfinite(served[k])
    return finite


@numba.njit(
    types.void(
        _records(STATE), _records(ROW), _records(SEEN), _OUTPUTS, _OUTPUTS, _OUTPUTS, types.boolean, KERNELS
    ),
    cache=True,
)  # fmt: skip
def judge(state, rows, seen, base, corrected, served, virtual, loss):  # type: ignore[no-untyped-def]
    """Take N examples in order; see `Gate` for the equations.

    Row i was served with what was known at `seen[i]`; without any (length 0) with all that is known when it comes. With
    `virtual`, `served` is filled with the mixture of that weight.
    """
    s, at_once = state[0], seen.shape[0] == 0
    for i in range(rows.shape[0]):
        row = rows[i]
        if virtual:
            _serve(base[i], corrected[i], s.weight if at_once else seen[i].weight, loss, served[i])
        if not (row.judged and math.isfinite(row.weight) and _finite(corrected[i], served[i])):
            s.skipped += 1.0
            continue
        if 0.0 < row.limit < s.rate:
            _slow_down(s, row.limit)
            s.slowest = 1.0 / row.limit
        spread = abs(row.weight) * row.spread
        back, unknown = row.weight < 0.0, row.limit == 0.0
        late = not at_once and s.examples > seen[i].examples
        if back:  # what the mixture had won over the mean of both losses goes with the row
            s.late_share += spread if unknown else min(spread * row.spread / 8.0, spread)
        if back or late or unknown:
            s.late_spread += spread * spread / 8.0
        if late:
            missing = s.spread_sum - seen[i].spread
            s.late_spread += spread * missing / 4.0
            s.late_share += spread * (s.share_sum - seen[i].share) / 2.0
            s.missing = max(s.missing, missing)
            s.delay = max(s.delay, s.examples - seen[i].examples)
        s.examples += 1.0
        s.spread = max(s.spread, spread)
        s.spread_sum += spread
        if s.examples > NEAR:
            s.far_spread += spread
        # One step of exponential weights; the larger of the two exponentials is 1.
        lost = loss.value(base[i], row.label)
        gain = row.weight * (lost - loss.value(corrected[i], row.label))
        less = math.exp(-abs(s.rate * gain))
        stay, moved = (1.0 - s.weight) * (less if gain > 0.0 else 1.0), s.weight * (1.0 if gain > 0.0 else less)
        s.over_corrected += gain
        s.over_served += row.weight * (lost - loss.value(served[i], row.label))
        s.mixed += max(gain, 0.0) + math.log(stay + moved) / s.rate
        share = 1.0 / (s.examples + 1.0)
        s.share_sum += share
        s.weight = (1.0 - share) * (moved / (stay + moved)) + share / 2.0
        if np.int64(s.examples) % STRIDE == 0:
            # Keeping away from 0 and 1 has a cost that delay does not cause and a slower rate would not lower.
            cost = s.mixed - s.over_served - s.far_spread * FAR_COST
            if s.rate * cost > PATIENCE:
                _slow_down(s, PATIENCE / cost)
