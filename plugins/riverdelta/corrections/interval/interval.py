"""Interval: what a user declares; Intervals: the ends that are learned, by slice, and their nodes in the graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from onnx import TensorProto

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.checked import share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.losses import Loss
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.corrections import limits
from riverdelta.corrections.interval.conformal import EXPERT, EXPERTS, FIRST, SIDE, learn
from riverdelta.corrections.table import Table

#: The table of the ends, float32[S, 3]: lower, upper, and whether they are known. Row 0 is of all other rows.
ENDS = f"{PREFIX}interval/ends"
#: The ends of a row's interval as served, in the journal.
LOWER, UPPER = f"{PREFIX}lower", f"{PREFIX}upper"
OTHER = "other"
#: An example's weight in `report` halves after this many more examples of its slice.
HALF_LIFE = 5_000
_FADES = 0.5 ** (1.0 / HALF_LIFE)
_BELOW, _ABOVE, _WIDTH = 1, 2, 3


class Interval:
    """A prediction interval beside each prediction of a number, kept at a coverage by the labels as they come.

    Parameters
    ----------
    coverage
        The share of labels that should be within, above 0.5 and below 1 (default 0.9).
    by
        A column of `slices=` whose values get intervals of their own (default: all rows have one). Use it where errors of some
        values are much larger; each value then needs 16 + 2 / (1 - `coverage`) labels before it has an interval.

    >>> Interval(0.9, by="zone")
    Interval(coverage=0.9, by='zone')
    """

    def __init__(self, coverage: float = 0.9, by: str | None = None) -> None:
        if not 0.5 < share("coverage", coverage) < 1.0:
            raise ConfigurationError(f"coverage is {coverage!r}; expected a share above 0.5 and below 1, such as 0.9")
        self.coverage, self.by = float(coverage), by

    def __repr__(self) -> str:
        return f"Interval(coverage={self.coverage!r}, by={self.by!r})"

    @property
    def least(self) -> int:
        """The labels that a slice needs before it has an interval."""
        return FIRST + math.ceil(2.0 / (1.0 - self.coverage) - 1e-9)

    def check(self, loss: Loss, slices: Mapping[str, Any]) -> None:
        """Raise `ConfigurationError` if predictions are not numbers, or `by` is not a column of `slices`."""
        if loss.outputs != 1 or loss.logit or loss.lists:
            raise ConfigurationError(
                f"interval is {self!r}, and {loss} predicts no number; leave it out, or use task='regression' or 'count'"
            )
        if self.by is not None and self.by not in slices:
            raise ConfigurationError(
                f"interval is by {self.by!r}, which slices lacks; declare its values: slices={{{self.by!r}: ['a', 'b']}}"
            )


class Intervals:
    """The two ends of the interval of each slice, relative to the prediction, learned online.

    Parameters
    ----------
    interval
        The coverage that was declared.
    loss
        The loss of the task.
    slices
        The ids of the slices by name; all other rows are `other`.

    Notes
    -----
    An error e is the label less the served prediction, divided by the loss's `deviation` at that prediction. The upper end
    is to be exceeded by (1 - coverage)/2 of all e, the lower end by as many -e. Each end is the sum of two:

    - SAOCP, whose experts are SF-OGD on the pinball loss: s ← s - (D/√3)·g/√Σg², g = miss - 1{e > s}. Example t starts an
      expert at the end of the moment, which lives for 8 times the largest power of two that divides t (at most 2¹⁴); their
      mean is taken by prior i⁻²/(1 + ⌊log₂ i⌋) of their birth i times the wealth of a coin bettor on their gains over it.
      So in every period the pinball loss is nearly that of the best fixed end.
    - SF-OGD on whether the label was beyond the end as it was served. SAOCP alone varies, and normal errors exceed it 1.1 to
      1.5 times as often as declared, more so if labels come late; the coverage of SF-OGD comes to the declared one on any
      sequence. Of n labels that come together and were served by the same tables, each counts 1/√n here, as n equal steps at
      once would overshoot.

    D is 4 times the typical size of e so far (`corrections.limits`): an absurd label moves an end as any that is missed. The
    first 16 errors only set it.

    Source: Bhatnagar, Wang, Xiong, Bai 2023, "Improved online conformal prediction via strongly adaptive online learning",
    arXiv 2302.07869 (algorithms 1 and 2, theorem 4.2).

    Examples
    --------
    >>> from riverdelta.core.losses import Regression
    >>> intervals, rng = Intervals(Interval(0.8), Regression()), np.random.default_rng(0)
    >>> for errors in np.split(rng.normal(size=8_000), 80):
    ...     intervals.measure(errors, *intervals.bounds(np.zeros(100)))
    ...     intervals.learn(errors)
    >>> round(intervals.report()["other"]["coverage"], 2)
    0.8
    """

    def __init__(self, interval: Interval, loss: Loss, slices: Mapping[str, int] = {}) -> None:
        self.interval, self.loss = interval, loss
        self.names, self._ids = (OTHER, *slices), np.array(list(slices.values()), np.int64)
        count = len(self.names)
        self._experts, self._sides = np.zeros((count, 2, EXPERTS), EXPERT), np.zeros((count, 2), SIDE)
        self._window, self._limit = limits.window(count), limits.table(count)
        #: By slice: weight, weight below and above the interval, Σ width.
        self._met, self._labels = np.zeros((count, 4)), np.zeros(count, np.int64)
        self.table = Table(np.zeros((count, 3)))

    def observe(self, examples: Examples, served: Floats | None = None) -> None:
        """Measure the intervals of joined examples as served, then learn their errors.

        `served` are raw outputs that were never logged; their intervals are those of this moment.
        """
        rows, label, weight = examples.measured()
        columns = {name: column[rows] for name, column in examples.columns.items()}
        raw = (examples.served if served is None else served)[rows]
        of, prediction = self._slices(columns, len(label)), self.loss.inverse_link(raw)[:, 0]
        deviation, ends = self.loss.deviation(prediction), None
        if served is not None:
            self.measure(label, *self.bounds(raw, columns), of)
        elif LOWER in columns:
            self.measure(label, columns[LOWER], columns[UPPER], of)
            ends = np.stack([prediction - columns[LOWER], columns[UPPER] - prediction], axis=1) / deviation[:, None]
        error = (np.asarray(label, np.float64) - prediction) / deviation
        counted = np.where((weight > 0) & self.loss.valid(label), error, np.nan)
        self.learn(counted, of, ends, examples.position[rows])

    def learn(
        self,
        error: npt.ArrayLike,
        slices: Ints | None = None,
        served: npt.ArrayLike | None = None,
        position: Ints | None = None,
    ) -> None:
        """Learn errors float64[N] of rows of slices int64[N], in order; one that is not finite is left out.

        `served` float64[N, 2] is how far the interval reached below and above each prediction (default: as far as now), by the
        tables of `position` int64[N] (default: one for all).
        """
        found = np.ascontiguousarray(error, np.float64)
        of = np.zeros(len(found), np.int64) if slices is None else slices
        ends, share = np.full((len(found), 2), np.nan), np.ones(len(found))
        if served is not None and len(found):
            ends = np.ascontiguousarray(served, np.float64)
            # Ends of the same tables may differ by rounding, and by where they are cut.
            tables = np.stack([of, np.zeros_like(of) if position is None else position], axis=1)
            _, at, equal = np.unique(tables, axis=0, return_inverse=True, return_counts=True)
            share = np.where(np.isnan(ends[:, 0]), 1.0, 1.0 / np.sqrt(equal[at.ravel()]))
        np.add.at(self._labels, of[np.isfinite(found)], 1)
        miss = (1.0 - self.interval.coverage) / 2.0
        learn(self._experts, self._sides, self._window, self._limit.values, found, ends, share, of, miss)
        self._write()

    def measure(self, label: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, slices: Ints | None = None) -> None:
        """Count labels float[N] that were within the intervals as served; a row without one is left out."""
        y, a, b = (np.ascontiguousarray(one, np.float64) for one in (label, lower, upper))
        _measure(y, a, b, np.zeros(len(y), np.int64) if slices is None else slices, self._met)

    def bounds(self, raw: npt.ArrayLike, columns: Mapping[str, npt.NDArray[Any]] = {}) -> tuple[Floats, Floats]:
        """Return the lower and upper ends float32[N] around served raw outputs; NaN while a slice has too few labels."""
        prediction = self.loss.inverse_link(raw)[:, 0]
        lower, upper, known = self.table.values[self._slices(columns, len(prediction))].T
        deviation = np.where(known > 0, self.loss.deviation(prediction), np.nan)
        ends = (np.clip(prediction + end * deviation, *self.loss.span) for end in (lower, upper))
        first, last = (np.asarray(end, np.float32) for end in ends)
        return first, last

    def export(self, nodes: Nodes, prediction: str, column: str | None) -> tuple[str, str]:
        """Append the nodes of `bounds` to those of the prediction float32[N, 1] and return its two tensors, float32[N, 1]."""
        with nodes.scope("interval"):
            rows = nodes.table("ends", self.table.values)
            if column is None:
                ends = nodes.add("Slice", rows, *(nodes.constant([n], np.int64) for n in (0, 1)))
            else:
                match = nodes.add("Equal", nodes.column(column), nodes.constant(self._ids[None]))
                place = nodes.add("Mul", nodes.cast(match, TensorProto.INT64), nodes.constant(1 + np.arange(len(self._ids))))
                ends = nodes.add("Gather", rows, nodes.add("ReduceSum", place, nodes.constant([1], np.int64), keepdims=0))
            lower, upper, known = nodes.add_all("Split", 3, ends, nodes.constant([1, 1, 1], np.int64), axis=1)
            missing = nodes.constant(np.nan, np.float32)
            deviation = self.loss.export_deviation(nodes, prediction)
            has = nodes.add("Greater", known, nodes.constant(0.0, np.float32))
            span = [nodes.constant(np.clip(end, *_FINITE), np.float32) for end in self.loss.span]
            found = []
            for end in (lower, upper):
                value = nodes.add("Add", prediction, nodes.add("Mul", end, deviation))
                found.append(nodes.add("Where", has, nodes.add("Clip", value, *span), missing))
            return found[0], found[1]

    def report(self) -> dict[str, dict[str, float | int | None]]:
        """Return for each slice: labels, the recent coverage, the shares below and above, and the mean width."""
        found: dict[str, dict[str, float | int | None]] = {}
        for s, (name, (weight, below, above, width)) in enumerate(zip(self.names, self._met.tolist(), strict=True)):
            found[name] = {
                "labels": int(self._labels[s]),
                "declared": self.interval.coverage,
                "coverage": (weight - below - above) / weight if weight else None,
                "below": below / weight if weight else None,
                "above": above / weight if weight else None,
                "width": width / weight if weight else None,
            }
        return found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; nothing if there is none, as before intervals were declared, or for other slices."""
        if not arrays or not np.array_equal(take(arrays, "ids"), self._ids):
            return
        mine = self._arrays()
        for name, found in {name: take(arrays, name, like) for name, like in mine.items()}.items():
            mine[name][...] = found
        self._write()

    def _slices(self, columns: Mapping[str, npt.NDArray[Any]], rows: int) -> Ints:
        of, by = np.zeros(rows, np.int64), columns.get(self.interval.by or "")
        if by is not None:
            for at, own in enumerate(self._ids.tolist(), 1):
                of[by == own] = at
        return of

    def _write(self) -> None:
        known = self._sides["examples"][:, 0] >= self.interval.least - FIRST
        # The two are learned separately, and may cross for a moment.
        ends = np.sort((self._sides["end"] + self._sides["shift"]) * (-1.0, 1.0), axis=1)
        now = np.where(known[:, None], np.column_stack([ends, np.ones(len(ends))]), 0.0).astype(np.float32)
        self.table.touched[:] |= (now != self.table.values).any(axis=1)
        self.table.values[:] = now

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "ids": self._ids,
            "experts": self._experts.view(np.float64),
            "sides": self._sides.view(np.float64),
            "window": self._window,
            "limit": self._limit.values,
            "met": self._met,
            "labels": self._labels,
        }


_FINITE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
_Line = types.float64[::1]


@numba.njit(types.void(_Line, _Line, _Line, types.int64[::1], types.float64[:, ::1]), cache=True)
def _measure(label, lower, upper, slices, met):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        width = upper[i] - lower[i]
        if not (math.isfinite(width) and math.isfinite(label[i])):
            continue
        mine = met[slices[i]]
        mine *= _FADES
        mine[0] += 1.0
        mine[_BELOW] += 1.0 if label[i] < lower[i] else 0.0
        mine[_ABOVE] += 1.0 if label[i] > upper[i] else 0.0
        mine[_WIDTH] += width
