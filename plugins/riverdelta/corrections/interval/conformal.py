"""Conformal: the kernel that moves the two ends of an interval with every error."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import float64, int64, types

from riverdelta.corrections import limits

#: An expert lives for `_LIFE` times the largest power of two that divides its birth, at most 2 ** `_DOUBLINGS` of them.
_LIFE, _DOUBLINGS = 8, 14
#: The most experts alive at once: `_LIFE` for each power of two, and the one that is born.
EXPERTS = _LIFE * (_DOUBLINGS + 2)
#: The range of errors, in typical sizes, and the errors from which the first typical size is taken.
_RANGE, FIRST = 4.0, 16


def _record(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.float64) for name in names])


#: i, the last example of its life, s, Σ g², Σ of its gains, Σ w·gain
EXPERT = _record("born", "until", "end", "squares", "gains", "wealth")
#: t, the experts alive, their aggregated end, what is added to it and its Σ g²; Σ e² of limited errors e, errors other than 0
SIDE = _record("examples", "alive", "end", "shift", "squares", "total", "errors")
_Experts, _Sides = (types.Array(numba.from_dtype(kind), axes, "C") for kind, axes in ((EXPERT, 3), (SIDE, 2)))


@numba.njit(inline="always")
def _pinball(error, end, miss):  # type: ignore[no-untyped-def]
    """Return the loss of an end which errors should exceed with probability `miss`."""
    return (1.0 - miss) * (error - end) if error > end else miss * (end - error)


@numba.njit(inline="always")
def _descend(end, squares, exceeded, share, size, miss):  # type: ignore[no-untyped-def]
    """Return an end and its Σ g² after a step of SF-OGD on `share` of the pinball loss."""
    slope = share * (miss - 1.0 if exceeded else miss)
    squares += slope * slope
    return end - size / math.sqrt(3.0) * slope / math.sqrt(squares), squares


@numba.njit(inline="always")
def _weight(expert, t):  # type: ignore[no-untyped-def]
    """Return w of an expert after example t: what a bettor stakes on its next gain."""
    return expert.gains / (t - expert.born + 1.0) * (1.0 + expert.wealth) if t >= expert.born else 0.0


@numba.njit(inline="always")
def _aggregate(experts, side):  # type: ignore[no-untyped-def]
    """Set the end to the mean of the experts' ends, by prior times weight, or by the prior alone while all weights are 0."""
    t, total, end = side.examples, 0.0, 0.0
    for bet in (True, False):
        for k in range(int(side.alive)):
            born = experts[k].born
            prior = 1.0 / (born * born * (1.0 + math.floor(math.log2(born))))
            share = prior * max(_weight(experts[k], t), 0.0) if bet else prior
            total += share
            end += share * experts[k].end
        if total > 0.0:
            side.end = end / total
            return


@numba.njit(inline="always")
def _step(experts, side, size, error, served, share, miss):  # type: ignore[no-untyped-def]
    """Learn one error, with `size` as the range of errors."""
    side.examples += 1.0
    t, alive = side.examples, 0
    for k in range(int(side.alive)):
        if experts[k].until >= t:
            experts[alive] = experts[k]
            alive += 1
    now = side.end + side.shift if math.isnan(served) else served
    side.shift, side.squares = _descend(side.shift, side.squares, error > now, share, size, miss)
    life = 1
    while life < 2**_DOUBLINGS and t % (2 * life) == 0:
        life *= 2
    new = experts[alive]
    new.born, new.until, new.end, new.squares, new.gains, new.wealth = t, t + _LIFE * life - 1.0, side.end, 0.0, 0.0, 0.0
    side.alive = alive + 1
    mixed = _pinball(error, side.end, miss)
    for k in range(alive + 1):
        expert = experts[k]
        weight = _weight(expert, t - 1.0)
        gain = min(max((mixed - _pinball(error, expert.end, miss)) / size, -1.0), 1.0)
        if weight <= 0.0:
            gain = max(gain, 0.0)
        expert.gains += gain
        expert.wealth += weight * gain
        expert.end, expert.squares = _descend(expert.end, expert.squares, error > expert.end, 1.0, size, miss)
    _aggregate(experts, side)


@numba.njit(
    types.void(
        _Experts,
        _Sides,
        float64[:, ::1],
        types.float32[:, ::1],
        float64[::1],
        float64[:, ::1],
        float64[::1],
        int64[::1],
        float64,
    ),
    cache=True,
)
def learn(experts, sides, window, limit, error, served, share, slices, miss):  # type: ignore[no-untyped-def]
    """Learn the errors float64[N] of rows of slices int64[N], in order; `miss` is the share beyond each of the two ends.

    `served` float64[N, 2] are the ends as served, each in its own direction, NaN if unknown: those of the moment. `share`
    float64[N] is 1 / √n for one of n errors of the same tables, as n equal steps at once would overshoot.
    """
    for i in range(error.shape[0]):
        s, e = slices[i], error[i]
        if not math.isfinite(e):
            continue
        side, square = sides[s, 0], e * e
        if square > 0.0:
            side.errors += 1.0
            if limits.is_usual(square, side.errors, window, s):
                side.total += square
            else:
                side.total = limits.unusual(side.total, side.errors, square, window, s, limit, s, s + 1)
        if side.errors <= FIRST:
            continue
        size = _RANGE * math.sqrt(limits.typical(side.total, side.errors))
        _step(experts[s, 0], sides[s, 0], size, -e, served[i, 0], share[i], miss)
        _step(experts[s, 1], sides[s, 1], size, e, served[i, 1], share[i], miss)
