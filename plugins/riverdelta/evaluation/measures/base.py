"""The contract of measures: facts of each example, sums of them, and what follows from the sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.measures.known import Known, Moments

Report = dict[str, Any]
#: The scorers that are measured, in order.
SCORERS = ("base", "served")
LOST = 0
_Cube = types.float64[:, :, ::1]


@numba.njit(types.void(_Cube, types.float64[::1], types.float64, KERNELS, _Cube), cache=True)
def _lose(raw, label, bound, loss, facts):  # type: ignore[no-untyped-def]
    """Fill facts[N, :2, LOST] with the losses of raw[2, N, K]."""
    lost = np.empty(label.shape[0])
    for s in range(raw.shape[0]):
        loss.value(raw[s], label, lost)
        for i in range(label.shape[0]):
            # Compared, not clipped by min: a NaN stays one.
            facts[i, s, LOST] = bound if lost[i] > bound else lost[i]


class Measures(ABC):
    """Turns each example into facts of its scorers, adds facts up, and reports what follows from the sums.

    An example is a row, or a list of rows. Facts are float64[E, S, F], the first of them the loss, at most `Loss.bound`; a
    scorer for which it is NaN has nothing to say about the example. Sums are added example by example, so that they do not
    depend on how examples are cut into blocks, to the last bit; a negative weight takes an example back.

    Attributes
    ----------
    scorers
        The names of the S scorers: `base` and `served`, then baselines. A baseline predicts an example from the labels that had
        been received when it was scored.
    width
        The number F of facts of a scorer.
    """

    scorers: tuple[str, ...]
    width: int

    def __init__(self, loss: Loss, known: Known) -> None:
        self.loss, self.known = loss, known

    @abstractmethod
    def facts(self, rows: Rows, moments: Moments) -> tuple[Doubles, Doubles]:
        """Return the facts float64[E, S, F] of the measurable examples, and label and weight float64[E, 2].

        All rows are measurable, but for a loss of lists. Baselines learn the labels as they become known.
        """

    @abstractmethod
    def empty(self) -> dict[str, Doubles]:
        """Return zeroed sums."""

    @abstractmethod
    def add(self, sums: Mapping[str, Doubles], facts: Doubles, labels: Doubles) -> None:
        """Add examples to the sums, in order."""

    @abstractmethod
    def report(self, sums: Mapping[str, Doubles], recent: tuple[Doubles, Doubles] | None = None) -> dict[str, Report]:
        """Return {scorer: {measure: value}}; a measure whose divisor is 0 is None.

        `recent` are the facts and labels that the sums are of, if they are at hand.
        """

    def repaired(self, sums: Mapping[str, Doubles]) -> Mapping[str, Doubles]:
        """Return saved sums, those that are not possible replaced."""
        return sums

    def facts_of(self, saved: Doubles) -> Doubles:
        """Return saved rows of facts, label and weight in today's form."""
        return saved

    def history(self) -> dict[str, npt.NDArray[Any]]:
        """Return the live arrays of what the baselines have learned, besides `known`."""
        return {}

    def baselines(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state of the baselines to save."""
        return {**{name: array.copy() for name, array in self.history().items()}, **self.known.state()}

    def load_baselines(self, arrays: Arrays) -> None:
        """Restore what `baselines` returned; raises `Corrupt` if it does not fit."""
        for name, mine in self.history().items():
            mine[...] = take(arrays, name, mine)
        self.known.load(arrays)

    def scored(self, rows: Rows) -> tuple[Doubles, Doubles]:
        """Return room for `facts`, filled with the losses of base and served, and the labels and weights."""
        facts = np.empty((len(rows.label), len(self.scorers), self.width))
        _lose(rows.raw, rows.label, self.loss.bound, self.loss.kernels, facts)
        return facts, np.column_stack([rows.label, rows.weight])
