"""Feedback: its record, and the checks of what an item may have: a weight, the time of its event, how its row was examined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats
from riverdelta.core.keys import MOST_ROWS

#: The largest weight of a label; the gate's rate may fall to its reciprocal.
MOST_WEIGHT = 100.0
#: The earliest time of an event, the year 2000, and how far ahead of the clock it may be, both in seconds.
EARLIEST, AHEAD_SECONDS = 946_684_800.0, 3_600.0
_UNITS = ((1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds"))
_OF_LABELS = ' and no label; only a label has one: leave it out of the item, or send it with the "label"'


#: The optional arrays of feedback, and the value of an item without them.
_NOTHING: Mapping[str, float] = {"weight": 1, "event": np.nan, "propensity": np.nan, "place": -1, "complete": False}


@dataclass(frozen=True)
class Feedback:
    """M feedback items in the order in which they were accepted; a NaN label means that the row was only shown.

    `late` marks a label that came after its row had become a negative; `time` is when it was received (Unix seconds); `source`
    is a hash that identifies the sender, 0 if unknown. `weight` are the senders' weights, None if all are 1, and `event` the
    times of the labelled events (Unix seconds, NaN: unknown), None if all are unknown.

    Of a row of a list, `propensity` is the probability with which it was examined (NaN: not given) and `place` its position, 0
    for the first (-1: not given); `complete` says that the row's list has all its feedback. Each is None if no item has it.
    `late` marks the rows of a list that has been learned: the new labels, and the rows without one that were shown with them.
    """

    kind: ClassVar[str] = "feedback"

    incarnation: npt.NDArray[np.int64]
    request: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    label: npt.NDArray[np.float32]
    time: npt.NDArray[np.float64]
    late: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32] | None = None
    event: npt.NDArray[np.float64] | None = None
    propensity: npt.NDArray[np.float32] | None = None
    place: npt.NDArray[np.int32] | None = None
    complete: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name, none in _NOTHING.items():
            value = getattr(self, name)
            if value is not None and (np.isnan(value) if none != none else value == none).all():
                object.__setattr__(self, name, None)

    def __len__(self) -> int:
        return len(self.request)

    def check(self) -> None:
        """Raise `ValueError` if a weight or a propensity is out of its range."""
        if self.weight is not None and not ((self.weight >= 0) & (self.weight <= MOST_WEIGHT)).all():
            raise ValueError(f"a weight is not from 0 to {MOST_WEIGHT:g}")
        p = self.propensity
        if p is not None and not (np.isnan(p) | ((p > 0) & (p <= 1))).all():
            raise ValueError("a propensity is not above 0 and at most 1")

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """The senders' weights, float32[M]."""
        return self._filled("weight", np.float32)

    @property
    def events(self) -> npt.NDArray[np.float64]:
        """The times of the events, float64[M]; NaN if unknown."""
        return self._filled("event", np.float64)

    @property
    def propensities(self) -> npt.NDArray[np.float32]:
        """The probabilities of being examined, float32[M]; NaN if not given."""
        return self._filled("propensity", np.float32)

    @property
    def places(self) -> npt.NDArray[np.int32]:
        """The positions in their lists, int32[M]; -1 if not given."""
        return self._filled("place", np.int32)

    @property
    def completes(self) -> npt.NDArray[np.bool_]:
        """Whether the row's list has all its feedback, bool[M]."""
        return self._filled("complete", np.bool_)

    def _filled(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        value: npt.NDArray[Any] | None = getattr(self, name)
        return np.full(len(self), _NOTHING[name], dtype) if value is None else value


def at(feedback: Feedback, rows: npt.NDArray[np.integer]) -> Feedback:
    """Return some items of feedback by their indices int[M], in that order."""
    kept: dict[str, Any] = {name: None if value is None else value[rows] for name, value in vars(feedback).items()}
    return Feedback(**kept)


def check_weights(given: Any, label: Floats, what: str = "item", first: int = 0) -> Floats | None:
    """Return the weights float32[M] of items with these labels (NaN: only shown), or None if all are 1.

    Raises `InvalidInput` naming the first `what` whose weight is not from 0 to 100, or is given for a row that was only shown.
    They are counted from `first` on.

    >>> check_weights([1.0, 2.5], np.float32([0, 1]))
    array([1. , 2.5], dtype=float32)
    >>> check_weights([1.0, 250], np.float32([0, 1]))
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 1 has the weight 250; expected 0 to 100: divide by the mean, then min(w, 100)
    """
    weight, name = _numbers("weight", given, len(label)), f"{what} {{}} has the weight"
    wrong = ~((weight >= 0) & (weight <= MOST_WEIGHT))
    _refuse(name, weight, wrong, f"; expected 0 to {MOST_WEIGHT:g}: divide by the mean, then min(w, 100)", first)
    _refuse(name, weight, np.isnan(label) & (weight != 1), _OF_LABELS, first)
    return None if (weight == 1).all() else weight.astype(np.float32)


def check_times(given: Any, label: Floats, now: float) -> npt.NDArray[np.float64] | None:
    """Return the times float64[M] of the events (Unix seconds, NaN: none) of items with these labels; None without any.

    Raises `InvalidInput` naming the first item whose time is not from 2000 to an hour after `now`, or has no label.

    >>> check_times([18e11], np.float32([1]), now=1.8e9)
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 0 has the time 1800000000000, in milliseconds: write t / 1000
    """
    time, name, latest = _numbers("time", given, len(label)), "item {} has the time", now + AHEAD_SECONDS
    wrong = ~(np.isnan(time) | ((time >= EARLIEST) & (time <= latest)))
    if wrong.any():
        at = float(time[wrong][0])
        for factor, unit in _UNITS:
            if EARLIEST <= at / factor <= latest:
                _refuse(name, time, wrong, f", in {unit}: write t / {factor:.0f}")
        _refuse(
            name, time, wrong,
            f"; expected Unix seconds from {EARLIEST:.0f} (2000-01-01) to one hour after now ({now:.0f}): write time.time()",
        )  # fmt: skip
    _refuse(name, time, np.isnan(label) & ~np.isnan(time), _OF_LABELS)
    return None if np.isnan(time).all() else time.astype(np.float64)


def check_propensities(given: Any, items: int) -> Floats | None:
    """Return the propensities float32[M] of items, NaN for none; None if no item has one.

    Raises `InvalidInput` naming the first item whose propensity is not above 0 and at most 1.

    >>> check_propensities([0.5, 0], 2)
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 1 has the propensity 0; expected above 0, at most 1: write max(p, 0.01)
    """
    propensity = _numbers("propensity", given, items).astype(np.float32)
    wrong = ~(np.isnan(propensity) | ((propensity > 0) & (propensity <= 1)))
    _refuse("item {} has the propensity", propensity, wrong, "; expected above 0, at most 1: write max(p, 0.01)")
    return None if np.isnan(propensity).all() else propensity


def check_places(given: Any, items: int) -> npt.NDArray[np.int32] | None:
    """Return the positions int32[M] of items in their lists, -1 for NaN (not given); None if no item has one.

    Raises `InvalidInput` naming the first item whose position is not an integer from 0.

    >>> check_places([0, 1.5], 2)
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 1 has the position 1.5; expected 0 to 1048575, an integer: the first row has 0
    """
    place = _numbers("position", given, items)
    none = np.isnan(place)
    wrong = ~(none | ((place >= 0) & (place < MOST_ROWS) & (place == np.floor(place))))
    _refuse("item {} has the position", place, wrong, f"; expected 0 to {MOST_ROWS - 1}, an integer: the first row has 0")
    return None if none.all() else np.where(none, -1, place).astype(np.int32)


def _numbers(name: str, given: Any, items: int) -> npt.NDArray[Any]:
    try:
        found = np.asarray(given)
    except ValueError:  # lists beside numbers have no shape
        found = np.empty(0, object)
    if found.dtype.kind not in "iuf" or found.shape != (items,):
        raise InvalidInput(f"{name} is {found.dtype}{list(found.shape)}; expected {items} numbers, one an item")
    return found


def _refuse(said: str, found: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], then: str, first: int = 0) -> None:
    """Raise `InvalidInput` naming the first item that is `wrong`, if any."""
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise InvalidInput(f"{said.format(first + at)} {str(found[at]).removesuffix('.0')}{then}")
