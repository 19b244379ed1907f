"""Classes: accuracy, macro F1, recall by class and calibration, beside the last label and the majority."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.evaluation.binned import share
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.measures.base import SCORERS, Measures, Report
from riverdelta.evaluation.measures.known import ROOM, Known, Moments, came, until

#: The classes whose recall is reported: the most frequent ones.
MOST = 50
_BINS = 10
_Cube, _Table = types.float64[:, :, ::1], types.float64[:, ::1]
_Line = types.float64[::1]
#: The last label (-1: none yet), the pairs of labels that were equal, all pairs, the most frequent class.
_LAST, _SAME, _PAIRS, _TOP = range(4)


@numba.njit
def _learn(y, one, counts, last):  # type: ignore[no-untyped-def]
    """Count a label, or with -1 take it back; return by how much the total grows."""
    counts[y] += one
    before, top = int(last[_LAST]), int(last[_TOP])
    if one > 0.0:
        if before >= 0:
            last[_SAME] += y == before
            last[_PAIRS] += 1.0
        last[_LAST] = y
        if counts[y] > counts[top]:
            last[_TOP] = y
    elif y == top:
        last[_TOP] = counts.argmax()
    return one


@numba.njit(
    types.int64(_Table, _Line, _Line, ROOM, _Line, _Line, _Cube),
    cache=True,
)
def _guess(labels, scored, received, known, counts, last, out):  # type: ignore[no-untyped-def]
    """Fill out[E, -2:, (loss, class, its probability)] of last label and majority; return how many labels are learned.

    The rows of `known` are (received, label, sign of its weight, last label of a positive weight).
    """
    rows, held, learned, kept = known
    classes, total, latest, knows = counts.shape[0], counts.sum(), rows[held - 1, 3] if held > 0 else -1.0, 0
    for i in range(labels.shape[0]):
        knows = until(rows, held, scored[i], kept, knows)
        for k in range(learned, knows):
            total += _learn(int(rows[k, 1]), rows[k, 2], counts, last)
        learned = max(learned, knows)
        y, before, top = int(labels[i, 0]), int(rows[knows - 1, 3]) if knows > 0 else -1, int(last[_TOP])
        chance, guess, mine = 1.0 / classes, 1.0 / classes, out[i, out.shape[1] - 2 :]
        if before >= 0:
            guess = (last[_SAME] + 1.0) / (last[_PAIRS] + 2.0)
            others = max(total - counts[before], 0.0) + classes - 1.0
            chance = guess if y == before else (1.0 - guess) * (max(counts[y], 0.0) + 1.0) / others
        mine[0, 0], mine[0, 1], mine[0, 2] = -math.log(chance), before, guess
        likely = (max(counts[y], 0.0) + 1.0) / (max(total, 0.0) + classes)
        most = (max(counts[top], 0.0) + 1.0) / (max(total, 0.0) + classes)
        mine[1, 0], mine[1, 1], mine[1, 2] = -math.log(likely), top if total > 0.0 else -1, most
        latest = labels[i, 0] if labels[i, 1] > 0.0 else latest
        came(rows, held, received[i])
        rows[held, 1], rows[held, 2], rows[held, 3] = labels[i, 0], np.sign(labels[i, 1]), latest
        held += 1
    return learned


@numba.njit(types.void(_Cube, _Table, types.float64, _Table, _Cube, _Cube), cache=True)
def _add(facts, labels, bound, sums, classes, bins):  # type: ignore[no-untyped-def]
    """Add examples to sums[S, (weight, loss, hits, clipped)], classes[S, K, (hits, predicted, labels)] and
    bins[S, bin, (weight, confidence, hits)]."""
    for i in range(facts.shape[0]):
        y, w = int(labels[i, 0]), labels[i, 1]
        for s in range(facts.shape[1]):
            lost, predicted, confidence = facts[i, s]
            hit = w if predicted == y else 0.0
            sums[s, 0] += w
            sums[s, 1] += w * lost
            sums[s, 2] += hit
            sums[s, 3] += w if lost >= bound else 0.0
            classes[s, y, 0] += hit
            classes[s, y, 2] += w
            if predicted >= 0.0:
                classes[s, int(predicted), 1] += w
            at = min(int(confidence * _BINS), _BINS - 1)
            bins[s, at, 0] += w
            bins[s, at, 1] += w * confidence
            bins[s, at, 2] += hit


class Classes(Measures):
    """The measures of one class in K: the predicted class is the one of the largest prediction, the first of equal ones.

    With weights w: accuracy = Σ w·hit / Σ w; recall of a class = Σ w·hit / Σ w over its labels, reported for the 50 classes
    with the most labels, those with more first; macro F1 is the mean of F1 over classes that occurred as a label or a
    prediction; calibration = Σ over 10 bins of the predicted class's probability of |Σ w·probability - Σ w·hit|, divided by
    Σ w.

    Baselines: `last_label` predicts the label before, with the probability (equal pairs + 1) / (pairs + 2), and shares the rest
    among the other classes by their counts + 1; `majority` predicts by (count + 1) / (examples + K).

    Reference: Guo, Pleiss, Sun, Weinberger 2017 (calibration error).
    """

    width = 3

    def __init__(self, loss: Loss, measured: Sequence[str] = SCORERS) -> None:
        super().__init__(loss, Known(3))
        self._measured = len(measured)
        self.scorers = (*measured, "last_label", "majority")
        classes = len(loss.labels or ())
        self._counts, self._last = np.zeros(classes), np.array([-1.0, 0.0, 0.0, 0.0])

    def facts(self, rows: Rows, moments: Moments) -> tuple[Doubles, Doubles]:
        facts, labels = self.scored(rows._replace(raw=rows.raw[: self._measured]))
        if self._measured:
            prediction = self.loss.inverse_link(rows.raw).reshape(rows.raw.shape)
            facts[:, :2, 1], facts[:, :2, 2] = prediction.argmax(axis=2).T, prediction.max(axis=2).T
        known = self.known.room(len(labels))
        learned = _guess(labels, moments.scored, moments.received, known, self._counts, self._last, facts)
        self.known.add(len(labels), learned)
        return facts, labels

    def empty(self) -> dict[str, Doubles]:
        scorers, classes = len(self.scorers), len(self._counts)
        return {
            "sums": np.zeros((scorers, 4)),
            "classes": np.zeros((scorers, classes, 3)),
            "bins": np.zeros((scorers, _BINS, 3)),
        }

    def add(self, sums: Mapping[str, Doubles], facts: Doubles, labels: Doubles) -> None:
        _add(facts, labels, self.loss.bound, sums["sums"], sums["classes"], sums["bins"])

    def report(self, sums: Mapping[str, Doubles], recent: tuple[Doubles, Doubles] | None = None) -> dict[str, Report]:
        return {scorer: self._of(s, sums) for s, scorer in enumerate(self.scorers)}

    def _of(self, s: int, sums: Mapping[str, Doubles]) -> Report:
        weight, lost, hits, clipped = sums["sums"][s].tolist()
        found: Report = {"loss": share(lost, weight), "accuracy": share(hits, weight)}
        if not self._measured:
            return found
        right, predicted, labels = sums["classes"][s].T
        occurred = (predicted + labels) > 0
        scores = 2.0 * right[occurred] / (predicted + labels)[occurred]
        off = float(np.abs(sums["bins"][s, :, 1] - sums["bins"][s, :, 2]).sum())
        frequent = np.argsort(-labels, kind="stable")[:MOST]
        return found | {
            "clipped": clipped,
            "macro_f1": float(scores.mean()) if len(scores) else None,
            "calibration": share(off, weight),
            "recall": {str(self.loss.label_of(k)): share(float(right[k]), float(labels[k])) for k in frequent if labels[k] > 0},
        }

    def history(self) -> dict[str, npt.NDArray[Any]]:
        return {"counts": self._counts, "last": self._last}
