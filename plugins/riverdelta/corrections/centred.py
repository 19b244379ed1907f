"""Centred: the numbers of a pipeline, each held near its usual values."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types
from onnx import TensorProto

from riverdelta.core.nodes import Nodes
from riverdelta.corrections import limits
from riverdelta.corrections.table import Table

#: The rows whose median is the centre of a number, and the deviations other than 0 that these have at most.
FIRST, _DEVIATIONS = 32, 31
#: The root mean square of a normal distribution in medians.
_NORMAL = 1.4826
_LARGEST = np.finfo(np.float32).max
_Doubles = float64[:, ::1]


@numba.vectorize([float64(float64, float64, float64)], cache=True)  # type: ignore[no-untyped-call]
def _limited(x, centre, reach):  # type: ignore[no-untyped-def]
    return x if abs(x - centre) <= reach else centre + limits.counted(x - centre, reach)


@numba.njit
def _deviate(size, known, first, window, d, table):  # type: ignore[no-untyped-def]
    """Learn from the size of a deviation; known[d] is (rows, centre, Σ deviation², deviations other than 0)."""
    reach = table[:, 3:].T
    if size == 0.0:
        return
    known[d, 3] += 1.0
    if known[d, 3] <= _DEVIATIONS:
        first[d, int(known[d, 3]) - 1] = size
        known[d, 2] = known[d, 3] * (_NORMAL * np.median(first[d, : int(known[d, 3])])) ** 2
        if known[d, 3] == _DEVIATIONS:
            limits.begin_with(known[d, 2], known[d, 3], window, d, reach, d, d + 1)
    elif limits.is_usual(size * size, known[d, 3], window, d):
        known[d, 2] += size * size
    else:
        known[d, 2] = limits.unusual(known[d, 2], known[d, 3], size * size, window, d, reach, d, d + 1)


@numba.njit
def _learn_one(v, known, first, window, d, table):  # type: ignore[no-untyped-def]
    """Learn a value of number d."""
    row = int(known[d, 0])
    known[d, 0] += 1.0
    if row >= FIRST:
        _deviate(abs(v - known[d, 1]), known, first, window, d, table)
        return
    first[d, row] = v
    if row == FIRST - 1:
        # The centre is one of the values, so that those equal to it deviate by exactly 0.
        values = np.sort(first[d])
        centre = known[d, 1] = values[FIRST // 2]
        table[d, 3] = np.float32(0.0)
        for value in values:
            _deviate(abs(value - centre), known, first, window, d, table)
        for limb in range(3):
            table[d, limb] = np.float32(centre)
            centre -= np.float64(table[d, limb])


@numba.njit(
    types.void(_Doubles, types.boolean[::1], types.int64[::1], _Doubles, _Doubles, _Doubles, types.float32[:, ::1]), cache=True
)
def _learn(x, learned, starts, known, first, window, table):  # type: ignore[no-untyped-def]
    """Learn the rows of x[N, D] that are `learned`, and limit the numbers of each list as they were before it, or by its end if
    the centre is not known before."""
    for n in range(starts.shape[0] - 1):
        for d in range(x.shape[1]):
            centre, reach, begins = known[d, 1], np.float64(table[d, 3]), known[d, 0] < FIRST
            for i in range(starts[n], starts[n + 1]):
                v = x[i, d]
                if not begins:
                    x[i, d] = _limited(v, centre, reach)
                if learned[i]:
                    _learn_one(v, known, first, window, d, table)
            if begins:
                for i in range(starts[n], starts[n + 1]):
                    x[i, d] = _limited(x[i, d], known[d, 1], np.float64(table[d, 3]))


class Limits:
    """Holds each of D numbers within 4 typical deviations of its centre, from the first example on.

    Notes
    -----
    The centre is the median of the first 32 rows; the list of the last of these is the first that a pipeline learns with its
    numbers. The typical deviation is the typical size of `corrections.limits`, of deviations other than 0. It begins with the
    median of the first 31; until then a number counts as its centre. A few absurd values, whenever they come, thus neither
    reach the pipeline nor move its limits far. A number that is mostly 0 keeps its other values, and one of large mean and
    small spread all of them.

    The served table has one row for each number: the centre as the sum of three, and the limit of the deviation. All are 0
    before the centre is known.
    """

    #: The names of the arrays of `state`.
    NAMES = "known", "first", limits.WINDOW

    def __init__(self, numbers: int) -> None:
        self.table = Table(np.zeros((numbers, 4)))
        arrays = np.zeros((numbers, 4)), np.zeros((numbers, FIRST)), limits.window(numbers)
        self.state = dict(zip(self.NAMES, arrays, strict=True))

    @property
    def known(self) -> bool:
        """Whether numbers can be limited; before, a pipeline reads none."""
        return bool(((self.state["known"][:, 0] >= FIRST) | (self.table.values[:, 3] > 0)).all())

    def restore(self, trained: bool) -> None:
        """Limit nothing before the centre is known if a pipeline was `trained` by a version that had no limits."""
        if not self.state["known"].any():
            self.table.values[:] = 0.0
            self.table.values[:, 3] = _LARGEST * trained

    def apply(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the numbers float64[N, D] of rows, limited."""
        *limbs, reach = self.table.values.T.astype(np.float64)
        centre = np.sum(limbs, axis=0)
        return _limited(x, centre, reach)

    def learn(self, x: npt.NDArray[np.float64], learned: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64]) -> int:
        """Limit the numbers of lists in place and learn from the rows that are `learned`; list n begins at row starts[n].

        Return the row by which the centres are known: its list is the first that a pipeline learns with its numbers.
        """
        lacking = 0 if self.known else FIRST - int(self.state["known"][0, 0])
        known, first, window = self.state.values()
        _learn(x, learned, starts, known, first, window, self.table.values)
        self.table.touched[:] |= learned.any()
        return int(np.searchsorted(np.cumsum(learned), lacking)) if lacking > 0 else -1

    def export(self, nodes: Nodes, table: str, x: str, begin: int, width: int) -> str:
        """Append the limits of `width` numbers, float64[N, width], that begin at row `begin` of the table."""
        x = nodes.cast(nodes.add("Reshape", x, nodes.constant([-1, width], np.int64)), TensorProto.DOUBLE)
        rows = nodes.cast(nodes.add("Gather", table, nodes.constant(np.arange(begin, begin + width))), TensorProto.DOUBLE)
        parts = [nodes.add("Gather", rows, nodes.constant(part, np.int64), axis=1) for part in range(4)]
        centre, reach = nodes.add("Add", nodes.add("Add", parts[0], parts[1]), parts[2]), parts[3]
        off = nodes.add("Sub", x, centre)
        near = nodes.add("Add", centre, limits.export(nodes, off, reach, np.float64))
        return nodes.add("Where", nodes.add("LessOrEqual", nodes.add("Abs", off), reach), x, near)
