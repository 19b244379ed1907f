"""Limits: the numbers that a pipeline reads, held near their usual values."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types
from onnx import TensorProto

from riverdelta.core.nodes import Nodes
from riverdelta.corrections import limits
from riverdelta.corrections.base import Table

#: The rows whose median is the centre of a number, and the deviations other than 0 that these have at most.
FIRST, _DEVIATIONS = 8, 7
#: The root mean square of a normal distribution in medians.
_NORMAL = 1.4826
_LARGEST = float(np.finfo(np.float32).max)
_Doubles = float64[:, ::1]


@numba.njit
def _deviate(size, known, first, window, d):  # type: ignore[no-untyped-def]
    """Learn from the size of a deviation; known[d] is (rows, centre, Σ deviation², deviations other than 0)."""
    if size == 0.0:
        return
    if known[d, 3] < _DEVIATIONS:
        first[d, int(known[d, 3])] = size
        known[d, 3] += 1.0
        known[d, 2] = known[d, 3] * (_NORMAL * np.median(first[d, : int(known[d, 3])])) ** 2
    else:
        square = limits.square(size * size, known[d, 2], known[d, 3])
        known[d, 3] += 1.0
        known[d, 2] = limits.settled(known[d, 2] + square, known[d, 3], square, window, d)


@numba.njit(types.void(_Doubles, types.boolean[::1], _Doubles, _Doubles, _Doubles, types.float32[:, ::1]), cache=True)
def _learn(x, learned, known, first, window, table):  # type: ignore[no-untyped-def]
    """Limit the numbers x[N, D] of each row, and learn from it if it is `learned`."""
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            v = x[i, d]
            x[i, d] = min(max(v, np.float64(table[d, 0])), np.float64(table[d, 1]))
            if not learned[i]:
                continue
            row = int(known[d, 0])
            known[d, 0] += 1.0
            if row < FIRST:
                first[d, row] = v
            if row == FIRST - 1:
                # The centre is one of the values, so that those equal to it deviate by exactly 0.
                values = np.sort(first[d])
                known[d, 1] = values[FIRST // 2]
                for value in values:
                    _deviate(abs(value - known[d, 1]), known, first, window, d)
            elif row >= FIRST:
                _deviate(abs(v - known[d, 1]), known, first, window, d)
            if row >= FIRST - 1:
                reach = limits.most(known[d, 2], known[d, 3]) if known[d, 3] >= _DEVIATIONS else 0.0
                table[d, 0] = max(known[d, 1] - reach, -_LARGEST)
                table[d, 1] = min(known[d, 1] + reach, _LARGEST)
            if row == FIRST - 1:
                x[i, d] = min(max(v, np.float64(table[d, 0])), np.float64(table[d, 1]))


class Limits:
    """Holds each of D numbers within 4 typical deviations of its centre, from the first example on.

    Notes
    -----
    The centre is the median of the first 8 rows; the last of them is the first that a pipeline learns with its numbers. The
    typical deviation is that of `corrections.limits` for the deviations other than 0, and begins with the median of the first 7,
    until which the number counts as its centre. A few absurd values thus neither reach the pipeline nor move its limits far,
    whenever they come. A number that is mostly 0 keeps its values, as does one of large mean and small spread.

    The served table has one row (least, greatest) for each number, which are 0 before the centre is known.
    """

    #: The names of the arrays of `state`.
    NAMES = "known", "first", limits.WINDOW

    def __init__(self, numbers: int) -> None:
        self.table = Table(np.zeros((numbers, 2)))
        arrays = np.zeros((numbers, 4)), np.zeros((numbers, FIRST)), limits.window(numbers)
        self.state = dict(zip(self.NAMES, arrays, strict=True))

    @property
    def known(self) -> bool:
        """Whether the centres are known; before, pipelines read no numbers."""
        return bool((self.state["known"][:, 0] >= FIRST).all())

    def apply(self, x: npt.NDArray[np.float64]) -> None:
        """Limit the numbers float64[N, D] of rows in place."""
        np.clip(x, *self.table.values.T.astype(np.float64), out=x)

    def learn(self, x: npt.NDArray[np.float64], learned: npt.NDArray[np.bool_]) -> int:
        """Limit the numbers of rows in place and learn from those that are `learned`.

        Return the row by which the centres are known: it is the first that a pipeline learns with its numbers.
        """
        lacking = FIRST - int(self.state["known"][:1, 0].sum())
        _learn(x, learned, *self.state.values(), self.table.values)
        self.table.touched[:] |= learned.any()
        return int(np.searchsorted(np.cumsum(learned), lacking)) if lacking > 0 else -1

    def export(self, nodes: Nodes, table: str, tensor: str, begin: int, width: int) -> str:
        """Append the limits of `width` numbers, float64[N, width], that begin at row `begin` of the table."""
        wide = nodes.cast(nodes.add("Reshape", tensor, nodes.constant([-1, width], np.int64)), TensorProto.DOUBLE)
        for op, end in (("Max", 0), ("Min", 1)):
            at = nodes.add("Gather", table, nodes.constant(np.arange(begin, begin + width)), axis=0)
            limit = nodes.add("Gather", at, nodes.constant(end, np.int64), axis=1)
            wide = nodes.add(
                op, wide, nodes.cast(nodes.add("Reshape", limit, nodes.constant([1, width], np.int64)), TensorProto.DOUBLE)
            )
        return wide
