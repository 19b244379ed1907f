"""Prequential: how well base and served outputs predicted the labels that came after them (test, then train)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.measured import Rows, aligned
from riverdelta.evaluation.measures import SCORERS, Measures, Report, measures_of
from riverdelta.evaluation.measures.known import Moments

__all__ = ["SCORERS", "Prequential"]

#: The rows that are measured in one call.
AT_ONCE = 512


class Prequential:
    """The loss of base and served outputs and the measures of the task, beside simple baselines.

    With loss l, weight w: loss = Σ w·min(l, `Loss.bound`) / Σ w, in the loss's unit, and `clipped` is Σ w of the rows whose
    loss exceeds that: all reports of losses count them here. The other measures and the baselines are those of
    `evaluation.measures`; a baseline predicts a row from the labels that had been received when the row was scored. Unit
    weights count rows; a row of weight -1 takes an earlier one back.

    "all" keeps sums, and "recent" the last `window` examples themselves. Rows are added strictly in order: the state does not
    depend on how blocks are split, to the last bit.

    Parameters
    ----------
    threshold
        Probability from which a score counts as positive (default 0.5), rounded to the edge of a bin (by less than 0.0005; 0.5
        is exact). Set it to the threshold that your application uses. Reports state it.
    window
        Examples in "recent" (default 10,000). A larger window has less noise and shows a change later.
    loss
        The loss of the task.

    References: Dawid 1984 (prequential); Gama, Sebastião, Rodrigues 2013 (windows).

    >>> p = Prequential(window=2)
    >>> p.update(np.float32([0, 0, 0]), np.float32([-2, 1, 3]), np.float32([0, 0, 1]))
    >>> r = p.report()
    >>> r["all"]["served"]["auc"], r["all"]["base"]["auc"], r["all"]["served"]["precision"], r["recent"]["served"]["examples"]
    (1.0, 0.5, 0.5, 2)
    >>> round(r["all"]["last_label"]["accuracy"], 3)
    0.333
    """

    def __init__(self, threshold: float = 0.5, window: int = 10_000, loss: Loss = LOG_LOSS) -> None:
        self.window, self.loss = window, loss
        self._families = [_Family(each, window) for each in measures_of(loss, threshold)]
        self._skipped = 0
        #: Rows that are not measured yet: a few at once would take as long as many.
        self._waiting: list[tuple[Any, ...]] = []

    def update(
        self,
        base: Floats,
        served: Floats,
        label: Floats,
        weight: Floats | None = None,
        group: Group = None,
        moments: Moments | None = None,
    ) -> None:
        """Add N rows: raw outputs float32[N, K] as they were when each row was scored, labels, weights (default 1).

        `group` int64[N] has the list of each row, for a loss of lists; `moments` is what baselines need: a row of which they
        are unknown knows all labels before. A row with a value that is not finite, or with an invalid label, is left out with
        its list, and counted as skipped. Arrays are read later too, so that they must not change.
        """
        given = aligned(base, served, label, np.ones(len(label)) if weight is None else weight)
        moments = moments or Moments.unknown(len(label))
        if self.loss.lists:
            self._measure(Rows.of(self.loss, *given, group), moments)
            return
        shape = len(label), self.loss.outputs
        self._waiting.append((given[0].reshape(shape), given[1].reshape(shape), *given[2:], moments))
        if sum(len(one[-1].scored) for one in self._waiting) >= AT_ONCE:
            self._settle()

    def _settle(self) -> None:
        """Measure the rows that wait."""
        if self._waiting:
            *given, moments = zip(*self._waiting, strict=True)
            self._waiting = []
            self._measure(Rows.of(self.loss, *map(np.concatenate, given)), Moments.joined(moments))

    def _measure(self, rows: Rows, moments: Moments) -> None:
        self._skipped += int(np.count_nonzero(~rows.good))
        if not (self.loss.lists or rows.good.all()):
            rows, moments = rows.at(rows.good), moments.at(rows.good)
        for family in self._families:
            family.update(*family.measures.facts(rows, moments))

    def report(self) -> dict[str, dict[str, Report]]:
        """Return {"all" | "recent": {scorer: {measure: value}}}; a measure whose divisor is 0 is null.

        Scorers are base, served and the baselines; each has examples, skipped (rows, over all time), loss, and the measures of
        its task.
        """
        self._settle()
        found: dict[str, dict[str, Report]] = {"all": {}, "recent": {}}
        for family in self._families:
            for window, (examples, report) in family.report().items():
                for scorer, measures in report.items():
                    found[window][scorer] = {"examples": examples, "skipped": self._skipped, **measures}
        return found

    def state(self) -> dict[str, Array]:
        """Return the state to save, from which `load` continues bit for bit."""
        self._settle()
        first, *others = self._families
        return {
            **first.state(self._skipped),
            **nest({f"baselines_{n}": family.state(0) for n, family in enumerate(others)}),
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, with any threshold and window; raises `Corrupt` if it does not fit.

        A window that is larger than the saved one fills up with new rows. A sum of losses that is not possible is computed
        again from the counts; a state of version 0.1 has no baselines.
        """
        self._waiting = []
        first, *others = self._families
        self._skipped = first.load(arrays)
        for n, family in enumerate(others):
            if saved := part(arrays, f"baselines_{n}"):
                family.load(saved)


class _Family:
    """Measures with their sums over all examples, and the facts of the last `window`."""

    def __init__(self, measures: Measures, window: int) -> None:
        self.measures, self.window = measures, window
        self._sums, self._examples, self._held = measures.empty(), 0, 0
        #: Facts, label and weight; example k is at k mod window.
        self._recent = np.zeros((window, len(measures.scorers) * measures.width + 2))

    def update(self, facts: Doubles, labels: Doubles) -> None:
        self.measures.add(self._sums, facts, labels)
        self._examples += len(facts)
        self._held = min(self._held + len(facts), self.window)
        self._put(np.hstack([facts.reshape(len(facts), facts.shape[1] * facts.shape[2]), labels])[-self.window :])

    def report(self) -> dict[str, tuple[int, dict[str, Report]]]:
        rows, sums = self._recent[self._places(self._held)], self.measures.empty()
        facts = np.ascontiguousarray(rows[:, :-2].reshape(len(rows), len(self.measures.scorers), self.measures.width))
        recent = facts, np.ascontiguousarray(rows[:, -2:])
        self.measures.add(sums, *recent)
        return {
            "all": (self._examples, self.measures.report(self._sums)),
            "recent": (len(rows), self.measures.report(sums, recent)),
        }

    def state(self, skipped: int) -> dict[str, Array]:
        return {
            **{name: array.copy() for name, array in self._sums.items()},
            "rows": np.array([self._examples, skipped], np.int64),
            "recent": self._recent[self._places(self._held)],
            **nest({"baselines": self.measures.baselines()}),
        }

    def load(self, arrays: Arrays) -> int:
        sums = {name: take(arrays, name, mine).copy() for name, mine in self._sums.items()}
        rows, saved = take(arrays, "rows", np.zeros(2, np.int64)), take(arrays, "recent")
        if saved.ndim != 2 or saved.dtype.kind != "f":
            raise Corrupt(f"the saved 'recent' is {saved.dtype}{list(saved.shape)}; expected rows of facts")
        recent = self.measures.facts_of(saved.astype(np.float64))
        if recent.shape[1] != self._recent.shape[1]:
            raise Corrupt(f"the saved 'recent' has {recent.shape[1]} columns; expected {self._recent.shape[1]}")
        if len(recent) > rows[0]:
            raise Corrupt(f"the saved 'recent' has {len(recent)} rows; expected at most the {rows[0]} rows of 'all'")
        if baselines := part(arrays, "baselines"):
            self.measures.load_baselines(baselines)
        self._sums, self._examples = dict(self.measures.repaired(sums)), int(rows[0])
        kept = recent[-self.window :]
        self._held = len(kept)
        self._put(kept)
        return int(rows[1])

    def _put(self, last: Doubles) -> None:
        """Write the last rows of the window."""
        first = (self._examples - len(last)) % self.window
        fits = self.window - first
        self._recent[first : first + len(last)], self._recent[: max(len(last) - fits, 0)] = last[:fits], last[fits:]

    def _places(self, last: int) -> npt.NDArray[np.int64]:
        return (self._examples - last + np.arange(last)) % self.window
