"""Traffic: how much the corrections change the served scores, and the expected loss before labels arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.records import Impressions

QUANTILES = (0.5, 0.9, 0.99, 1.0)
_BASE, _CORRECTED, _SERVED = range(3)


class Traffic:
    """Three statistics of the last `window` served rows; rows that are not finite are left out.

    - Residual: quantiles of |corrected - base raw output|, the largest of a row's K, cut at `Loss.reach` as when served.
    - Top changed: of requests of 2 rows or more, the share whose best row by the served output is not a best row of the base;
      of classes, the share of rows whose served class is not a largest one of the base; otherwise None if K > 1.
    - Expected log loss per row, if labels are 0 or 1, or classes, and drawn from the served probabilities p: for the served
      model itself the mean entropy E[-Σ p_k·ln p_k], and for the base with its q the cross entropy E[-Σ p_k·ln q_k], which is
      never less (Gibbs' inequality). It is only as accurate as p is calibrated. The loss of any label is at most `Loss.bound`.
      None for other labels.

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
        #: What is held of a row: its raw outputs by base, corrected and served, or for classes, of which there can be many, the
        #: residual, whether the top changed, and the expected losses of base and served.
        self._width = 4 if loss.classes else 3 * loss.outputs
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
        raw = [self.loss.rows(one)[held] for one in (base, corrected, served)]
        self._raw[at] = self._of_classes(*raw) if self.loss.classes else np.concatenate(raw, axis=1)
        self._first[at] = first[held]
        self._next = (self._next + len(number)) % self.window
        self._held = min(self._held + len(number), self.window)

    def report(self) -> dict[str, Any]:
        """Return rows, residual {quantile: size}, top_changed and expected_loss {scorer: loss}; None if no row counts."""
        order = (self._next - self._held + np.arange(self._held)) % self.window
        raw, first = self._raw[order], self._first[order]
        finite = np.logical_and.reduce(np.isfinite(raw), axis=1)
        counted = raw[finite].astype(np.float64)
        top: float | None
        expected: list[float | None]
        if self.loss.classes:
            sizes = counted[:, 0]
            top, *expected = counted[:, 1:].mean(axis=0).tolist() if len(counted) else [None] * 3
        else:
            base, corrected, served = np.split(counted, 3, axis=1)
            sizes = np.minimum(np.abs(corrected - base).max(axis=1), self.loss.reach)
            top = _top_changed(raw[:, 0], raw[:, -1], first, finite) if self.loss.outputs == 1 else None
            expected = [self._expected(base, served), self._expected(served, served)]
        residual = np.quantile(sizes, QUANTILES).tolist() if len(sizes) else [None] * len(QUANTILES)
        return {
            "rows": len(counted),
            "residual": dict(zip((f"{q:g}" for q in QUANTILES), residual, strict=True)),
            "top_changed": top,
            "expected_loss": dict(zip(("base", "served"), expected, strict=True)),
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
        self._raw = np.zeros((self.window, self._width), np.float32)
        self._first = np.zeros(self.window, np.bool_)
        self._next = self._held = 0

    def _of_classes(self, base: Doubles, corrected: Doubles, served: Doubles) -> Doubles:
        """Return what is held of N rows of classes, float64[N, 4]; NaN for rows that are not finite."""
        rows, p = np.arange(len(base)), self.loss.inverse_link(served)
        least = np.exp(-self.loss.bound)
        with np.errstate(invalid="ignore"):
            lost = [-(p * np.log(np.maximum(q, least))).sum(axis=1) for q in (self.loss.inverse_link(base), p)]
            size = np.minimum(np.abs(corrected - base).max(axis=1), self.loss.reach)
            changed = base[rows, served.argmax(axis=1)] < base.max(axis=1)
        found = np.stack([size, changed, *lost], axis=1)
        found[~np.isfinite(np.concatenate([base, corrected, served], axis=1)).all(axis=1)] = np.nan
        return found

    def _expected(self, raw: Doubles, served: Doubles) -> float | None:
        if not len(raw) or not self.loss.logit:
            return None
        p = self.loss.inverse_link(served)[:, 0]
        return float(np.mean((1.0 - p) * self.loss.value(raw, 0.0) + p * self.loss.value(raw, 1.0)))


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
