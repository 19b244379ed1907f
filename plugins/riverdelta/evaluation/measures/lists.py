"""Lists: NDCG@10 and MRR of ranked lists, beside popularity."""

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

#: The places of a list that count, and the cells in which clicks and showings of items are counted.
PLACES, _CELLS = 10, 65_536
_Table, _Line, _Ints = types.float64[:, ::1], types.float64[::1], types.int64[::1]


@numba.njit
def _ranked(score, label, weight, out):  # type: ignore[no-untyped-def]
    """Fill out[(NDCG@10, reciprocal rank)] of one list, ordered by score and by place where scores are equal."""
    order, gain = np.argsort(-score, kind="mergesort"), np.empty(label.shape[0])
    for i in range(label.shape[0]):
        gain[i] = (2.0 ** label[i] - 1.0) * weight[i]
    best = np.sort(gain)[::-1]
    found, most, first = 0.0, 0.0, 0.0
    for place in range(label.shape[0]):
        if place < PLACES:
            discount = 1.0 / math.log2(place + 2.0)
            found += gain[order[place]] * discount
            most += best[place] * discount
        if first == 0.0 and label[order[place]] > 0.0:
            first = 1.0 / (place + 1.0)
    out[0], out[1] = found / most if most > 0.0 else math.nan, first


@numba.njit(types.void(_Line, _Line, _Line, _Ints, types.float64[:, ::1]), cache=True)
def _rank(score, label, weight, starts, out):  # type: ignore[no-untyped-def]
    for n in range(starts.shape[0] - 1):
        a, b = starts[n], starts[n + 1]
        _ranked(score[a:b], label[a:b], weight[a:b], out[n])


@numba.njit(types.void(_Table, types.int64, _Ints, _Ints, _Line, _Table, _Line), cache=True)
def _popular(known, learned, until, starts, item, cells, out):  # type: ignore[no-untyped-def]
    """Fill out[N] with the log share of showings at which an item was clicked.

    List n knows until[n] of the rows known[(received, cell of its item, clicks)].
    """
    for n in range(starts.shape[0] - 1):
        for k in range(learned, until[n]):
            mine = cells[int(known[k, 1])]
            mine[0] += known[k, 2]
            mine[1] += 1.0
        learned = max(learned, until[n])
        for i in range(starts[n], starts[n + 1]):
            mine = cells[int(item[i])]
            out[i] = math.log((mine[0] + 1.0) / (mine[1] + 10.0))


@numba.njit(types.void(types.float64[:, :, ::1], _Table, _Table), cache=True)
def _add(facts, labels, sums):  # type: ignore[no-untyped-def]
    """Add lists to sums[S, (lists, loss, NDCG, reciprocal rank)]; a list of weight -1 is taken back."""
    for i in range(facts.shape[0]):
        w = labels[i, 1]
        for s in range(facts.shape[1]):
            if math.isnan(facts[i, s, 0]):
                continue
            sums[s, 0] += w
            for f in range(3):
                sums[s, 1 + f] += w * facts[i, s, f]


class Lists(Measures):
    """The measures of lists with at least one label above 0; each list counts once.

    loss = the list log loss with the rows' weights; ndcg10 = DCG@10 over that of the best order, with gains (2^y - 1)·w, where
    w = weight / propensity; mrr = the mean of 1 / place of the first row with y > 0. The order of the base is `base` itself.

    Baseline: `popularity`, if the loss names an `item` column, orders by (clicks + 1) / (showings + 10) of the item so far,
    in lists with and without clicks.

    References: Järvelin and Kekäläinen 2002 (DCG); Joachims, Swaminathan, Schnabel 2017 (weights by propensity).
    """

    width = 3

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss, Known(2))
        self.scorers = (*SCORERS, *(["popularity"] if loss.item else []))
        self._cells = np.zeros((_CELLS if loss.item else 0, 2))

    def facts(self, rows: Rows, moments: Moments) -> tuple[Doubles, Doubles]:
        good = rows.good
        raw, label, weight = rows.raw[:, good, 0], rows.label[good], rows.weight[good]
        if len(label) == 0:
            return np.empty((0, len(self.scorers), self.width)), np.empty((0, 2))
        group = None if rows.group is None else rows.group[good]
        starts = self.loss.starts(len(label), group, each=True)
        # The rows of a list that is taken back have negative weights.
        sign = np.where(np.add.reduceat(weight, starts[:-1]) < 0, -1.0, 1.0)
        own = weight * np.repeat(sign, np.diff(starts))
        scores = [np.ascontiguousarray(each) for each in raw]
        shown = moments.at(good)
        if len(self.scorers) > len(SCORERS) and shown.item is not None:
            cell = (shown.item % _CELLS).astype(np.float64)
            known, until, learned = self.known.add(shown, np.stack([cell, label * np.maximum(weight, 0.0)], axis=1), starts)
            scores.append(np.empty(len(label)))
            _popular(known, learned, until, starts, cell, self._cells, scores[-1])
        out = np.full((len(starts) - 1, len(self.scorers), self.width), np.nan)
        for s, score in enumerate(scores):
            out[:, s, 0] = np.add.reduceat(self.loss.value(score, label, group) * own, starts[:-1])
            ranks = np.empty((len(starts) - 1, 2))
            _rank(score, label, own, starts, ranks)
            out[:, s, 1:] = ranks
        clicks = np.add.reduceat(label * own, starts[:-1])
        return out[clicks > 0], np.stack([clicks, sign], axis=1)[clicks > 0]

    def empty(self) -> dict[str, Doubles]:
        return {"sums": np.zeros((len(self.scorers), 4))}

    def add(self, sums: Mapping[str, Doubles], facts: Doubles, labels: Doubles) -> None:
        _add(facts, labels, sums["sums"])

    def report(self, sums: Mapping[str, Doubles], recent: tuple[Doubles, Doubles] | None = None) -> dict[str, Report]:
        return {
            scorer: {"lists": int(lists), "loss": share(lost, lists), "ndcg10": share(gain, lists), "mrr": share(first, lists)}
            for scorer, (lists, lost, gain, first) in zip(self.scorers, sums["sums"].tolist(), strict=True)
        }

    def history(self) -> dict[str, npt.NDArray[Any]]:
        return {"cells": self._cells}
