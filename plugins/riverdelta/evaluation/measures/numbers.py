"""Numbers: MAE, RMSE, R² and bias, beside the last label and the label a period ago."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from riverdelta.evaluation.measures.known import Known, Moments

#: The parts into which a period is divided; the labels of one part are averaged.
_PARTS = 2048
_Cube, _Table, _Line = types.float64[:, :, ::1], types.float64[:, ::1], types.float64[::1]
_WEIGHT, _LOSS, _ERROR, _ABSOLUTE, _SQUARE, _MEAN, _SPREAD, _CLIPPED = range(8)


@numba.njit(types.void(_Table, _Table, types.float64, _Table, _Line), cache=True)
def _guess(labels, times, period, parts, out):  # type: ignore[no-untyped-def]
    """Fill out[E] with the label a period ago, NaN where none was known when an example was scored.

    times[E, (time, scored, received)]; parts[part, (number, Σ label, labels, when the last was received)] holds the labels of
    the last two periods.
    """
    for i in range(labels.shape[0]):
        out[i] = math.nan
        time, scored, received = times[i]
        # A number beyond 2^53 parts has no neighbour.
        if not math.isfinite(time):
            continue
        number = math.floor(time * (_PARTS // 2) / period)
        then = parts[int((number - _PARTS // 2) % _PARTS)]
        if then[0] == number - _PARTS // 2 and then[2] > 0.0 and not then[3] > scored:
            out[i] = then[1] / then[2]
        if labels[i, 1] > 0.0:
            now = parts[int(number % _PARTS)]
            if now[0] != number:
                now[0], now[1], now[2], now[3] = number, 0.0, 0.0, -math.inf
            now[1] += labels[i, 0]
            now[2] += 1.0
            now[3] = max(now[3], received) if math.isfinite(received) else now[3]


@numba.njit(types.void(_Cube, _Table, types.float64, _Table), cache=True)
def _add(facts, labels, bound, sums):  # type: ignore[no-untyped-def]
    """Add examples to sums[S, 8]."""
    for i in range(facts.shape[0]):
        y, w = labels[i]
        for s in range(facts.shape[1]):
            lost, prediction = facts[i, s]
            if math.isnan(lost):
                continue
            error, mine = prediction - y, sums[s]
            mine[_WEIGHT] += w
            mine[_LOSS] += w * lost
            mine[_ERROR] += w * error
            mine[_ABSOLUTE] += w * abs(error)
            mine[_SQUARE] += w * error * error
            mine[_CLIPPED] += w if lost >= bound else 0.0
            if mine[_WEIGHT] > 0.0:
                off = y - mine[_MEAN]
                mine[_MEAN] += w / mine[_WEIGHT] * off
                mine[_SPREAD] += w * off * (y - mine[_MEAN])


class Numbers(Measures):
    """The measures of predictions p of numbers y, with weights w, in the label's unit.

    bias = Σ w·(p - y) / Σ w; mae and rmse are the mean |p - y| and the root of the mean (p - y)²; r2 = 1 - Σ w·(p - y)² /
    Σ w·(y - mean of y)²; for a loss whose `dispersion` is "free", deviance = 2·loss.

    Baselines: `last_label` predicts the last label that was known, and `last_period`, if the loss has a `period`, the mean
    label of the same 1,024th of the period before. In a loss of a positive rate they count as at least ½.

    Reference: Welford 1962 (the sum of squares about the mean).
    """

    width = 2

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss, Known(1))
        self.scorers = (*SCORERS, "last_label", *(["last_period"] if loss.period else []))
        self._parts = np.zeros((_PARTS if loss.period else 0, 4))
        self._parts[:, 0] = np.nan

    def facts(self, rows: Rows, moments: Moments) -> tuple[Doubles, Doubles]:
        labels = np.stack([rows.label, rows.weight], axis=1)[rows.good]
        out = np.empty((len(labels), len(self.scorers), self.width))
        for s, (raw, lost) in enumerate(zip(rows.raw[:, rows.good], self.losses(rows), strict=True)):
            out[:, s] = np.stack([lost, self.loss.inverse_link(raw).mean(axis=1)], axis=1)
        mine, guesses = moments.at(rows.good), [self._last(labels, moments.at(rows.good))]
        if self.loss.period:
            guesses.append(np.empty(len(labels)))
            times = np.stack([mine.time, mine.scored, mine.received], axis=1)
            _guess(labels, times, self.loss.period, self._parts, guesses[1])
        for s, guess in enumerate(guesses, 2):
            counted = np.maximum(guess, 0.5) if self.loss.dispersion == "free" else guess
            raw = self.loss.link(np.repeat(counted[:, None], self.loss.outputs, axis=1))
            out[:, s] = np.stack([self.loss.value(raw, labels[:, 0]), guess], axis=1)
        return out, labels

    def _last(self, labels: Doubles, moments: Moments) -> Doubles:
        """Return the last label of a positive weight that each example knows, NaN without one."""
        at = np.maximum.accumulate(np.where(labels[:, 1] > 0, np.arange(1, len(labels) + 1), 0))
        before = self.known.rows[-1, 1] if len(self.known.rows) else np.nan
        known, until, _ = self.known.add(moments, np.append(before, labels[:, 0])[at][:, None])
        return np.where(until > 0, known[until - 1, 1], np.nan) if len(labels) else np.empty(0)

    def empty(self) -> dict[str, Doubles]:
        return {"sums": np.zeros((len(self.scorers), 8))}

    def add(self, sums: Mapping[str, Doubles], facts: Doubles, labels: Doubles) -> None:
        _add(facts, labels, self.loss.bound, sums["sums"])

    def report(self, sums: Mapping[str, Doubles], recent: tuple[Doubles, Doubles] | None = None) -> dict[str, Report]:
        found: dict[str, Report] = {}
        for scorer, (weight, lost, error, absolute, square, _, spread, clipped) in zip(
            self.scorers, sums["sums"].tolist(), strict=True
        ):
            mean = share(square, weight)
            unexplained = share(square, spread)
            found[scorer] = {
                "loss": share(lost, weight),
                "clipped": clipped,
                "mae": share(absolute, weight),
                "rmse": None if mean is None else math.sqrt(max(mean, 0.0)),
                "r2": None if unexplained is None else 1.0 - unexplained,
                "bias": share(error, weight) if weight > 0 else None,
            }
            if self.loss.dispersion == "free":
                found[scorer]["deviance"] = share(2.0 * lost, weight)
        return found

    def history(self) -> dict[str, npt.NDArray[Any]]:
        return {"parts": self._parts}
