"""Unit: the size of a typical loss of the base, in which differences of losses are clipped and margins are stated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.measured import Rows

#: Up to this many rows the scale is the median of the losses so far.
FIRST = 15
#: The mean that follows forgets at this many rows.
_WINDOW = 1_000
#: The state, one record of float64: the scale, the rows so far, and the first losses.
_STATE = np.dtype([("scale", np.float64), ("rows", np.float64), ("first", np.float64, (FIRST,))])


@numba.njit(
    types.void(types.Array(numba.from_dtype(_STATE), 1, "C"), types.float64[::1], types.boolean[::1], types.float64[::1]),
    cache=True,
)
def _scales(state, losses, counted, out):  # type: ignore[no-untyped-def]
    """Fill out[N] with the scale before each row."""
    s = state[0]
    for i in range(losses.shape[0]):
        out[i] = s.scale
        if not counted[i]:
            continue
        loss = losses[i]
        if s.rows < FIRST:
            s.first[np.int64(s.rows)] = loss
            s.rows += 1.0
            first = np.sort(s.first[: np.int64(s.rows)])
            middle = first[first.shape[0] // 2]
            s.scale = middle if middle > 0.0 else first.mean()
        else:
            s.rows += 1.0
            moved = s.scale + (loss - s.scale) / min(s.rows, _WINDOW)
            s.scale = min(moved, 2.0 * s.scale) if s.scale > 0.0 else moved


class Compared(NamedTuple):
    """M examples of which two scorers are compared: float64[M] each, except `known` bool[M].

    `known` are those that can be compared: the first scorer's outputs and the weights are finite and the labels valid. `won`
    is the weighted loss of the first less that of the second, NaN if the second has no finite output. `typical` is the base's
    loss, not weighted, and `weight` the sum of the weights.
    """

    known: npt.NDArray[np.bool_]
    won: Doubles
    typical: Doubles
    weight: Doubles

    @classmethod
    def of(
        cls, loss: Loss, scorers: tuple[Floats, Floats, Floats], label: Floats, weight: Floats, group: Group = None
    ) -> Compared:
        """Return the examples of N rows: raw outputs float32[N, K] of two scorers and the base, labels, weights and lists.

        Raises `InvalidInput` if lengths differ.
        """
        starts = loss.starts(len(label), group, each=True)
        first, second, base = (Rows.of(loss, one, one, label, weight, group) for one in scorers)
        rows, losses = first.good, np.full((3, len(label)), np.nan)
        lists = None if group is None else np.asarray(group)[rows]
        for out, scorer in zip(losses, (first, second, base), strict=True):
            out[rows] = loss.value(scorer.raw[0, rows], first.label[rows], lists)
        losses[1][~second.good] = np.nan
        with np.errstate(invalid="ignore"):
            won = by_list(np.add, first.weight * (losses[0] - losses[1]), starts)
        typical, total = (by_list(np.add, one, starts) for one in (losses[2], first.weight))
        return cls(by_list(np.logical_and, rows, starts), won, typical, total)


def by_list(combine: np.ufunc, of_rows: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    """Return one number for each example from those of its rows, N + 1 `starts` being what `Loss.starts` gives for each.

    >>> by_list(np.add, np.array([1.0, 2.0, 3.0]), np.array([0, 2, 3])).tolist()
    [3.0, 3.0]
    """
    return of_rows if len(starts) == len(of_rows) + 1 or not len(of_rows) else combine.reduceat(of_rows, starts[:-1])


class Unit:
    """The unit in which measures clip differences of losses and state margins: 1, or a running scale of the base's loss.

    The unit of a log loss of probabilities is 1 nat. Any other loss, such as the squared error in the label's own unit, is
    divided by what is typical for the base on the rows before: its differences are then shares of the base's typical loss,
    whatever the label is measured in.

    Parameters
    ----------
    loss
        The loss of the task.

    Notes
    -----
    The scale is the median of the first 15 losses of the base (their mean if the median is 0), then their mean over about the
    last 1,000 rows, in which no row more than doubles it. So a label in the wrong unit changes it by at most a factor of 2, a
    lasting change of the unit is followed within some tens of rows, and losses that are nearly always 0 still have a scale.
    The scale before row t depends only on rows before t. That is all that an anytime-valid test needs in order to use it: with
    x_t in [-B, B], and E[x_t | the rows before] as the quantity that the test is about, any predictable divisor is allowed.
    Multiplying all losses by a constant multiplies every scale by it.

    Examples
    --------
    >>> Unit().of(np.array([0.7, 0.3]), np.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, loss: Loss = LOG_LOSS) -> None:
        #: Whether the unit is the same for all rows.
        self.constant = loss.dispersion == "none"
        #: What a difference is measured in, for a report.
        self.name = loss.unit if self.constant else "typical losses of the base"
        #: The largest normal difference of two scorers' losses on an example, in this unit.
        self.largest = loss.scale if self.constant else 1.0
        self._state = np.zeros(1, _STATE)

    @property
    def scale(self) -> float:
        """The scale for the next row, in the loss's unit; 0 before any row had a loss."""
        return 1.0 if self.constant else float(self._state["scale"][0])

    def of(self, losses: npt.ArrayLike, weight: npt.ArrayLike) -> Doubles:
        """Add the base's losses float64[N], unweighted, and return the scale in force before each row, float64[N].

        Rows whose weight is not above 0, such as those taken back, and rows whose loss is not finite do not change it. Before
        any row had a loss it is 0: no difference can be measured yet.
        """
        given = np.ascontiguousarray(losses, np.float64)
        out = np.ones(len(given))
        if not self.constant:
            _scales(self._state, given, np.isfinite(given) & (np.asarray(weight) > 0), out)
        return out

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, {} for a constant unit."""
        return {} if self.constant else {"scale": self._state.view(np.float64).copy()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit."""
        for name, mine in self.state().items():
            found = take(arrays, name, mine)
            if not (np.isfinite(found).all() and (found >= 0).all()):
                raise Corrupt(f"the saved {name!r} is {found.tolist()}; expected finite numbers of at least 0")
            self._state[:] = found.view(_STATE)
