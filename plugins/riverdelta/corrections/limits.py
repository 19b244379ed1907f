"""Limits: what a number counts as at most, in every kernel, in `predict` and in the graph, from its first value on.

A number counts as at most 4 times its typical size T, the root mean square of its nonzero values, each limited in this way.
From 16 T on it counts the less the larger it is, and leaves T as it is; beyond 64 T it counts as 0, as a missing one.
The limit is set again after each of the first 8 values and then each time their number has grown by a quarter.

The first values are not limited, and units change; so T is tested at the same times, on at least 8 values. If 7 in 16 or more
are below T/8, T becomes the root mean square of these: the others may be marks. If more than 5 in 8 are beyond the limit, T
becomes theirs. So up to half of all values may be marks, and k absurd first values are forgotten within 2·k.

A kernel keeps for each feature Σx² and the number of nonzero values, and a row of `window`. It limits a number by `counted`
before it computes the raw output. Once it learns the example, it adds x² to the sum if `is_usual`, or calls `unusual`.

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
from riverdelta.corrections.table import Table

#: The name of the table in `served` and in the graph, float32[1, D]: the limit of each number.
LIMIT = "limit"
#: The name of the array in `learner`, float64[F, 8], with the columns below.
WINDOW = "window"
#: The smallest typical square: sizes below 1e-12 count as 1e-12.
LEAST = 1e-24
#: What a number counts as at most before its first value. Sums of its square fit into float32.
MOST = 1e15
#: Sizes are tested from this many values on.
FEWEST = 8.0
_TAIL, _FAR, _LARGE, _LONGEST = 16.0, 4.0, 64.0, 65536.0
#: A divisor in place of 0.
_TINY = np.float32(1e-30)
#: Squares within [_LOW, _HIGH] are usual. The window began after _SINCE values and ends with value _UNTIL. It has _SMALL
#: smaller squares and _BEYOND larger ones. After each is their sum, in which a larger one is limited by those before it.
_LOW, _HIGH, _SINCE, _UNTIL, _SMALL, _BEYOND = 0, 1, 2, 3, 4, 6


@numba.njit(inline="always")
def typical(total, rows):  # type: ignore[no-untyped-def]
    """Return a feature's mean square from the sum `total` of its squares over the `rows` in which it is not 0."""
    return max(total / max(rows, 1.0), LEAST)


@numba.njit(inline="always")
def counted(value, limit):  # type: ignore[no-untyped-def]
    """Return a float32 as it counts."""
    size, far = abs(value), np.float32(_FAR) * limit
    if size <= limit:
        return value
    return math.copysign(limit, value) * (far / max(size, far, _TINY)) if size <= np.float32(_FAR) * far else np.float32(0.0)


@numba.njit(inline="always")
def is_usual(square, rows, window, f):  # type: ignore[no-untyped-def]
    """Return whether the square of value `rows` of feature f only adds to the sum."""
    return window[f, _LOW] <= square <= window[f, _HIGH] and rows < window[f, _UNTIL]


@numba.njit
def unusual(total, rows, square, window, f, limit, begin, end):  # type: ignore[no-untyped-def]
    """Return the sum `total` of squares with that of value `rows` of feature f, and set limit[0, begin:end] if it is time."""
    w = window[f]
    if rows <= 1.0:
        square = min(square, np.float64(limit[0, begin]) ** 2)
        w[_HIGH] = math.inf
    if square < w[_LOW]:
        w[_SMALL] += 1.0
        w[_SMALL + 1] += square
        total += square
    elif square > w[_HIGH]:
        square = min(square, MOST * MOST)
        w[_BEYOND + 1] += min(square, _TAIL * w[_BEYOND + 1] / w[_BEYOND] if w[_BEYOND] > 0.0 else w[_HIGH])
        w[_BEYOND] += 1.0
        total += w[_HIGH] if square <= _TAIL * w[_HIGH] else w[_HIGH] / _TAIL
    else:
        total += square
    return _tested(total, rows, w, limit, begin, end) if rows >= w[_UNTIL] else total


@numba.njit
def _tested(total, rows, w, limit, begin, end):  # type: ignore[no-untyped-def]
    count = rows - w[_SINCE]
    if count >= FEWEST:
        if w[_SMALL] >= 0.4375 * count:
            total = rows * w[_SMALL + 1] / w[_SMALL]
        elif w[_BEYOND] > 0.625 * count:
            total = rows * w[_BEYOND + 1] / w[_BEYOND]
        w[_SINCE], w[_SMALL:] = rows, 0.0
    w[_UNTIL] = rows + 1.0 if rows < FEWEST else w[_SINCE] + min(max(rows // 4.0, FEWEST), _LONGEST)
    w[_LOW], w[_HIGH] = typical(total, rows) / _LARGE, _TAIL * typical(total, rows)
    limit[0, begin:end] = min(math.sqrt(w[_HIGH]), MOST)
    return total


@numba.njit
def begin_with(total, rows, window, f, limit, begin, end):  # type: ignore[no-untyped-def]
    """Limit feature f, of which `rows` squares with the sum `total` are known."""
    window[f, _SINCE] = rows
    _tested(total, rows, window[f], limit, begin, end)


@numba.njit(types.void(float64[:], float64[:], float64[:, ::1], types.int64[:], types.float32[:, ::1]), cache=True)
def _restore(totals, rows, window, ends, limit):  # type: ignore[no-untyped-def]
    begin = 0
    for f in range(ends.shape[0]):
        if rows[f] > 0.0 and window[f, _UNTIL] == 0.0:
            begin_with(totals[f], rows[f], window, f, limit, begin, ends[f])
        begin = ends[f]


def table(width: int) -> Table:
    """Return the table of the limits of `width` numbers without values."""
    return Table(np.full((1, width), MOST))


def window(features: int) -> npt.NDArray[np.float64]:
    """Return the window of `features` features without values."""
    return np.zeros((features, 8))


def restore(
    limit: Table,
    window: npt.NDArray[np.float64],
    totals: npt.NDArray[np.float64],
    rows: npt.NDArray[np.float64],
    ends: npt.NDArray[np.int64] | None = None,
) -> None:
    """Limit features of which a version without limits saved the sums `totals` over `rows`; feature k ends before `ends[k]`."""
    _restore(totals, rows, window, np.arange(1, len(totals) + 1) if ends is None else ends, limit.values)


@numba.njit(types.void(types.float32[:, ::1], types.float32[:, ::1]), cache=True)
def _limit(numbers, limit):  # type: ignore[no-untyped-def]
    for i in range(numbers.shape[0]):
        for d in range(numbers.shape[1]):
            numbers[i, d] = counted(numbers[i, d], limit[0, d])


def limited(numbers: Floats, limit: Table) -> Floats:
    """Limit numbers float32[N, D] in place and return them.

    >>> limited(np.array([[3], [-9], [640]], np.float32), Table([[4.0]])).ravel().tolist()
    [3.0, -4.0, 0.0]
    """
    _limit(numbers, limit.values)
    return numbers


def export(nodes: Nodes, numbers: str, most: str, dtype: npt.DTypeLike = np.float32) -> str:
    """Append the nodes of `counted`, for numbers and limits of one type, and return their tensor."""
    far, farthest = (nodes.add("Mul", most, nodes.constant([times], dtype)) for times in (_FAR, _FAR**2))
    size = nodes.add("Abs", numbers)
    near = nodes.add("Max", nodes.add("Min", numbers, most), nodes.add("Neg", most))
    shrunk = nodes.add("Mul", near, nodes.add("Div", far, nodes.add("Max", size, far)))
    return nodes.add("Where", nodes.add("LessOrEqual", size, farthest), shrunk, nodes.constant([0.0], dtype))
