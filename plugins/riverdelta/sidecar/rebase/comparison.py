"""Comparison: what the base, the old stack and the new one lost on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from riverdelta.core.examples import Examples
from riverdelta.core.losses import Loss
from riverdelta.core.records import BEFORE, by_output
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.observers import Observer

_NEW = ("base", "corrected", "served")
_MEASURES = ("log_loss", "auc")


class Comparison(Observer):
    """Prequential measures of raw outputs that were computed before their rows' labels were learned.

    `old_corrected` and `old_served` are as the old home logged them; the others are the new scorer's. A row counts for all of
    them or, where one is not finite, for none.
    """

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._measured: dict[str, Prequential] = {}

    def on_examples(self, position: int, examples: Examples) -> None:
        """Measure joined examples, a row that is taken back too."""
        rows, label, importance = examples.measured()
        outputs = {name: getattr(examples, name) for name in _NEW}
        logged = {f"old_{n}": by_output(examples.columns[column]) for n, column in BEFORE.items() if column in examples.columns}
        measured = {name: raw[rows] for name, raw in (outputs | logged).items()}
        good = np.logical_and.reduce([np.isfinite(raw).all(axis=1) for raw in measured.values()])
        for name, raw in measured.items():
            made = self._measured.setdefault(name, Prequential(window=1, loss=self._loss))
            made.update(measured["base"][good], raw[good], label[good], importance[good])

    def report(self) -> dict[str, Any]:
        """Return examples, and {measure: value} of each scorer; a measure that the loss does not have is left out."""
        reports = {name: each.report()["all"]["served"] for name, each in self._measured.items()}
        measures = {name: {m: report[m] for m in _MEASURES if m in report} for name, report in reports.items()}
        return {"examples": max((report["examples"] or 0 for report in reports.values()), default=0), **measures}
