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
from riverdelta.evaluation.measures.known import ROOM, Known, Moments, came, until

#: The parts into which a period is divided; the labels of one part are averaged.
_PARTS = 2048
_Cube, _Table, _Line = types.float64[:, :, ::1], types.float64[:, ::1], types.float64[::1]
_WEIGHT, _LOSS, _ERROR, _ABSOLUTE, _SQUARE, _MEAN, _SPREAD, _CLIPPED = range(8)


@numba.njit(types.int64(_Table, _Line, _Line, _Line, ROOM, types.float64, _Table, _Table), cache=True)
def _guess(labels, event, scored, received, known, period, parts, out):  # type: ignore[no-untyped-def]
    """Fill out[E, (last label, label a period ago)], NaN where none was known when an example was scored; the second only if
    there are `parts`. Return how many labels are learned.

    The rows of `known` are (received, last label of a positive weight); parts[part, (number, Σ label, labels, when the last was
    received)] holds the labels of the last two periods.
    """
    rows, held, learned, kept = known
    latest, knows = rows[held - 1, 1] if held > 0 else math.nan, 0
    for i in range(labels.shape[0]):
        knows = until(rows, held, scored[i], kept, knows)
        learned = max(learned, knows)
        out[i] = math.nan
        if knows > 0:
            out[i, 0] = rows[knows - 1, 1]
        latest = labels[i, 0] if labels[i, 1] > 0.0 else latest
        came(rows, held, received[i])
        rows[held, 1] = latest
        held += 1
        time = event[i] if math.isfinite(event[i]) else scored[i]
        # A number beyond 2^53 parts has no neighbour.
        if parts.shape[0] == 0 or not math.isfinite(time):
            continue
        number = math.floor(time * (_PARTS // 2) / period)
        then = parts[int((number - _PARTS // 2) % _PARTS)]
        if then[0] == number - _PARTS // 2 and then[2] > 0.0 and not then[3] > scored[i]:
            out[i, 1] = then[1] / then[2]
        if labels[i, 1] > 0.0:
            now = parts[int(number % _PARTS)]
            if now[0] != number:
                now[0], now[1], now[2], now[3] = number, 0.0, 0.0, -math.inf
            now[1] += labels[i, 0]
            now[2] += 1.0
            now[3] = max(now[3], received[i]) if math.isfinite(received[i]) else now[3]
    return learned


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
        facts, labels = self.scored(rows)
        facts[:, :2, 1] = self.loss.inverse_link(rows.raw).reshape(rows.raw.shape).mean(axis=2).T
        guesses = np.empty((len(labels), 2))
        known, (event, scored, received, _) = self.known.room(len(labels)), moments
        learned = _guess(labels, event, scored, received, known, self.loss.period or 0.0, self._parts, guesses)
        self.known.add(len(labels), learned)
        for s, guess in enumerate(guesses.T[: len(self.scorers) - 2], 2):
            counted = np.maximum(guess, 0.5) if self.loss.dispersion == "free" else guess
            raw = self.loss.link(np.repeat(counted[:, None], self.loss.outputs, axis=1))
            facts[:, s, 0], facts[:, s, 1] = self.loss.value(raw, labels[:, 0]), guess
        return facts, labels

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
