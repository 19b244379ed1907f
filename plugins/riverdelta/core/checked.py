"""Checked constructor arguments: each returns its value, or raises an error that names the argument and what was allowed."""

from __future__ import annotations

import math

from riverdelta.core.errors import ConfigurationError


def positive(name: str, value: float) -> float:
    """Return a finite value above 0."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0")
    return value


def not_negative(name: str, value: float) -> float:
    """Return a finite value of at least 0."""
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number of at least 0")
    return value


def bound(name: str, value: float) -> float:
    """Return a value above 0, which may be infinite: no bound."""
    if not (isinstance(value, int | float) and value > 0):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0, or float('inf') for no bound")
    return value


def share(name: str, value: float) -> float:
    """Return a value in (0, 1]."""
    if not (isinstance(value, int | float) and 0 < value <= 1):
        raise ConfigurationError(f"{name} is {value!r}; expected a number above 0 and at most 1")
    return value
