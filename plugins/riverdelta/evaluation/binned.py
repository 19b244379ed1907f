"""Binned: counts of logits by label, and the measures that follow from them: AUC, precision, recall."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles

Measures = dict[str, float | None]

#: Half the number of bins, and the logit below which half of them are: 512 bins per logit at 0, 194 at ±5, 57 at ±16.
HALF, SCALE = 4096, 8.0
BINS = 2 * HALF


@numba.njit(inline="always")
def bin_of(z):  # type: ignore[no-untyped-def]
    """Return a logit's bin, that of z / (8 + |z|)."""
    # Floored before it is shifted, so that the smallest negative logit still falls below zero's bin.
    return min(math.floor(z / (SCALE + abs(z)) * HALF) + HALF, BINS - 1)


def middles() -> Doubles:
    """Return the logit in the middle of each bin."""
    x = (np.arange(BINS) + 0.5 - HALF) / HALF
    return np.asarray(SCALE * x / (1.0 - np.abs(x)))


def edge_of(threshold: float) -> int:
    """Return the first bin whose scores reach `threshold` (a probability), rounded to the nearest edge of a bin."""
    z = math.log(threshold / (1.0 - threshold))
    return min(max(round(z / (SCALE + abs(z)) * HALF) + HALF, 1), BINS - 1)


def threshold_of(edge: int) -> float:
    """Return the lowest score in a bin.

    >>> threshold_of(edge_of(0.5)), round(threshold_of(edge_of(0.2)), 3)
    (0.5, 0.2)
    """
    x = (edge - HALF) / HALF
    return 1.0 / (1.0 + math.exp(-SCALE * x / (1.0 - abs(x))))


def by_value(z: npt.NDArray[np.floating[Any]], label: npt.ArrayLike, weight: Doubles) -> Doubles:
    """Return counts[label, value] of the distinct logits in ascending order, so that every pair within a bin is a true tie."""
    values, at = np.unique(z, return_inverse=True)
    return np.stack([np.bincount(at, weight * (label == y), len(values)) for y in (0, 1)])


def auc(counts: Doubles, exact: bool) -> Measures:
    """Return the AUC of counts[label, bin] and its largest error due to binning; a pair within a bin counts half."""
    negative, positive = counts
    pairs = float(negative.sum()) * float(positive.sum())
    if negative.sum() <= 0 or positive.sum() <= 0:
        return {"auc": None, "auc_error": None}
    ties = float((positive * negative).sum()) / 2.0
    wins = float((positive * (np.cumsum(negative) - negative)).sum())
    return {"auc": (wins + ties) / pairs, "auc_error": 0.0 if exact else ties / pairs}


def quality(counts: Doubles, edge: int) -> Measures:
    """Return accuracy, precision, recall and F1 of "bin >= edge", or None if the divisor is 0."""
    (tn, fp), (fn, tp) = ((float(c[:edge].sum()), float(c[edge:].sum())) for c in counts)
    return {
        "accuracy": share(tp + tn, tn + fp + fn + tp),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "f1": share(2.0 * tp, 2.0 * tp + fp + fn),
    }


def beyond(counts: Doubles, loss: Loss) -> float:
    """Return the number of rows whose loss exceeds the bound; it is an edge of the bins, the same for both labels."""
    rows = int(HALF * loss.bound / (SCALE + loss.bound))
    return float(counts[0, HALF + rows :].sum() + counts[1, : HALF - rows].sum())


def share(part: float, of: float) -> float | None:
    """Return part / of, or None if the divisor is 0."""
    return part / of if of > 0 else None
