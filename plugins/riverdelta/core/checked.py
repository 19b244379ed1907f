"""Checked: constructor arguments, each returned or refused with an error that names the argument and what is allowed."""

from __future__ import annotations

import math

from riverdelta.core.errors import ConfigurationError


def positive(name: str, value: float) -> float:
    """Return `value` if it is finite and above 0."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0")
    return value


def not_negative(name: str, value: float) -> float:
    """Return `value` if it is finite and at least 0."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number of at least 0")
    return value


def bound(name: str, value: float) -> float:
    """Return `value` if it is above 0; infinity means no bound."""
    if not (isinstance(value, int | float) and value > 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0, or float('inf') for no bound")
    return value


def share(name: str, value: float) -> float:
    """Return `value` if it is in (0, 1]."""
    if not (isinstance(value, int | float) and 0 < value <= 1):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0 and at most 1")
    return value
