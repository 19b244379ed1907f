"""Seasons: what repeats by the hour, day, week or year, as waves of a time, for `Linear` and `Entity`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from riverdelta.core.checked import column, finite
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Doubles, Floats, Schema
from riverdelta.core.nodes import Nodes

#: The seconds of each named period; a year is 365.2425 days, the mean of the Gregorian calendar.
PERIODS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}
_MOST_HARMONICS, _MOST_HOURS = 64, 24
_EXAMPLE = 'Seasons("time", "day", "week")'


class Seasons:
    """A feature for `Linear` and `Entity`: sines and cosines of a time, of which they make any daily, weekly or other pattern.

    Parameters
    ----------
    key
        The column of the time, float64 Unix seconds. A service declares it by itself, and fills it with its own clock where a
        request leaves it out, unless it is an input of the base.
    *periods
        What repeats: "hour", "day", "week", "year", or seconds, at least one.
    harmonics
        The waves of each period, 1 to 64 (default 3), or a list with a number for each period: wave h repeats h times in the
        period. Raise it for sharp patterns, such as a rush hour; each wave takes two numbers.
    zone
        The hours by which local time is ahead of UTC, -24 to 24 (default 0), such as 1.0 in Berlin in winter. With several
        harmonics it only changes the meaning of coefficients.
    name
        The name of the feature, in coefficients (default: the key).

    Raises
    ------
    ConfigurationError
        If a period or an option is invalid, or a wave is shorter than a second.

    Notes
    -----
    With c = (time + 3600·zone)·h / period in float64, the numbers are sin 2πc' and cos 2πc', with c' the fraction of c. Until
    2100 the phase is exact to 10 µs; float32 would round the time to two minutes. Days have no summer time: where that matters,
    send local time as if it were UTC.

    Source: Harvey 1989, "Forecasting, structural time series models and the Kalman filter" (trigonometric seasonals).

    Examples
    --------
    >>> day = Seasons("time", "day", harmonics=1)
    >>> (day.vector(np.array([0.0, 21_600.0])).round(3) + 0.0).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> day.titles
    ['time: sin day', 'time: cos day']
    """

    def __init__(
        self, key: str, *periods: str | float, harmonics: int | list[int] = 3, zone: float = 0.0, name: str | None = None
    ) -> None:
        self.key = column("key", key, _EXAMPLE)
        self.name = self.key if name is None else column("name", name, 'Seasons("time", "day", name="rhythm")')
        if not periods:
            raise ConfigurationError(f"Seasons({key!r}) has no periods; name what repeats, as in {_EXAMPLE}")
        if not finite(zone) or abs(zone) > _MOST_HOURS:
            raise ConfigurationError(f"zone is {zone!r}; expected hours from -24 to 24, such as zone=1.0")
        self.zone = float(zone)
        counts = list(harmonics) if isinstance(harmonics, list | tuple) else [harmonics] * len(periods)
        if len(counts) != len(periods) or not all(_is_count(one) for one in counts):
            raise ConfigurationError(
                f"harmonics is {harmonics!r}; expected a number of waves from 1 to {_MOST_HARMONICS}, or a list with one for "
                f"each of the {len(periods)} periods: harmonics=3"
            )
        waves = [
            (_seconds(one) / h, _title(one, h)) for one, most in zip(periods, counts, strict=True) for h in range(1, most + 1)
        ]
        self.periods, self.harmonics = periods, tuple(counts)
        self._waves: Doubles = np.array([[seconds for seconds, _ in waves]])
        if self._waves.min() < 1.0:
            shortest = f"{self._waves.min():g} seconds"
            raise ConfigurationError(
                f"the shortest wave of Seasons({key!r}) takes {shortest}; expected at least 1: lower harmonics"
            )
        #: The names of its numbers.
        self.titles = [f"{self.name}: {wave} {title}" for wave in ("sin", "cos") for _, title in waves]
        self.width = len(self.titles)
        if len(set(self.titles)) < self.width:
            raise ConfigurationError(f"Seasons({key!r}) has a period twice in {periods!r}; expected each once: {_EXAMPLE}")

    def __repr__(self) -> str:
        periods = ", ".join(map(repr, (self.key, *self.periods)))
        return f"Seasons({periods}, harmonics={list(self.harmonics)!r}, zone={self.zone!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seasons) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash((self.key, self.periods, self.harmonics, self.zone, self.name))

    def identity(self) -> dict[str, Any]:
        """Return what identifies the feature: every option."""
        options = {"periods": list(self.periods), "harmonics": list(self.harmonics), "zone": self.zone}
        return {"key": self.key, **options, "name": self.name}

    def check(self, schema: Schema) -> None:
        """Raise `ConfigurationError` if the column in `schema` is missing or cannot hold a time."""
        found, what = schema.get(self.key), f"Seasons({self.key!r})"
        if found is None:
            schema.need(self.key, what)
        elif (found.dtype, found.shape) != ("float64", ()):
            raise ConfigurationError(
                f"{what} reads column {self.key!r}, which is {found}; expected Unix seconds, float64[N], as "
                f"float32 rounds them to two minutes: Schema.of({{{self.key!r}: 'float64'}})"
            )

    def vector(self, times: Doubles) -> Floats:
        """Return the numbers float32[N, width] of times float64[N]."""
        with np.errstate(invalid="ignore"):
            cycles = (times[:, None] + 3600.0 * self.zone) / self._waves
            angles = ((cycles - np.floor(cycles)) * (2.0 * math.pi)).astype(np.float32)
            return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    def export_vector(self, nodes: Nodes, times: str) -> str:
        """Append the nodes of `vector` and return its tensor; they are float64 up to the angle."""
        zoned = nodes.add("Add", nodes.column(times), nodes.constant(3600.0 * self.zone, np.float64))
        cycles = nodes.add("Div", zoned, nodes.constant(self._waves))
        fractions = nodes.add("Sub", cycles, nodes.add("Floor", cycles))
        angles = nodes.cast(nodes.add("Mul", fractions, nodes.constant(2.0 * math.pi, np.float64)), TensorProto.FLOAT)
        return nodes.add("Concat", nodes.add("Sin", angles), nodes.add("Cos", angles), axis=1)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_HARMONICS


def _seconds(period: Any) -> float:
    if isinstance(period, str) and period in PERIODS:
        return PERIODS[period]
    if isinstance(period, str) or not finite(period) or period <= 0:
        names = ", ".join(map(repr, PERIODS))
        raise ConfigurationError(f"a period of Seasons is {period!r}; expected {names} or seconds above 0: {_EXAMPLE}")
    return float(period)


def _title(period: str | float, harmonic: int) -> str:
    return (period if isinstance(period, str) else f"{period:g} s") + (f"/{harmonic}" if harmonic > 1 else "")
