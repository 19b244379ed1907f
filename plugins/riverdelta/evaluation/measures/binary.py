"""Binary: AUC, calibration, accuracy, precision and recall of logits."""

from __future__ import annotations

from collections.abc import Mapping

import numba
import numpy as np
from numba import types

from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation import binned
from riverdelta.evaluation.binned import bin_of, share
from riverdelta.evaluation.measured import Rows, possible
from riverdelta.evaluation.measures.base import LOST, SCORERS, Measures, Report
from riverdelta.evaluation.measures.known import Known, Moments

_Cube, _Table = types.float64[:, :, ::1], types.float64[:, ::1]


@numba.njit(types.void(_Cube, _Table, KERNELS, _Cube, _Table), cache=True)
def _add(facts, labels, loss, counts, sums):  # type: ignore[no-untyped-def]
    """Add examples to counts[scorer, label, bin] and sums[scorer, (loss, prediction)]."""
    raw, prediction = np.empty((facts.shape[0], 1)), np.empty((facts.shape[0], 1))
    for s in range(facts.shape[1]):
        raw[:, 0] = facts[:, s, 1]
        loss.predict(raw, prediction)
        for i in range(facts.shape[0]):
            y, w = labels[i]
            sums[s, 0] += w * facts[i, s, 0]
            sums[s, 1] += w * prediction[i, 0]
            counts[s, int(y), bin_of(raw[i, 0])] += w


class Binary(Measures):
    """The measures of logits z with weights w, σ(z) being the score.

    calibration_ratio = Σ w·σ(z) / Σ w·y; AUC = P(z of a positive > z of a negative) + P(equal) / 2; accuracy, precision, recall
    and F1 are those of "score >= threshold". Over all examples, 8,192 counts of z / (8 + |z|) are kept, so a pair within a bin
    counts as a tie: `auc_error` bounds the error this causes, Σ over bins of positives·negatives / (2·all positives·all
    negatives). Of recent examples AUC is exact.

    Reference: Fawcett 2006 (AUC by counting).
    """

    scorers, width = SCORERS, 2

    def __init__(self, loss: Loss, threshold: float) -> None:
        super().__init__(loss, Known(0))
        self._edge = binned.edge_of(threshold)

    def facts(self, rows: Rows, moments: Moments) -> tuple[Doubles, Doubles]:
        facts, labels = self.scored(rows)
        facts[:, :, 1] = rows.raw[:, :, 0].T
        return facts, labels

    def empty(self) -> dict[str, Doubles]:
        return {"counts": np.zeros((len(SCORERS), 2, binned.BINS)), "sums": np.zeros((len(SCORERS), 2))}

    def add(self, sums: Mapping[str, Doubles], facts: Doubles, labels: Doubles) -> None:
        _add(facts, labels, self.loss.kernels, sums["counts"], sums["sums"])

    def report(self, sums: Mapping[str, Doubles], recent: tuple[Doubles, Doubles] | None = None) -> dict[str, Report]:
        found: dict[str, Report] = {}
        for s, scorer in enumerate(self.scorers):
            counts, (lost, score) = sums["counts"][s], sums["sums"][s].tolist()
            ranked = counts if recent is None else binned.by_value(recent[0][:, s, 1], *recent[1].T)
            found[scorer] = {
                "loss": share(lost, float(counts.sum())),
                "threshold": binned.threshold_of(self._edge),
                "clipped": binned.beyond(counts, self.loss),
                "calibration_ratio": share(score, float(counts[1].sum())),
                **binned.auc(ranked, recent is not None),
                **binned.quality(counts, self._edge),
            }
        return found

    def facts_of(self, saved: Doubles) -> Doubles:
        if saved.shape[1] == len(SCORERS) * self.width + 2:
            return saved
        # Version 0.1 saved the logits of base and served, label and weight.
        z, label = saved[:, : len(SCORERS)], saved[:, -2]
        facts = np.stack([np.stack([self.loss.value(one, label), one], axis=1) for one in z.T], axis=1)
        return np.hstack([facts.reshape(len(saved), len(SCORERS) * self.width), saved[:, -2:]])

    def repaired(self, sums: Mapping[str, Doubles]) -> Mapping[str, Doubles]:
        counts, lost = sums["counts"], sums["sums"][:, LOST]
        wrong = ~possible(self.loss, lost, np.abs(counts).sum((1, 2)) + 1.0)
        if wrong.any():
            middles = np.stack([self.loss.value(binned.middles(), y) for y in (0.0, 1.0)])
            lost[wrong] = (counts * middles).sum((1, 2))[wrong]
        return sums
