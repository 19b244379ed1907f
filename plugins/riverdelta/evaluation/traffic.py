"""Traffic: how much the corrections change the served scores, and the expected loss before labels arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.features import Floats
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.records import Impressions

QUANTILES = (0.5, 0.9, 0.99, 1.0)
_BASE, _CORRECTED, _SERVED = range(3)


class Traffic:
    """Three statistics of the last `window` served rows; rows that are not finite are left out.

    - Residual: quantiles of |corrected - base raw output|, the largest of a row's K, cut at `Loss.reach` as when served.
    - Top changed: of requests of 2 rows or more, the share whose best row by the served output is not a best row of the base;
      for classes, of rows, the share whose best class by the served output is not a best class of the base.
    - Expected log loss per row, if its label is drawn from the served probabilities p of the labels: for the served model
      itself the mean of Σ -p·ln p, and for the base with its q that of Σ -p·ln q, which is never less (Gibbs' inequality). It
      is only as accurate as p is calibrated. The loss of a label is at most `Loss.bound`. None for numbers and lists.

    Parameters
    ----------
    window
        Rows that count (default 10,000). A larger window has less noise and shows a change later.
    loss
        The loss of the task.

    References: confidence-based performance estimation, Kivimäki et al. 2024, arXiv 2407.08649.

    >>> traffic, f = Traffic(), np.float32
    >>> traffic.update(np.zeros(3, int), np.arange(3), f([0, 1, 2]), f([0, 3, 2]), f([0, 3, 2]))
    >>> report = traffic.report()
    >>> report["residual"]["1"], report["top_changed"], round(report["expected_loss"]["served"], 4)
    (2.0, 1.0, 0.4164)
    """

    def __init__(self, window: int = 10_000, loss: Loss = LOG_LOSS) -> None:
        self.window, self.loss = window, loss
        #: The place of the next row, and the number of rows held.
        self._next = self._held = 0
        self._begin()

    def observe(self, impressions: Impressions) -> None:
        """Observe a record of impressions."""
        i = impressions
        self.update(i.request, i.index, i.base, i.corrected, i.served)

    def update(
        self, request: npt.ArrayLike, index: npt.ArrayLike, base: npt.ArrayLike, corrected: npt.ArrayLike, served: npt.ArrayLike
    ) -> None:
        """Add N rows: request number and index within the request, int[N], and the three raw outputs, float32[N, K]."""
        number = np.asarray(request)
        first = np.asarray(index) == 0
        first[1:] |= number[1:] != number[:-1]
        held = slice(max(len(number) - self.window, 0), None)
        at = (self._next + np.arange(len(number))[held]) % self.window
        self._raw[at] = np.concatenate([self.loss.rows(one)[held] for one in (base, corrected, served)], axis=1)
        self._first[at] = first[held]
        self._next = (self._next + len(number)) % self.window
        self._held = min(self._held + len(number), self.window)

    def report(self) -> dict[str, Any]:
        """Return rows, residual {quantile: size}, top_changed and expected_loss {scorer: loss}; None if no row counts."""
        order = (self._next - self._held + np.arange(self._held)) % self.window
        raw, first = self._raw[order], self._first[order]
        finite = np.logical_and.reduce(np.isfinite(raw), axis=1)
        base, corrected, served = np.split(raw[finite].astype(np.float64), 3, axis=1)
        sizes = np.minimum(np.abs(corrected - base).max(axis=1), self.loss.reach)
        residual = np.quantile(sizes, QUANTILES).tolist() if len(sizes) else [None] * len(QUANTILES)
        return {
            "rows": len(base),
            "residual": dict(zip((f"{q:g}" for q in QUANTILES), residual, strict=True)),
            "top_changed": self._top_changed(raw, first, finite),
            "expected_loss": {"base": self._expected(base, served), "served": self._expected(served, served)},
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save."""
        counts = np.array([self._next, self._held], np.int64)
        return {"logits": self._raw.copy(), "first": self._first.view(np.uint8).copy(), "counts": counts}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over if nothing was saved; raises `Corrupt` if it does not fit."""
        if not arrays:
            self._begin()
            return
        raw, first, counts = (take(arrays, name, mine) for name, mine in self.state().items())
        self._raw[...], self._first[...] = raw, first != 0
        self._next, self._held = (int(n) % (self.window + 1) for n in counts)

    def _begin(self) -> None:
        self._raw = np.zeros((self.window, 3 * self.loss.outputs), np.float32)
        self._first = np.zeros(self.window, np.bool_)
        self._next = self._held = 0

    def _top_changed(self, raw: Floats, first: npt.NDArray[np.bool_], finite: npt.NDArray[np.bool_]) -> float | None:
        if self.loss.classes:
            base, _, served = np.split(raw[finite], 3, axis=1)
            return _class_changed(base, served)
        return _top_changed(raw[:, 0], raw[:, -1], first, finite) if self.loss.outputs == 1 else None

    def _expected(self, raw: Doubles, served: Doubles) -> float | None:
        if not len(raw) or not (self.loss.logit or self.loss.classes):
            return None
        p = self.loss.inverse_link(served)
        chances = np.concatenate([1.0 - p, p], axis=1) if self.loss.logit else p
        losses = (self.loss.value(raw, np.full(len(raw), float(label))) for label in range(chances.shape[1]))
        return float(np.mean(sum(chance * lost for chance, lost in zip(chances.T, losses, strict=True))))


def _class_changed(base: Floats, served: Floats) -> float | None:
    best = [raw == raw.max(axis=1, keepdims=True) for raw in (base, served)]
    return float((~np.logical_and(*best).any(axis=1)).mean()) if len(base) else None


def _top_changed(
    base: npt.NDArray[np.float32], served: npt.NDArray[np.float32], first: npt.NDArray[np.bool_], finite: npt.NDArray[np.bool_]
) -> float | None:
    starts = np.flatnonzero(first)
    if not len(starts):
        return None
    # A request whose first row has left the window does not count.
    base, served, finite, starts = base[starts[0] :], served[starts[0] :], finite[starts[0] :], starts - starts[0]
    sizes = np.diff(starts, append=len(base))
    counted = (sizes > 1) & np.logical_and.reduceat(finite, starts)
    best = [np.repeat(np.maximum.reduceat(z, starts), sizes) == z for z in (base, served)]
    kept = np.logical_or.reduceat(best[0] & best[1], starts)
    return float((counted & ~kept).sum() / counted.sum()) if counted.any() else None
