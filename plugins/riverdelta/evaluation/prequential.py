"""Prequential: how well base and served outputs predicted the labels that came after them (test, then train)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation import binned
from riverdelta.evaluation.binned import bin_of, share
from riverdelta.evaluation.measured import Rows, possible

Report = dict[str, float | int | None]

#: The scorers that are measured, in the order of every array's first axis.
SCORERS = ("base", "served")
_CUBE, _LINE = types.float64[:, :, ::1], types.float64[::1]
_KERNEL = types.int64(
    _CUBE, _LINE, _LINE, types.boolean[::1], types.float64, KERNELS, _CUBE, types.float64[:, ::1], types.float32[:, ::1],
    types.int64,
)  # fmt: skip


@numba.njit(_KERNEL, cache=True)
def _add(raw, label, weight, good, bound, loss, counts, sums, recent, examples):  # type: ignore[no-untyped-def]
    """Add rows to counts[scorer, label, bin] (or [scorer, 0, whether the loss is at its bound]), sums[scorer, 2] and `recent`.

    Returns the new number of examples.
    """
    outputs = raw.shape[2]
    z, prediction, lost, by_label = np.empty((1, outputs)), np.empty((1, outputs)), np.empty(1), counts.shape[1] > 1
    for i in range(label.shape[0]):
        if not good[i]:
            continue
        w, place = weight[i], examples % recent.shape[0]
        recent[place, 2 * outputs], recent[place, 2 * outputs + 1] = label[i], w
        examples += 1
        for s in range(raw.shape[0]):
            for k in range(outputs):
                z[0, k] = recent[place, s * outputs + k] = raw[s, i, k]
            loss.value(z, label[i : i + 1], lost)
            loss.predict(z, prediction)
            sums[s, 0] += w * min(lost[0], bound)
            sums[s, 1] += w * prediction[0, 0]
            if by_label:
                counts[s, int(label[i]), bin_of(z[0, 0])] += w
            else:
                counts[s, 0, int(lost[0] >= bound)] += w
    return examples


class Prequential:
    """The loss of base and served outputs, over all rows and over the last `window`; with two labels also AUC and calibration.

    With raw output z, label y and weight w: loss = Σ w·min(loss, `Loss.bound`) / Σ w, in the loss's unit, and `clipped` is
    Σ w of the rows whose loss exceeds that: all reports of losses count them here. If the loss has two labels, σ(z) being the
    score: calibration_ratio = Σ w·σ(z) / Σ w·y; AUC = P(z of a positive > z of a negative) + P(equal) / 2; accuracy,
    precision, recall and F1 are those of "score >= threshold". Unit weights count rows; a row of weight -1 takes an earlier
    one back.

    "all" keeps 8,192 counts of z / (8 + |z|), so a pair within one bin counts as a tie: `auc_error` bounds the error this
    causes, Σ over bins of positives·negatives / (2·all positives·all negatives). "recent" holds the last `window` rows
    themselves and is exact. Rows are added strictly in order: the state does not depend on how blocks are split, to the last
    bit.

    Parameters
    ----------
    threshold
        Probability from which a score counts as positive (default 0.5), rounded to the edge of a bin (by less than 0.0005; 0.5
        is exact). Set it to the threshold that your application uses. Reports state it.
    window
        Rows in "recent" (default 10,000). A larger window has less noise and shows a change later.
    loss
        The loss of the task.

    References: Dawid 1984 (prequential); Gama, Sebastião, Rodrigues 2013 (windows); Fawcett 2006 (AUC by counting).

    >>> p = Prequential(window=2)
    >>> p.update(np.float32([0, 0, 0]), np.float32([-2, 1, 3]), np.float32([0, 0, 1]))
    >>> r = p.report()
    >>> r["all"]["served"]["auc"], r["all"]["base"]["auc"], r["all"]["served"]["precision"], r["recent"]["served"]["examples"]
    (1.0, 0.5, 0.5, 2)
    """

    def __init__(self, threshold: float = 0.5, window: int = 10_000, loss: Loss = LOG_LOSS) -> None:
        self.threshold, self.window, self.loss = threshold, window, loss
        self._by_label = loss.logit
        self._edge = binned.edge_of(threshold)
        self._counts, self._sums = self._empty()
        #: Both raw outputs, label and weight; row k is at k mod window.
        self._recent = np.zeros((window, 2 * loss.outputs + 2), np.float32)
        self._examples = self._skipped = self._held = 0

    def update(self, base: Floats, served: Floats, label: Floats, weight: Floats | None = None) -> None:
        """Add N rows: raw outputs float32[N, K] as they were when each row was scored, labels, weights (default 1).

        A row with a value that is not finite, or with an invalid label, is left out and counted as skipped.
        """
        rows = Rows.of(self.loss, base, served, label, np.ones(len(label)) if weight is None else weight)
        before, more = self._examples, (self.loss.bound, self.loss.kernels, self._counts, self._sums, self._recent)
        self._examples = _add(*rows, *more, before)
        added = self._examples - before
        self._skipped += len(label) - added
        self._held = min(self._held + added, self.window)

    def report(self) -> dict[str, dict[str, Report]]:
        """Return {"all" | "recent": {"base" | "served": {measure: value}}}; a measure whose divisor is 0 is null.

        Measures: examples, skipped (rows, over all time), loss, clipped; with two labels also threshold,
        calibration_ratio, auc, auc_error, accuracy, precision, recall, f1.
        """
        rows = self._recent[self._places(self._held)]
        counts, sums = self._empty()
        base, served = np.split(rows[:, :-2], 2, axis=1)
        recent = Rows.of(self.loss, base, served, rows[:, -2], rows[:, -1])
        _add(*recent, self.loss.bound, self.loss.kernels, counts, sums, np.empty_like(self._recent), 0)
        ranked = [binned.by_value(z[:, 0], recent.label, recent.weight) for z in (base, served)] if self._by_label else []
        return {
            "all": self._measure(self._examples, self._counts, self._sums, []),
            "recent": self._measure(len(rows), counts, sums, ranked),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {
            "counts": self._counts.copy(),
            "sums": self._sums.copy(),
            "rows": np.array([self._examples, self._skipped], np.int64),
            "recent": self._recent[self._places(self._held)],
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, with any threshold and window; raises `Corrupt` if it does not fit.

        A window that is larger than the saved one fills up with new rows. A sum of losses that is not `possible` is computed
        again from the counts.
        """
        counts, sums = take(arrays, "counts", self._counts).copy(), take(arrays, "sums", self._sums).copy()
        rows, recent = take(arrays, "rows", np.zeros(2, np.int64)), take(arrays, "recent", self._recent, any_rows=True)
        if len(recent) > rows[0]:
            raise Corrupt(f"the saved 'recent' has {len(recent)} rows; expected at most the {rows[0]} rows of 'all'")
        sound = possible(self.loss, sums[:, 0], np.abs(counts).sum((1, 2)) + 1.0)
        if self._by_label and not sound.all():
            middles = np.stack([self.loss.value(binned.middles(), y) for y in (0.0, 1.0)])
            sums[~sound, 0] = (counts * middles).sum((1, 2))[~sound]
        self._counts, self._sums = counts, sums
        self._examples, self._skipped = int(rows[0]), int(rows[1])
        kept = recent[-self.window :]
        self._held = len(kept)
        self._recent[self._places(self._held)] = kept

    def _empty(self) -> tuple[Doubles, Doubles]:
        """Return zeroed counts and sums for `_add`; the sums are of losses and of the first prediction."""
        shape = (2, binned.BINS) if self._by_label else (1, 2)
        return np.zeros((len(SCORERS), *shape)), np.zeros((len(SCORERS), 2))

    def _places(self, last: int) -> npt.NDArray[np.int64]:
        return (self._examples - last + np.arange(last)) % self.window

    def _measure(self, examples: int, counts: Doubles, sums: Doubles, ranked: list[Doubles]) -> dict[str, Report]:
        found: dict[str, Report] = {}
        for s, scorer in enumerate(SCORERS):
            c, (lost, score) = counts[s], sums[s].tolist()
            found[scorer] = {"examples": examples, "skipped": self._skipped, "loss": share(lost, float(c.sum()))}
            if not self._by_label:
                found[scorer]["clipped"] = float(c[0, 1])
                continue
            found[scorer] |= {
                "threshold": binned.threshold_of(self._edge),
                "clipped": binned.beyond(c, self.loss),
                "calibration_ratio": share(score, float(c[1].sum())),
                **binned.auc(ranked[s] if ranked else c, bool(ranked)),
                **binned.quality(c, self._edge),
            }
        return found
