"""Interval: what a user declares; Intervals: the ends that are learned, by slice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.checked import share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Floats, Ints
from riverdelta.corrections import limits
from riverdelta.evaluation.binned import share as ratio
from riverdelta.evaluation.interval.conformal import EXPERT, EXPERTS, FIRST, SIDE, learn

#: An example's weight in `report` halves after this many more examples of its slice.
HALF_LIFE = 5_000
_FADES = 0.5 ** (1.0 / HALF_LIFE)


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


class Intervals:
    """The two ends of the interval of each slice, relative to the prediction, learned online.

    Parameters
    ----------
    interval
        The coverage that was declared.
    slices
        The number of slices, at least 1.

    Notes
    -----
    An error e is the label less the served prediction, divided by the loss's `deviation` at that prediction. The upper end
    is to be exceeded by (1 - coverage)/2 of all e, the lower end by as many -e. Each end is the sum of two:

    - SAOCP, whose experts are SF-OGD on the pinball loss: s ← s - (D/√3)·g/√Σg², g = miss - 1{e > s}. Example t starts an
      expert at the end of the moment, which lives for 8 times the largest power of two that divides t (at most 2¹⁴); their
      mean is taken by prior i⁻²/(1 + ⌊log₂ i⌋) of their birth i times the wealth of a coin bettor on their gains over it.
      So in every period the pinball loss is nearly that of the best fixed end.
    - SF-OGD on what SAOCP leaves. SAOCP alone moves about so much that normal errors exceed it 1.1 to 1.5 times as often as
      declared; the coverage of SF-OGD comes to the declared one on any sequence.

    D is 4 times the typical size of e so far (`corrections.limits`): an absurd label moves an end as any that is missed. The
    first 16 errors only set it.

    Source: Bhatnagar, Wang, Xiong, Bai 2023, "Improved online conformal prediction via strongly adaptive online learning",
    arXiv 2302.07869 (algorithms 1 and 2, theorem 4.2).

    Examples
    --------
    >>> intervals, rng = Intervals(Interval(0.8)), np.random.default_rng(0)
    >>> for errors in np.split(rng.normal(size=8_000), 80):
    ...     intervals.measure(errors, *np.broadcast_to(intervals.ends, (100, 2)).T)
    ...     intervals.update(errors)
    >>> round(intervals.report()[0]["coverage"], 2)
    0.8
    """

    def __init__(self, interval: Interval, slices: int = 1) -> None:
        self.interval = interval
        self._experts = np.zeros((slices, 2, EXPERTS), EXPERT)
        self._sides = np.zeros((slices, 2), SIDE)
        self._window, self._limit = limits.window(slices), limits.table(slices)
        #: By slice: weight, weight below and above the interval, Σ width.
        self._met = np.zeros((slices, 4))
        self._labels = np.zeros(slices, np.int64)

    @property
    def ends(self) -> Floats:
        """The lower and the upper end of each slice, float32[S, 2]; NaN while a slice has too few labels."""
        known = self._sides["examples"] >= self.interval.least - FIRST
        ends = (self._sides["end"] + self._sides["shift"]) * (-1.0, 1.0)
        # The two are learned separately, and may cross for a moment.
        return np.where(known, np.sort(ends, axis=1), np.nan).astype(np.float32)

    def update(self, error: npt.ArrayLike, slices: Ints | None = None) -> None:
        """Learn errors float64[N] of rows of slices int64[N], in order; one that is not finite is left out."""
        found = np.ascontiguousarray(error, np.float64)
        of = np.zeros(len(found), np.int64) if slices is None else slices
        miss = (1.0 - self.interval.coverage) / 2.0
        np.add.at(self._labels, of[np.isfinite(found)], 1)
        learn(self._experts, self._sides, self._window, self._limit.values, found, of, miss)

    def measure(self, label: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, slices: Ints | None = None) -> None:
        """Count labels float[N] that were within the intervals as served; a row without one is left out."""
        y, a, b = (np.asarray(one, np.float64) for one in (label, lower, upper))
        of = np.zeros(len(y), np.int64) if slices is None else slices
        rows = np.stack([np.ones(len(y)), y < a, y > b, b - a], axis=1)
        for at in np.flatnonzero(np.isfinite(rows).all(axis=1) & np.isfinite(y)).tolist():
            self._met[of[at]] = _FADES * self._met[of[at]] + rows[at]

    def report(self) -> list[dict[str, float | int | None]]:
        """Return for each slice: labels, the recent coverage, the shares below and above, and the mean width."""
        found = []
        for s, (weight, below, above, width) in enumerate(self._met.tolist()):
            found.append(
                {
                    "labels": int(self._labels[s]),
                    "coverage": ratio(weight - below - above, weight),
                    "below": ratio(below, weight),
                    "above": ratio(above, weight),
                    "width": ratio(width, weight),
                }
            )
        return found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save, from which `load` continues bit for bit."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned for as many slices; raises `Corrupt` if it does not fit."""
        mine = self._arrays()
        for name, found in {name: take(arrays, name, like) for name, like in mine.items()}.items():
            mine[name][...] = found

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "experts": self._experts.view(np.float64),
            "sides": self._sides.view(np.float64),
            "window": self._window,
            "limit": self._limit.values,
            "met": self._met,
            "labels": self._labels,
        }
