"""Traffic: how much the corrections change what is served, and the loss to expect before any label is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.errors import Corrupt
from riverdelta.core.link import RESIDUAL_BOUND, log_loss, sigmoid
from riverdelta.core.log_loss import bounded
from riverdelta.core.records import Impressions

QUANTILES = (0.5, 0.9, 0.99, 1.0)
_BASE, _CORRECTED, _SERVED = range(3)


def _read_only(dtype: Any) -> Any:
    """As a decoded record's arrays are; others pass as such."""
    return types.Array(dtype, 1, "C", readonly=True)


_INTS, _INDEX, _FLOATS = map(_read_only, (types.int64, types.int32, types.float32))
_KERNEL = types.int64(_INTS, _INDEX, _FLOATS, _FLOATS, _FLOATS, types.float32[:, ::1], types.boolean[::1], types.int64)


@numba.njit(_KERNEL, cache=True)
def _add(request, index, base, corrected, served, logits, first, at):  # type: ignore[no-untyped-def]
    for i in range(request.shape[0]):
        logits[at, _BASE], logits[at, _CORRECTED], logits[at, _SERVED] = base[i], corrected[i], served[i]
        first[at] = index[i] == 0 or (i > 0 and request[i] != request[i - 1])
        at = at + 1 if at + 1 < logits.shape[0] else 0
    return at


class Traffic:
    """Three figures of the last `window` rows that were served; rows that are not finite are left out.

    - Residual: quantiles of |corrected logit - base logit|, of which the gate lets through at most `RESIDUAL_BOUND`.
    - Top changed: of requests of 2 rows or more, the share whose best row by the served logit is not a best row of the base.
    - Expected log loss, in nats a row, where labels are drawn from the served probability p: for the served model itself
      E[H(p)] = E[-p·ln p - (1 - p)·ln(1 - p)], and for the base with its q, E[-p·ln q - (1 - p)·ln(1 - q)], which is never
      less (Gibbs' inequality). It is as true as p is calibrated; the calibration ratio says whether it is. Either loss is at
      most `log_loss.BOUND`.

    References: confidence-based performance estimation, Kivimäki et al. 2024, arXiv 2407.08649.

    >>> traffic, f = Traffic(), np.float32
    >>> traffic.update(np.zeros(3, int), np.arange(3), f([0, 1, 2]), f([0, 3, 2]), f([0, 3, 2]))
    >>> report = traffic.report()
    >>> report["residual"]["1"], report["top_changed"], round(report["expected_log_loss"]["served"], 4)
    (2.0, 1.0, 0.4164)
    """

    def __init__(self, window: int = 10_000) -> None:
        self.window = window
        self._logits = np.zeros((window, 3), np.float32)
        self._first = np.zeros(window, np.bool_)
        #: Where the next row goes, and how many rows are held.
        self._next = self._held = 0

    def saw(self, impressions: Impressions) -> None:
        """Take a record of impressions."""
        i = impressions
        self.update(i.request, i.index, i.base[:, 0], i.corrected[:, 0], i.served[:, 0])

    def update(
        self, request: npt.ArrayLike, index: npt.ArrayLike, base: npt.ArrayLike, corrected: npt.ArrayLike, served: npt.ArrayLike
    ) -> None:
        """Take N rows: their request's number and their place in it, int[N], and the three logits, float32[N]."""
        number, place = np.ascontiguousarray(request, np.int64), np.ascontiguousarray(index, np.int32)
        b, c, s = (np.ascontiguousarray(a, np.float32) for a in (base, corrected, served))
        self._next = _add(number, place, b, c, s, self._logits, self._first, self._next)
        self._held = min(self._held + len(number), self.window)

    def report(self) -> dict[str, Any]:
        """Return rows, residual {quantile: logits}, top_changed, expected_log_loss {scorer: nats}; None without rows for it."""
        order = (self._next - self._held + np.arange(self._held)) % self.window
        logits, first = self._logits[order], self._first[order]
        finite = np.logical_and.reduce(np.isfinite(logits), axis=1)
        whole = logits[finite].astype(np.float64)
        return {
            "rows": len(whole),
            "residual": _residual(whole),
            "top_changed": _top_changed(logits, first, finite),
            "expected_log_loss": _expected(whole),
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        counts = np.array([self._next, self._held], np.int64)
        return {"logits": self._logits.copy(), "first": self._first.view(np.uint8).copy(), "counts": counts}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else."""
        fresh = self.state()
        if arrays and {n: (a.shape, a.dtype) for n, a in arrays.items()} != {n: (a.shape, a.dtype) for n, a in fresh.items()}:
            raise Corrupt(f"the saved traffic is not that of a window of {self.window} rows")
        given = arrays or {name: np.zeros_like(a) for name, a in fresh.items()}
        self._next, self._held = (int(n) % (self.window + 1) for n in given["counts"])
        self._logits[...], self._first[...] = given["logits"], given["first"] != 0


def _residual(logits: npt.NDArray[np.float64]) -> dict[str, float | None]:
    names = [f"{q:g}" for q in QUANTILES]
    if not len(logits):
        return dict.fromkeys(names)
    sizes = np.minimum(np.abs(logits[:, _CORRECTED] - logits[:, _BASE]), RESIDUAL_BOUND)
    found = np.quantile(sizes, QUANTILES)
    return dict(zip(names, found.tolist(), strict=True))


def _top_changed(logits: npt.NDArray[np.float32], first: npt.NDArray[np.bool_], finite: npt.NDArray[np.bool_]) -> float | None:
    starts = np.flatnonzero(first)
    if not len(starts):
        return None
    # The rows of a request whose first row has left the window are no request.
    logits, finite, starts = logits[starts[0] :], finite[starts[0] :], starts - starts[0]
    sizes = np.diff(starts, append=len(logits))
    counted = (sizes > 1) & np.logical_and.reduceat(finite, starts)
    best = [np.repeat(np.maximum.reduceat(logits[:, s], starts), sizes) == logits[:, s] for s in (_BASE, _SERVED)]
    kept = np.logical_or.reduceat(best[0] & best[1], starts)
    return float((counted & ~kept).sum() / counted.sum()) if counted.any() else None


def _expected(logits: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """E[softplus(z) - p·z] is the cross-entropy of p and σ(z)."""
    if not len(logits):
        return {"base": None, "served": None}
    base, served = bounded(logits[:, _BASE]), bounded(logits[:, _SERVED])
    p = sigmoid(served)
    return {name: float(log_loss(z, p).mean()) for name, z in (("base", base), ("served", served))}
