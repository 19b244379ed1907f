"""Interval: the values that a tensor can have, and one node with what is known about its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

import numpy as np
import numpy.typing as npt

#: A sum of float32 products may exceed its exact bound by this.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Range:
    """The bounds of all values of a tensor, for every input; NaN is left out.

    `known` says that the bounds follow from the graph, so that infinite ones belong to a linear function of what came before;
    without it an operator in between is not understood. `whole` says that the values are integers.
    """

    low: float = -inf
    high: float = inf
    known: bool = True
    whole: bool = False

    def within(self, low: float, high: float) -> bool:
        """Whether every value is between the bounds, up to rounding.

        >>> Range(0.0, 1.000001).within(0, 1), Range(-1.0, 1.0).within(0, 1), UNKNOWN.within(0, 1)
        (True, False, False)
        """
        return self.low >= low - ROUNDING and self.high <= high + ROUNDING

    @property
    def unbounded(self) -> bool:
        """Whether values have no bound on either side."""
        return self.low == -inf and self.high == inf

    def __or__(self, other: Range) -> Range:
        """Return the range of a value of either."""
        return Range(*_ends(self.low, self.high, other.low, other.high), *self._both(other))

    def __add__(self, other: Range) -> Range:
        return Range(_sum(self.low, other.low, -inf), _sum(self.high, other.high, inf), *self._both(other))

    def __neg__(self) -> Range:
        return Range(-self.high, -self.low, self.known, self.whole)

    def __sub__(self, other: Range) -> Range:
        return self + -other

    def __mul__(self, other: Range) -> Range:
        ends = (_product(a, b) for a in (self.low, self.high) for b in (other.low, other.high))
        return Range(*_ends(*ends), *self._both(other))

    def inverted(self) -> Range:
        """Return the range of 1/x; around 0 nothing is known."""
        if self.low < 0 < self.high:
            return UNKNOWN
        low = -inf if self.high == 0 else 1 / self.high
        high = inf if self.low == 0 else 1 / self.low
        return Range(low, high, self.known)

    def clipped(self, low: float, high: float) -> Range:
        """Return the range of the values clipped to [low, high]."""
        return Range(min(max(self.low, low), high), min(max(self.high, low), high), self.known, self.whole)

    def _both(self, other: Range) -> tuple[bool, bool]:
        return self.known and other.known, self.whole and other.whole


UNKNOWN = Range(known=False)


@dataclass(frozen=True)
class Call:
    """One node: the ranges of its inputs, the values of small constants, which are stored, its attributes and its opset."""

    inputs: Sequence[Range | None]
    constants: Sequence[npt.NDArray[Any] | None]
    stored: Sequence[bool]
    attributes: Mapping[str, Any]
    opset: int

    @property
    def first(self) -> Range:
        """The range of the first input."""
        return self.of(0)

    @property
    def given(self) -> list[Range]:
        """The ranges of all inputs that are given."""
        return [one for one in self.inputs if one is not None]

    def of(self, index: int) -> Range:
        """Return the range of an input; one that is not given is unknown."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return UNKNOWN if found is None else found

    def constant(self, index: int) -> npt.NDArray[np.float64] | None:
        """Return an input that is a small constant of finite numbers, None for any other."""
        found = self.constants[index] if index < len(self.constants) else None
        if found is None or found.dtype.kind not in "biuf" or not found.size:
            return None
        numbers = found.astype(np.float64)
        return numbers if np.isfinite(numbers).all() else None

    def number(self, name: str, default: float) -> float:
        """Return a numeric attribute."""
        return float(self.attributes.get(name, default))


def of_array(array: npt.NDArray[Any]) -> Range:
    """Return the range of a constant."""
    if array.dtype.kind not in "biuf" or not array.size:
        return UNKNOWN
    low, high = float(array.min()), float(array.max())
    return UNKNOWN if isnan(low) or isnan(high) else Range(low, high, whole=array.dtype.kind in "biu")


def _ends(*values: float) -> tuple[float, float]:
    values = tuple(values)
    return min(values), max(values)


def _sum(a: float, b: float, unknown: float) -> float:
    found = a + b
    return unknown if isnan(found) else found


def _product(a: float, b: float) -> float:
    # An infinite bound stands for arbitrarily large finite values, so 0 times it is 0.
    return 0.0 if a == 0 or b == 0 else a * b
