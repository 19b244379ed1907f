"""Checked constructor arguments: each returns its value, or raises an error that names it, what was allowed, and an example."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

import numpy as np

from riverdelta.core.errors import ConfigurationError

_LARGEST = float(np.finfo(np.float32).max)
#: The largest number of rows of a table.
MOST_SLOTS = 2**24


def positive(name: str, value: float) -> float:
    """Return a number above 0, whose reciprocal is a number too."""
    return _number(name, value, lambda n: 1e-30 <= n <= 1e30, "a number above 0 (from 1e-30 to 1e30), such as 0.1")


def not_negative(name: str, value: float) -> float:
    """Return a number of at least 0."""
    return _number(name, value, lambda n: 0 <= n <= 1e30, "a number of at least 0 (to 1e30), such as 0.01")


def bound(name: str, value: float) -> float:
    """Return a number above 0, which may be infinite: no bound."""
    return _number(name, value, lambda n: n > 0, "a number above 0, such as 8.0, or float('inf') for no bound")


def share(name: str, value: float) -> float:
    """Return a number in (0, 1]."""
    return _number(name, value, lambda n: 0 < n <= 1, "a number above 0 and at most 1, such as 0.999")


def slots(value: int) -> int:
    """Return the number of rows of a table.

    >>> slots(0)
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.ConfigurationError: slots is 0; expected an integer from 1 to 16777216, such as 2**18
    """
    try:
        found = index(value)
    except TypeError:
        found = 0
    if isinstance(value, bool) or not 1 <= found <= MOST_SLOTS:
        raise ConfigurationError(f"slots is {value!r}; expected an integer from 1 to {MOST_SLOTS}, such as 2**18")
    return found


def flag(name: str, value: bool) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}; expected True or False")
    return value


def column(name: str, value: Any, example: str) -> Any:
    """Return the name of a column, which is a string that is not empty and has no NUL; `example` says how to write it."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(f"{name} is {value!r}; expected the name of a column, as in {example}")
    return value


def finite(value: Any) -> bool:
    """Return whether a value is a number that is finite as float32; True and False are not numbers.

    >>> [finite(value) for value in (3, 2.5, np.int64(1), True, "3", None, float('nan'), 1e39)]
    [True, True, True, False, False, False, False, False]
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and bool(-_LARGEST <= value <= _LARGEST)


def _number(name: str, value: float, allowed: Callable[[float], bool], expected: str) -> float:
    given: Any = value
    found = given.item() if isinstance(given, np.integer | np.floating) else given
    if isinstance(found, bool) or not isinstance(found, int | float) or not allowed(found):
        raise ConfigurationError(f"{name} is {value!r}; expected {expected}")
    return found
