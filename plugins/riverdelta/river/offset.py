"""River's linear models with an offset: a term of the raw output with a fixed coefficient of 1, which no scaler changes."""

from __future__ import annotations

from typing import Any, ClassVar

from river.linear_model import LinearRegression, LogisticRegression

from riverdelta.core.losses import Loss

#: The smallest curvature of a working response: that of a logit of about 14.
_LEAST = 1e-6


class _Offset:
    """Adds `shift` to the raw output from which River computes its loss."""

    #: Attributes that a snapshot leaves out.
    derived: ClassVar[tuple[str, ...]] = ("shift",)
    shift: float = 0.0

    def _raw_dot_one(self, x: dict[Any, Any]) -> float:
        return super()._raw_dot_one(x) + self.shift  # type: ignore[misc]

    def raw_one(self, x: dict[Any, Any], offset: float) -> float:
        """Return Σ weight·x + intercept + offset."""
        self.shift = offset
        return float(self._raw_dot_one(x))

    def weight_of(self, key: str | int) -> float:
        """Return the weight of a key of River's dict, or 0 if it was never learned."""
        return float(self._weights.get(key, 0.0))  # type: ignore[attr-defined]


class OffsetLogisticRegression(_Offset, LogisticRegression):
    """Logistic regression with an offset."""

    def target(self, loss: Loss, raw: float, label: float, weight: float) -> tuple[bool, float]:
        """Return the label and the weight that River learns, unchanged."""
        return bool(label), weight


class OffsetLinearRegression(_Offset, LinearRegression):
    """Linear regression with an offset, by one step of iteratively reweighted least squares for each example.

    Notes
    -----
    With g and h the gradient and the curvature of the loss at the raw output, it learns the working response raw - g / h with
    weight w·h (McCullagh and Nelder 1989, section 2.5); h is at least 1e-6. With River's squared loss the gradient is 2wg.
    """

    def target(self, loss: Loss, raw: float, label: float, weight: float) -> tuple[float, float]:
        """Return the working response and its weight, which River learns."""
        gradient, curvature = loss.derivatives(raw, label)
        h = max(float(curvature[0, 0]), _LEAST)
        return raw - float(gradient[0, 0]) / h, weight * h
