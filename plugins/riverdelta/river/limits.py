"""Limits: the numbers that a pipeline reads, held near their usual values."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types
from onnx import TensorProto

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Table

#: The rows whose median is the centre of a number, and the deviations whose median is its first typical size.
FIRST = 8
#: A number counts as at most this many typical deviations from its centre.
_FAR = 4.0
#: The root mean square of a normal distribution in medians.
_NORMAL = 1.4826
#: The weight of the first typical size, and the most later deviations that count, in rows.
_PRIOR, _MEMORY = 32.0, 1000.0
_LARGEST = float(np.finfo(np.float32).max)
_Doubles = float64[:, ::1]


@numba.njit(types.void(_Doubles, types.boolean[::1], _Doubles, _Doubles, types.float32[:, ::1]), cache=True)
def _learn(x, learned, first, typical, limits):  # type: ignore[no-untyped-def]
    """Limit the numbers x[N, D] of each row, and learn from it if it is `learned`.

    typical[d] is (rows, centre, deviations other than 0, mean square of these).
    """
    for i in range(x.shape[0]):
        for d in range(x.shape[1]):
            v, (rows, centre, deviations, square) = x[i, d], typical[d]
            x[i, d] = min(max(v, np.float64(limits[d, 0])), np.float64(limits[d, 1]))
            if not learned[i]:
                continue
            typical[d, 0] = rows + 1.0
            if rows < FIRST:
                first[d, int(rows)] = v
                if rows + 1.0 < FIRST:
                    continue
                # The centre is one of the values, so that those equal to it deviate by exactly 0.
                centre = typical[d, 1] = np.sort(first[d])[FIRST // 2]
                for value in first[d].copy():
                    if value != centre:
                        first[d, int(deviations)] = abs(value - centre)
                        deviations += 1.0
            elif v == centre:
                continue
            elif deviations < FIRST - 1:
                first[d, int(deviations)] = abs(v - centre)
                deviations += 1.0
            else:
                deviations += 1.0
                counted = min((v - centre) ** 2, _FAR * _FAR * square)
                square += (counted - square) / (_PRIOR + min(deviations, _MEMORY))
            if deviations == FIRST - 1:
                square = (_NORMAL * np.median(first[d, : FIRST - 1])) ** 2
            reach = _FAR * np.sqrt(square)
            limits[d, 0] = max(centre - reach, -_LARGEST)
            limits[d, 1] = min(centre + reach, _LARGEST)
            typical[d, 2], typical[d, 3] = deviations, square
            if rows + 1.0 == FIRST:
                x[i, d] = min(max(v, limits[d, 0]), limits[d, 1])


class Limits:
    """Limits each of D numbers to within 4 typical deviations of its centre, from the first example on.

    Notes
    -----
    The centre is the median of the first 8 rows, which a pipeline reads without numbers. The typical deviation is the root mean
    square of the deviations other than 0, limited ones, over the last 1,000 or so; it begins with the median of the first 7, until
    which the number counts as its centre. A few absurd values thus neither reach the pipeline nor move the limits far, whenever
    they come, and a number that is mostly 0, or has a large mean and a small spread, keeps its values.

    The served table `limits` has one row (least, greatest) for each number; both are 0 before the centre is known.
    """

    def __init__(self, numbers: int) -> None:
        self.table = Table(np.zeros((numbers, 2)))
        self.state = {"first": np.zeros((numbers, FIRST)), "typical": np.zeros((numbers, 4))}

    @property
    def known(self) -> bool:
        """Whether the centres are known; before, pipelines read no numbers."""
        return bool((self.state["typical"][:, 0] >= FIRST).all())

    def apply(self, x: npt.NDArray[np.float64]) -> None:
        """Limit the numbers float64[N, D] of rows in place."""
        np.clip(x, *self.table.values.T.astype(np.float64), out=x)

    def learn(self, x: npt.NDArray[np.float64], learned: npt.NDArray[np.bool_]) -> int:
        """Limit the numbers of rows in place and learn from those that are `learned`.

        Return the row by which the centres are known: it is the first that a pipeline learns with its numbers.
        """
        lacking = FIRST - int(self.state["typical"][:1, 0].sum())
        _learn(x, learned, self.state["first"], self.state["typical"], self.table.values)
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
