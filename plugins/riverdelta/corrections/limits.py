"""Limits: what a number counts as at most, in every kernel, in `predict` and in the graph, from its first value on.

A number counts as at most 4 times its typical size, the root mean square of its nonzero values, of which each counts as at most
4 times the typical size of those before it. Before its first value it counts as at most 1e15.

The first values have nothing that limits them, so a typical size far above the numbers is taken back. If of the last half of the
values (at least 8) at most one in 16, or one, exceeds an eighth of the typical size, the root mean square is wrong, because the
mean of squares of which each counts as at most 16 times the mean has more of them. The largest of the others then becomes the
typical size. One absurd first value is thus forgotten after 8 values, whatever its size, and k of them within 4·k.

A kernel keeps Σx² and the number of values of each feature, as it likes, and the array `window` for them. For each row it calls
`limited` before it computes the raw output; once it learns the row, it adds the square and calls `settled`. `publish` writes the
table that the graph reads.

Sources: Huber 1964 and 1981, section 5.2 ("proposal 2", the mean of limited squares).
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

#: The name of the table in `served` and in the graph: the limit of each number, float32[1, D].
LIMIT = "limit"
#: The name of the window in `learner`, float64[F, 3]: values since the last test, those that are large, the largest other square.
WINDOW = "window"
_TAIL = 16.0
#: The smallest typical size, and its square.
SMALLEST, LEAST = 1e-8, 1e-16
#: The most that a number counts as before its first value: its square, and sums of it, fit into float32.
_MOST = 1e15
_FEWEST, _LARGE, _SHARE = 8.0, 64.0, 16.0


@numba.njit
def typical(total, rows):  # type: ignore[no-untyped-def]
    """Return a feature's mean square from the sum `total` of its squares over the `rows` in which it is not 0."""
    return max(total / max(rows, 1.0), LEAST)


@numba.njit
def square(value, total, rows):  # type: ignore[no-untyped-def]
    """Return a square, limited to 16 times the mean of those before it."""
    if value * rows > _TAIL * max(total, LEAST * rows):
        return _TAIL * max(total / rows, LEAST)
    return value


@numba.njit
def most(total, rows):  # type: ignore[no-untyped-def]
    """Return what a number counts as at most, rounded to float32 as in the graph."""
    return np.float64(np.float32(math.sqrt(_TAIL * typical(total, rows)) if rows > 0.0 else _MOST))


@numba.njit
def is_usual(square, total, rows):  # type: ignore[no-untyped-def]
    """Return whether a square is certainly within the limit; costs no division. NaN is not."""
    return square * rows < 15.9 * max(total, LEAST * rows)


@numba.njit
def limited(value, total, rows):  # type: ignore[no-untyped-def]
    """Return a number as it counts; NaN stays NaN."""
    if is_usual(value * value, total, rows):
        return value
    limit = most(total, rows)
    return math.copysign(limit, value) if abs(value) > limit else value


@numba.njit
def settled(total, rows, square, window, f):  # type: ignore[no-untyped-def]
    """Return the sum of squares `total`, of which `square` is the last, or a lower one if the last values contradict it."""
    window[f, 0] += 1.0
    if square * rows * _LARGE > total:
        window[f, 1] += 1.0
    else:
        window[f, 2] = max(window[f, 2], square)
    count = window[f, 0]
    if count >= _FEWEST and 2.0 * count >= rows:
        if max(window[f, 1], 1.0) * _SHARE <= max(count, _SHARE):
            total = min(total, rows * window[f, 2]) if window[f, 2] > 0.0 else total
        window[f, :] = 0.0
    return total


@numba.njit(types.void(float64[:], float64[:], types.int64[:], types.float32[:, ::1]), cache=True)
def _fill(totals, rows, ends, limit):  # type: ignore[no-untyped-def]
    begin = 0
    for f in range(ends.shape[0]):
        limit[0, begin : ends[f]] = np.float32(most(totals[f], rows[f]))
        begin = ends[f]


def table(width: int) -> Table:
    """Return the table of the limits of `width` numbers before their first values.

    >>> table(2).values.tolist()
    [[999999986991104.0, 999999986991104.0]]
    """
    return Table(np.full((1, width), _MOST))


def window(features: int) -> npt.NDArray[np.float64]:
    """Return the window of `features` features without values."""
    return np.zeros((features, 3))


def publish(
    limit: Table, totals: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], ends: npt.NDArray[np.int64] | None = None
) -> None:
    """Write the limits of features with the sums `totals` over `rows` into their table; feature k ends before `ends[k]`."""
    before = limit.values.copy()
    _fill(totals, rows, np.arange(1, len(totals) + 1) if ends is None else ends, limit.values)
    limit.touched[0] |= not np.array_equal(before, limit.values)


def clipped(numbers: Floats, limit: Table) -> Floats:
    """Return numbers float32[N, D] as they count."""
    return np.clip(numbers, -limit.values, limit.values)


def export(nodes: Nodes, numbers: str, limit: Table) -> str:
    """Append the nodes of `clipped` and return their tensor."""
    most = nodes.table(LIMIT, limit.values)
    return nodes.add("Max", nodes.add("Min", numbers, most), nodes.add("Neg", most))
