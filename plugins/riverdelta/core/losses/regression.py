"""Regression: a label that is a number, a value in its unit, and mixtures of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.losses.base import Doubles, Group, Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.nodes import Nodes

#: The largest label and value: their squares fit into a float32.
_LARGEST = 1e15


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        losses[i] = 0.5 * (raw[i, 0] - label[i]) ** 2


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        gradient[i, 0] = weight[i] * (raw[i, 0] - label[i])
        curvature[i, 0] = weight[i]


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        d = corrected[i, 0] - base[i, 0]
        served[i, 0] = base[i, 0] + weight * (_LARGEST if d > _LARGEST else -_LARGEST if d < -_LARGEST else d)


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):  # type: ignore[no-untyped-def]
    prediction[:] = raw


class Regression(Loss):
    """Half the squared error ½(z - y)² of a value z and a label y in one unit, whatever it is.

    Parameters
    ----------
    label_range
        The least and the largest label, in the label's unit (default: any number up to ±1e15). Labels outside are refused.
        Give it if it is known: the gate then has a bound that does not depend on what it meets.
    period
        Seconds after which labels repeat, for the baseline "the label a period ago" (default: none), such as 86400.0 for a day.

    Raises
    ------
    ConfigurationError
        If the range is not two numbers in order, or the period not above 0.

    Notes
    -----
    The mixture is that of values, b + w·(c - b), and b itself where c = b. exp(-η·½(z - y)²) is concave in z while
    η(z - y)² <= 1: with values and labels in a range of length R, mixing at weight ω loses nothing at rates up to 1/(ωR²)
    (Kivinen and Warmuth 1999, "Averaging expert predictions"). Without a range no such rate exists.

    Examples
    --------
    >>> loss = Regression(label_range=(0, 10))
    >>> loss.value([3.0, 4.0], [5.0, 4.0]).tolist(), loss.mix([3.0], [5.0], 0.5).tolist()
    ([2.0, 0.0], [[4.0]])
    >>> loss.check_labels([4.0, 12.0])
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: row 1 has the label 12; expected a number from 0 to 10
    """

    task = "regression"
    name = "squared error / 2"
    raw = "value"
    unit = "squared units of the label"
    dispersion = "unit"
    # Two numbers within the largest differ by at most twice that.
    bound, reach = 2.0 * _LARGEST**2, _LARGEST
    kernels = Kernels(_value, _derivatives, _mix, _predict)

    def __init__(self, label_range: Sequence[float] | None = None, period: float | None = None) -> None:
        if label_range is not None:
            label_range = tuple(label_range)
            if not (len(label_range) == 2 and -_LARGEST <= label_range[0] < label_range[1] <= _LARGEST):
                raise ConfigurationError(
                    f"label_range is {label_range!r}; expected the least and the largest label: Regression((0, 100))"
                )
        self.label_range, self.period = label_range, seconds(period)
        low, high = label_range or (-_LARGEST, _LARGEST)
        #: The range of float32 labels: 0.1 is 1.5·10⁻⁹ more in float32.
        self._low, self._high = self.span = min(low, float(np.float32(low))), max(high, float(np.float32(high)))

    def __repr__(self) -> str:
        return f"Regression(label_range={self.label_range!r}, period={self.period!r})"

    @property
    def expected(self) -> str:
        return f"a number from {self._low:g} to {self._high:g}"

    @property
    def label_schema(self) -> dict[str, Any]:
        low, high = self.label_range or self.span
        return {"type": "number", "minimum": low, "maximum": high}

    def valid(self, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        found = np.asarray(label)
        return (found >= self._low) & (found <= self._high)

    def link(self, prediction: npt.ArrayLike) -> Doubles:
        return self.rows(prediction)

    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        b = self.rows(base)[:, 0]
        c = b + np.clip(self.rows(corrected)[:, 0] - b, -_LARGEST, _LARGEST)
        # |½(b - y)² - ½(c - y)²| = |b - c|·|(b + c)/2 - y|
        middle = (b + c) / 2.0
        return np.asarray(np.abs(b - c) * np.maximum(np.abs(middle - self._low), np.abs(middle - self._high)))

    def judged(self, base: npt.ArrayLike, label: npt.ArrayLike, group: Group = None) -> npt.NDArray[np.bool_]:
        return (np.abs(self.rows(base)) <= _LARGEST)[:, 0]

    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        if self.label_range is None:
            return np.zeros(np.shape(weight))
        return np.asarray(1.0 / (np.maximum(weight, 1e-300) * (self._high - self._low) ** 2))

    def in_range(self, base: npt.ArrayLike, corrected: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        both = np.stack([self.rows(base), self.rows(corrected)])[..., 0]
        return np.logical_and.reduce((both >= self._low) & (both <= self._high), axis=0)

    def export_link(self, nodes: Nodes, prediction: str) -> str:
        return prediction

    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        return nodes.add("Identity", raw)

    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        ends = [nodes.constant(sign * _LARGEST, np.float32) for sign in (-1, 1)]
        moved = nodes.add("Clip", nodes.add("Sub", corrected, base), *ends)
        return nodes.add("Add", base, nodes.add("Mul", weight, moved))


def seconds(period: float | None) -> float | None:
    """Return a period in seconds, or None; raises `ConfigurationError` if it is not above 0."""
    if period is None or (isinstance(period, int | float) and 0 < period < math.inf):
        return period
    raise ConfigurationError(f"period is {period!r}; expected seconds above 0, such as 86400.0 for a day")
