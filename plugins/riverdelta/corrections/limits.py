"""Limits: what a number counts as at most, in every kernel, in `predict` and in the graph, from its first value on.

A number counts as at most 4 times its typical size, and as 0, as if it were missing, beyond 64 times. The typical size is the
root mean square of its nonzero values, each counted as at most 4 times that of those before it. Before the first value a number
counts as at most 1e15.

Nothing limits the first values, so a typical size that later values contradict is replaced. If of the last half of the values
(at least 8) no more than one in 16 (or one) exceed an eighth of the typical size, that of the others takes its place: a mean of
squares that are limited to 16 times the mean has more of them. If more than half were beyond the limit, the smallest of these
takes its place. One absurd first value is thus forgotten after 8 values, and k of them within 4·k.

A kernel keeps for each feature Σx², the number of nonzero values, and a row of `window`. For each example it calls `limited`
before it computes the raw output, and once it learns the example, `added`, which returns the new Σx². `publish` writes the
limits into the table that `clipped` and the graph read.

Source: Huber 1964, "Robust Estimation of a Location Parameter" (proposal 2: the mean of limited squares).
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types

from riverdelta.core.features import Floats
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Table

#: The name of the table in `served` and in the graph, float32[2, D]: the limit of each number, and beyond what it counts as 0.
LIMIT = "limit"
#: The name of the array in `learner`, float64[F, 5]: the values since the last test; how many of them are large, and the sum of
#: the other squares; how many are beyond the limit, and the smallest of their squares.
WINDOW = "window"
#: The smallest typical square: sizes below 1e-12 count as 1e-12.
LEAST = 1e-24
#: What a number counts as at most before its first value. Sums of its square fit into float32.
_MOST = 1e15
_TAIL, _FAR, _LARGE, _FEWEST = 16.0, 16.0, 64.0, 8.0
_LAST = float(np.finfo(np.float32).max)


@numba.njit(inline="always")
def typical(total, rows):  # type: ignore[no-untyped-def]
    """Return a feature's mean square from the sum `total` of its squares over the `rows` in which it is not 0."""
    return max(total / max(rows, 1.0), LEAST)


@numba.njit(inline="always")
def square(value, total, rows):  # type: ignore[no-untyped-def]
    """Return a square as it counts beside `rows` others with the sum `total`."""
    value = min(value, _MOST * _MOST)
    if value * rows > _TAIL * max(total, LEAST * rows):
        return _TAIL * max(total / rows, LEAST)
    return value


@numba.njit(inline="always")
def is_usual(square, total, rows):  # type: ignore[no-untyped-def]
    """Return whether a square is certainly within the limit; costs no division. NaN is not."""
    return square * rows < 15.9 * max(total, LEAST * rows)


@numba.njit(inline="always")
def most(total, rows):  # type: ignore[no-untyped-def]
    """Return what a number counts as at most, and beyond what it counts as 0, each rounded to float32 as in the graph."""
    limit = min(math.sqrt(_TAIL * typical(total, rows)), _MOST) if rows > 0.0 else _MOST
    return np.float32(limit), np.float32(_FAR * limit if _FAR * limit < _MOST else _LAST)


@numba.njit(inline="always")
def limited(value, total, rows):  # type: ignore[no-untyped-def]
    """Return a float32 as it counts; NaN and infinity count as 0."""
    if is_usual(np.float64(value) * np.float64(value), total, rows):
        return value
    limit, far = most(total, rows)
    if not abs(value) <= far:
        return np.float32(0.0)
    return min(max(value, -limit), limit)


@numba.njit(inline="always")
def added(total, rows, value, window, f):  # type: ignore[no-untyped-def]
    """Return the sum of `rows` squares with another one, `value` before it is limited; lower if the last ones contradict it."""
    value = min(value, _MOST * _MOST)
    window[f, 0] += 1.0
    counted = value
    if value * rows > _TAIL * max(total, LEAST * rows):
        counted = square(value, total, rows)
        window[f, 4] = value if window[f, 3] == 0.0 else min(window[f, 4], value)
        window[f, 3] += 1.0
    total, rows = total + counted, rows + 1.0
    if value * rows * _LARGE > total:
        window[f, 1] += 1.0
    else:
        window[f, 2] += value
    count = window[f, 0]
    if count >= _FEWEST and 2.0 * count >= rows:
        if window[f, 1] <= max(count / 16.0, 1.0):
            total = min(total, rows * window[f, 2] / (count - window[f, 1]))
        elif 2.0 * window[f, 3] > count:
            total = max(total, rows * window[f, 4])
        window[f, :] = 0.0
    return total


@numba.njit(types.void(float64[:], float64[:], types.int64[:], types.float32[:, ::1]), cache=True)
def _fill(totals, rows, ends, limit):  # type: ignore[no-untyped-def]
    begin = 0
    for f in range(ends.shape[0]):
        limit[0, begin : ends[f]], limit[1, begin : ends[f]] = most(totals[f], rows[f])
        begin = ends[f]


def table(width: int) -> Table:
    """Return the table of the limits of `width` numbers before their first values.

    >>> table(2).values.tolist()
    [[999999986991104.0, 999999986991104.0], [3.4028234663852886e+38, 3.4028234663852886e+38]]
    """
    return Table(np.full((2, width), [[_MOST], [_LAST]]))


def window(features: int) -> npt.NDArray[np.float64]:
    """Return the window of `features` features without values."""
    return np.zeros((features, 5))


def publish(
    limit: Table, totals: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], ends: npt.NDArray[np.int64] | None = None
) -> None:
    """Write the limits of features with the sums `totals` over `rows` into their table; feature k ends before `ends[k]`."""
    before = limit.values.copy()
    _fill(totals, rows, np.arange(1, len(totals) + 1) if ends is None else ends, limit.values)
    limit.touched |= (before != limit.values).any(axis=1)


def clipped(numbers: Floats, limit: Table) -> Floats:
    """Return numbers float32[N, D] as they count.

    >>> limit = Table([[4.0], [64.0]])
    >>> clipped(np.array([[3], [-9], [999]], np.float32), limit).ravel().tolist()
    [3.0, -4.0, 0.0]
    """
    most, far = limit.values[:1], limit.values[1:]
    return np.where(np.abs(numbers) <= far, np.clip(numbers, -most, most), np.float32(0.0))


def export(nodes: Nodes, numbers: str, limit: Table) -> str:
    """Append the nodes of `clipped` and return their tensor."""
    table = nodes.table(LIMIT, limit.values)
    most, far = (nodes.add("Gather", table, nodes.constant([j], np.int64), axis=0) for j in (0, 1))
    counted = nodes.add("Max", nodes.add("Min", numbers, most), nodes.add("Neg", most))
    near = nodes.add("LessOrEqual", nodes.add("Abs", numbers), far)
    return nodes.add("Where", near, counted, nodes.constant(np.zeros((1, 1), np.float32)))
