"""Prequential: how well base and served logits predicted labels that came after them (test, then train)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from river import metrics

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.core.features import Floats
from riverdelta.core.link import log_loss
from riverdelta.core.log_loss import BOUND, bounded, possible

Doubles = npt.NDArray[np.float64]
Report = dict[str, float | int | None]

#: What is judged, in the order of every array's first axis.
SCORERS = ("base", "served")
#: Half the number of bins, and the logit at which half of them are used up: 512 bins a logit at 0, 194 at ±5, 57 at ±16.
HALF, SCALE = 4096, 8.0
_BINS = 2 * HALF
#: Where label 0 loses more than `BOUND`: that is the edge of a bin. Label 1 does in as many bins at the other end.
_BEYOND = HALF + int(HALF * BOUND / (SCALE + BOUND))
_MATRIX: Any = metrics.ConfusionMatrix
_RIVER: dict[str, Any] = {
    "accuracy": metrics.Accuracy,
    "precision": metrics.Precision,
    "recall": metrics.Recall,
    "f1": metrics.F1,
}
_KERNEL = "void(float32[::1], float32[::1], float32[::1], float32[::1], float64[:, :, ::1], float64[:, ::1])"


@numba.njit(inline="always")
def _bin(z):  # type: ignore[no-untyped-def]
    # Floored before it is shifted, so that the smallest negative logit still falls below zero's bin.
    return min(math.floor(z / (SCALE + abs(z)) * HALF) + HALF, _BINS - 1)


@numba.njit(_KERNEL, cache=True)
def _accumulate(base, served, label, weight, counts, sums):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        w = np.float64(weight[i])
        y = np.float64(label[i])
        for s in range(2):
            z = np.float64(base[i] if s == 0 else served[i])
            e = math.exp(-abs(z))
            sums[s, 0] += w * min(math.log1p(e) + (max(z, 0.0) - y * z), BOUND)
            sums[s, 1] += w * ((1.0 if z >= 0.0 else e) / (1.0 + e))
            counts[s, int(y), _bin(z)] += w


class Prequential:
    """Log loss, calibration ratio, AUC, accuracy, precision, recall and F1 of both scorers, over all rows and the last ones.

    With logit z, σ(z) its score, label y and weight w: log loss = Σ w·min(softplus(z) - y·z, `BOUND`) / Σ w in nats;
    calibration ratio = Σ w·σ(z) / Σ w·y; AUC = P(z of a positive > z of a negative) + P(equal) / 2; accuracy, precision, recall
    and F1 are River's, of "score >= threshold". Unit weights count rows; a row of weight -1 takes an earlier one back.

    `clipped` is Σ w of the rows that lost more than `BOUND`: this is where they are counted, for every report of losses.

    "all" keeps 8,192 counts of z / (8 + |z|), so a pair within one bin counts as a tie: `auc_error` is the most by which that
    can move this AUC, Σ over bins of positives·negatives / (2·all positives·all negatives). "recent" is the last `window`
    rows themselves and exact. Rows are added strictly in order: a block split in any way leaves the same bits.

    `threshold` is a probability, rounded to the edge of a bin (by less than 0.0005); 0.5 is exact. Reports state it.

    References: Dawid 1984 (prequential); Gama, Sebastião, Rodrigues 2013 (windows); Fawcett 2006 (AUC by counting).

    >>> p = Prequential(window=2)
    >>> p.update(np.float32([0, 0, 0]), np.float32([-2, 1, 3]), np.float32([0, 0, 1]))
    >>> r = p.report()
    >>> r["all"]["served"]["auc"], r["all"]["base"]["auc"], r["all"]["served"]["precision"], r["recent"]["served"]["examples"]
    (1.0, 0.5, 0.5, 2)
    """

    def __init__(self, threshold: float = 0.5, window: int = 10_000) -> None:
        if not 0.0 < threshold < 1.0:
            raise ConfigurationError(f"threshold is {threshold!r}; expected a probability between 0 and 1, both excluded")
        if window < 1:
            raise ConfigurationError(f"window is {window!r}; expected a number of rows of at least 1")
        self.threshold, self.window = threshold, window
        z = math.log(threshold / (1.0 - threshold))
        self._edge = min(max(round(z / (SCALE + abs(z)) * HALF) + HALF, 1), _BINS - 1)
        self._counts, self._sums = _empty()
        self._recent = np.zeros((window, 4), np.float32)  # base, served, label, weight; row k is at k mod window
        self._examples = self._skipped = self._held = 0

    def update(self, base: Floats, served: Floats, label: Floats, weight: Floats | None = None) -> None:
        """Add N rows: logits float32[N] as they were when each row was scored, labels 0 or 1, weights (default 1).

        A row that is not finite or has another label is counted as skipped and left out, since one would spoil every sum.
        """
        weight = np.ones(len(base), np.float32) if weight is None else weight
        block = [np.ascontiguousarray(a, np.float32) for a in (base, served, label, weight)]
        if any(a.shape != block[0].shape or a.ndim != 1 for a in block):
            shapes = ", ".join(str(list(a.shape)) for a in block)
            raise InvalidInput(f"base, served, label and weight have shapes {shapes}; expected four of one length [N]")
        good = np.isfinite(block[0]) & np.isfinite(block[1]) & np.isfinite(block[3])
        good &= (block[2] == 0) | (block[2] == 1)
        if not good.all():
            self._skipped += int(len(good) - good.sum())
            block = [a[good] for a in block]
        _accumulate(block[0], block[1], block[2], block[3], self._counts, self._sums)
        rows, kept = len(block[0]), min(len(block[0]), self.window)
        self._examples += rows
        self._held = min(self._held + rows, self.window)
        self._recent[self._places(kept)] = np.stack([a[rows - kept :] for a in block], 1)

    def report(self) -> dict[str, dict[str, Report]]:
        """Return {"all" | "recent": {"base" | "served": {measure: value}}}; a measure with nothing to divide by is None.

        Measures: examples, skipped (rows, over all time), threshold, log_loss, clipped, calibration_ratio, auc, auc_error,
        accuracy, precision, recall, f1.
        """
        rows = self._recent[self._places(self._held)]
        counts, sums = _empty()
        base, served, label, weight = (np.ascontiguousarray(column) for column in rows.T)
        _accumulate(base, served, label, weight, counts, sums)
        ranked = [_by_value(rows[:, s], rows[:, 2], rows[:, 3]) for s in range(len(SCORERS))]
        return {
            "all": self._measure(self._examples, self._counts, self._sums, None),
            "recent": self._measure(len(rows), counts, sums, ranked),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a later `load` needs to go on from here, bit for bit."""
        return {
            "counts": self._counts.copy(),
            "sums": self._sums.copy(),
            "rows": np.array([self._examples, self._skipped], np.int64),
            "recent": self._recent[self._places(self._held)],
        }

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `state` returned, of any threshold and window; raises `Corrupt` where it is something else.

        A window that has grown since fills up with new rows. A sum of losses that is not `possible` is made anew from the
        counts.
        """
        rows, recent = arrays.get("rows"), arrays.get("recent")
        for name, mine in (("counts", self._counts), ("sums", self._sums), ("rows", np.zeros(2, np.int64))):
            theirs = arrays.get(name)
            if theirs is None or theirs.shape != mine.shape or theirs.dtype != mine.dtype:
                raise Corrupt(f"the saved measures' {name!r} is {_kind(theirs)}; expected {_kind(mine)}")
        if rows is None or recent is None or recent.ndim != 2 or recent.shape[1] != 4 or len(recent) > rows[0]:
            raise Corrupt(f"the saved measures' 'recent' is {_kind(recent)}; expected float32[R, 4]")
        self._counts[...], self._sums[...] = arrays["counts"], arrays["sums"]
        sound = possible(self._sums[:, 0], np.abs(self._counts).sum((1, 2)) + 1.0)
        if not sound.all():
            self._sums[~sound, 0] = (self._counts * _losses()).sum((1, 2))[~sound]
        self._examples, self._skipped = int(rows[0]), int(rows[1])
        kept = recent[-self.window :]
        self._held = len(kept)
        self._recent[self._places(self._held)] = kept

    def _places(self, last: int) -> npt.NDArray[np.int64]:
        return (self._examples - last + np.arange(last)) % self.window

    def _measure(self, examples: int, counts: Doubles, sums: Doubles, ranked: list[Doubles] | None) -> dict[str, Report]:
        x = (self._edge - HALF) / HALF
        threshold = 1.0 / (1.0 + math.exp(-SCALE * x / (1.0 - abs(x))))
        stated: Report = {"examples": examples, "skipped": self._skipped, "threshold": threshold}
        quality = [_quality(c, total, self._edge) for c, total in zip(counts, sums, strict=True)]
        aucs = [_auc(c, ranked is not None) for c in (counts if ranked is None else ranked)]
        return {scorer: stated | q | a for scorer, q, a in zip(SCORERS, quality, aucs, strict=True)}


def _empty() -> tuple[Doubles, Doubles]:
    """Return counts[scorer, label, bin] and sums[scorer, (log loss, score)]."""
    return np.zeros((len(SCORERS), 2, _BINS)), np.zeros((len(SCORERS), 2))


def _losses() -> npt.NDArray[np.floating]:
    """Return the loss of each label at each bin's middle."""
    x = (np.arange(_BINS) + 0.5 - HALF) / HALF
    return log_loss(bounded(SCALE * x / (1.0 - np.abs(x))), [[0.0], [1.0]])


def _by_value(z: Floats, label: Floats, weight: Floats) -> Doubles:
    """Return counts[label, value] of the distinct logits in rising order: bins in which every pair is a true tie."""
    values, at = np.unique(z, return_inverse=True)
    return np.stack([np.bincount(at, weight * (label == y), len(values)) for y in (0, 1)])


def _auc(counts: Doubles, exact: bool) -> Report:
    negative, positive = counts
    pairs = float(negative.sum()) * float(positive.sum())
    if negative.sum() <= 0 or positive.sum() <= 0:
        return {"auc": None, "auc_error": None}
    # Pairs within a bin count half; where a bin is one value that is the truth and no error.
    ties = float((positive * negative).sum()) / 2.0
    wins = float((positive * (np.cumsum(negative) - negative)).sum())
    return {"auc": (wins + ties) / pairs, "auc_error": 0.0 if exact else ties / pairs}


def _quality(counts: Doubles, sums: Doubles, edge: int) -> Report:
    (tn, fp), (fn, tp) = ((float(c[:edge].sum()), float(c[edge:].sum())) for c in counts)
    matrix = _MATRIX()
    for truth, guess, weight in ((True, True, tp), (True, False, fn), (False, True, fp), (False, False, tn)):
        matrix.update(truth, guess, weight)
    rows = tn + fp + fn + tp
    divisors = {"accuracy": rows, "precision": tp + fp, "recall": tp + fn, "f1": 2.0 * tp + fp + fn}
    return {
        "log_loss": _share(float(sums[0]), rows),
        "clipped": float(counts[0, _BEYOND:].sum() + counts[1, : _BINS - _BEYOND].sum()),
        "calibration_ratio": _share(float(sums[1]), tp + fn),
        **{name: _RIVER[name](matrix).get() if divisors[name] > 0 else None for name in _RIVER},
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _kind(array: npt.NDArray[Any] | None) -> str:
    return "missing" if array is None else f"{array.dtype}{list(array.shape)}"
