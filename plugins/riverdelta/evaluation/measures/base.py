"""The contract of measures: facts of each example, sums of them, and what follows from the sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.measures.known import Known, Moments

Report = dict[str, Any]
#: The scorers that are measured, in order.
SCORERS = ("base", "served")
LOST = 0


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

        Baselines learn the labels as they become known.
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

    def losses(self, rows: Rows) -> Doubles:
        """Return the losses float64[2, M] of base and served, of the measurable rows."""
        return np.stack([self.loss.value(raw[rows.good], rows.label[rows.good]) for raw in rows.raw])
