"""Feedback: what an item may have besides its label: a weight, and the time of its event."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats

#: The largest weight of a label; the gate's rate may fall to its reciprocal.
MOST_WEIGHT = 100.0
#: The earliest time of an event, the year 2000, and how far ahead of the clock it may be, both in seconds.
EARLIEST, AHEAD_SECONDS = 946_684_800.0, 3_600.0
_UNITS = ((1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds"))
_OF_LABELS = 'only a label has one: leave it out of the item, or send it with the "label"'


def check_weights(given: Any, label: Floats) -> Floats | None:
    """Return the weights float32[M] of items with these labels (NaN: only shown), or None if all are 1.

    Raises `InvalidInput` naming the first item whose weight is not from 0 to 100, or is given for a row that was only shown.

    >>> check_weights([1.0, 2.5], np.float32([0, 1]))
    array([1. , 2.5], dtype=float32)
    >>> check_weights([1.0, 250], np.float32([0, 1]))
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 1 has the weight 250; expected 0 to 100: divide by the mean, then min(w, 100)
    """
    weight = _numbers("weight", given, len(label))
    wrong = ~((weight >= 0) & (weight <= MOST_WEIGHT))
    _refuse("weight", weight, wrong, f"; expected 0 to {MOST_WEIGHT:g}: divide by the mean, then min(w, 100)")
    _refuse("weight", weight, np.isnan(label) & (weight != 1), f" and no label; {_OF_LABELS}")
    return None if (weight == 1).all() else weight.astype(np.float32)


def check_times(given: Any, label: Floats, now: float) -> npt.NDArray[np.float64] | None:
    """Return the times float64[M] of the events (Unix seconds, NaN: none) of items with these labels; None without any.

    Raises `InvalidInput` naming the first item whose time is not from 2000 to an hour after `now`, or has no label.

    >>> check_times([18e11], np.float32([1]), now=1.8e9)
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: item 0 has the time 1800000000000, in milliseconds: write t / 1000
    """
    time = _numbers("time", given, len(label))
    latest = now + AHEAD_SECONDS
    wrong = ~(np.isnan(time) | ((time >= EARLIEST) & (time <= latest)))
    if wrong.any():
        at = float(time[wrong][0])
        for factor, unit in _UNITS:
            if EARLIEST <= at / factor <= latest:
                _refuse("time", time, wrong, f", in {unit}: write t / {factor:.0f}")
        _refuse(
            "time", time, wrong,
            f"; expected Unix seconds from {EARLIEST:.0f} (2000-01-01) to one hour after now ({now:.0f}): write time.time()",
        )  # fmt: skip
    _refuse("time", time, np.isnan(label) & ~np.isnan(time), f" and no label; {_OF_LABELS}")
    return None if np.isnan(time).all() else time.astype(np.float64)


def _numbers(name: str, given: Any, items: int) -> npt.NDArray[Any]:
    try:
        found = np.asarray(given)
    except ValueError:  # lists beside numbers have no shape
        found = np.empty(0, object)
    if found.dtype.kind not in "iuf" or found.shape != (items,):
        raise InvalidInput(f"{name} is {found.dtype}{list(found.shape)}; expected {items} numbers, one an item")
    return found


def _refuse(name: str, found: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], then: str) -> None:
    """Raise `InvalidInput` naming the first item that is `wrong`, if any."""
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise InvalidInput(f"item {at} has the {name} {str(found[at]).removesuffix('.0')}{then}")
