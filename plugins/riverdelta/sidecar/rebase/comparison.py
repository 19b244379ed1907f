"""Comparison: the losses of the base, the old stack and the new one on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from riverdelta.core.examples import Examples
from riverdelta.core.losses import Loss
from riverdelta.core.records import BEFORE, BEFORE_AGAIN, by_output
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.observers import Observer

_NEW = ("base", "corrected", "served")
#: What a report has besides measures that compare scorers.
_OTHER = ("examples", "skipped", "clipped", "threshold", "auc_error")


class Comparison(Observer):
    """Prequential measures of the raw outputs of both scorers.

    `old_corrected` and `old_served` are those logged in the old home; the others are the new scorer's. A row is only counted if
    all of them are finite.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._measured: dict[str, Prequential] = {}

    def on_examples(self, position: int, examples: Examples) -> None:
        """Measure joined examples, including rows that are taken back."""
        rows, label, importance = examples.measured()
        outputs = {name: getattr(examples, name) for name in _NEW}
        kept = [*BEFORE.items(), *BEFORE_AGAIN.items()]  # the latter, if any
        logged = {f"old_{n}": by_output(examples.columns[column]) for n, column in kept if column in examples.columns}
        measured = {name: raw[rows] for name, raw in (outputs | logged).items()}
        good = np.logical_and.reduce([np.isfinite(raw).all(axis=1) for raw in measured.values()])
        # A row without a label is skipped, for a loss of lists with its list.
        known = np.where(good, label, np.float32(np.nan))
        for name, raw in measured.items():
            made = self._measured.setdefault(name, Prequential(window=1, loss=self._loss))
            made.update(measured["base"], raw, known, importance, examples.lists(rows).get("group"))

    def report(self) -> dict[str, Any]:
        """Return the number of examples, and {measure: value} for each output; the measures are those of the task."""
        reports = {name: each.report()["all"]["served"] for name, each in self._measured.items()}
        measures = {name: {m: v for m, v in report.items() if m not in _OTHER} for name, report in reports.items()}
        return {"examples": max((report["examples"] or 0 for report in reports.values()), default=0), **measures}
