"""River's linear models over an offset: a term of the logit with a fixed coefficient of 1, which no scaler touches."""

from __future__ import annotations

from typing import Any, ClassVar

from river.linear_model import LinearRegression, LogisticRegression

from riverdelta.core.link import sigmoid

#: The least working weight p(1 - p), at a logit of about 14.
_LEAST = 1e-6


class _Offset:
    """Adds `shift` to the raw output that River's losses see; everything else is River's."""

    #: Attributes that are no state of their own.
    derived: ClassVar[tuple[str, ...]] = ("shift",)
    shift: float = 0.0

    def _raw_dot_one(self, x: dict[Any, Any]) -> float:
        return super()._raw_dot_one(x) + self.shift  # type: ignore[misc]

    def logit_one(self, x: dict[Any, Any], offset: float) -> float:
        """Return Σ weight·x + intercept + offset."""
        self.shift = offset
        return float(self._raw_dot_one(x))

    def weight_of(self, key: str | int) -> float:
        """Return the weight of one of River's keys, 0 before it was learned."""
        return float(self._weights.get(key, 0.0))  # type: ignore[attr-defined]


class OffsetLogisticRegression(_Offset, LogisticRegression):
    """Logistic regression over an offset."""

    def target(self, logit: float, label: float, weight: float) -> tuple[bool, float]:
        """Return what River learns from: the label and the weight themselves."""
        return bool(label), weight


class OffsetLinearRegression(_Offset, LinearRegression):
    """Linear regression over an offset, as one step of iteratively reweighted least squares per example.

    With p = σ(logit) and v = p(1 - p), it regresses the working response logit + (label - p) / v with weight w·v
    (McCullagh and Nelder 1989, section 2.5); v is at least 1e-6. With River's squared loss the gradient is 2w(p - label).
    """

    def target(self, logit: float, label: float, weight: float) -> tuple[float, float]:
        """Return the working response and its weight."""
        p = float(sigmoid(logit))
        v = max(p * (1.0 - p), _LEAST)
        return logit + (label - p) / v, weight * v
