"""River's linear models over an offset: a term of the raw output with a fixed coefficient of 1, which no scaler touches."""

from __future__ import annotations

from typing import Any, ClassVar

from river.linear_model import LinearRegression, LogisticRegression

from riverdelta.core.losses import Loss

#: The least curvature of a working response, that of a logit of about 14.
_LEAST = 1e-6


class _Offset:
    """Adds `shift` to the raw output that River's losses see; everything else is River's."""

    #: Attributes that are no state of their own.
    derived: ClassVar[tuple[str, ...]] = ("shift",)
    shift: float = 0.0

    def _raw_dot_one(self, x: dict[Any, Any]) -> float:
        return super()._raw_dot_one(x) + self.shift  # type: ignore[misc]

    def raw_one(self, x: dict[Any, Any], offset: float) -> float:
        """Return Σ weight·x + intercept + offset."""
        self.shift = offset
        return float(self._raw_dot_one(x))

    def weight_of(self, key: str | int) -> float:
        """Return the weight of one of River's keys, 0 before it was learned."""
        return float(self._weights.get(key, 0.0))  # type: ignore[attr-defined]


class OffsetLogisticRegression(_Offset, LogisticRegression):
    """Logistic regression over an offset."""

    def target(self, loss: Loss, raw: float, label: float, weight: float) -> tuple[bool, float]:
        """Return what River learns from: the label and the weight themselves."""
        return bool(label), weight


class OffsetLinearRegression(_Offset, LinearRegression):
    """Linear regression over an offset, as one step of iteratively reweighted least squares per example.

    With g and h the gradient and the curvature of the loss at the raw output, it regresses the working response raw - g / h
    with weight w·h (McCullagh and Nelder 1989, section 2.5); h is at least 1e-6. With River's squared loss the gradient is 2wg.
    """

    def target(self, loss: Loss, raw: float, label: float, weight: float) -> tuple[float, float]:
        """Return the working response and its weight."""
        gradient, curvature = loss.derivatives(raw, label)
        h = max(float(curvature[0, 0]), _LEAST)
        return raw - float(gradient[0, 0]) / h, weight * h
