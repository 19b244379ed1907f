"""River's linear models as the last step of a pipeline, which learns a residual beside an offset that no scaler changes."""

from __future__ import annotations

from typing import Any, ClassVar

from river.linear_model import LinearRegression, LogisticRegression


class _Residual:
    """A linear model of a residual, in a unit of raw outputs.

    Attributes
    ----------
    unit
        A residual of 1 in the model is this many raw outputs.
    """

    #: Attributes that a snapshot leaves out.
    derived: ClassVar[tuple[str, ...]] = ("unit",)
    unit: float = 1.0

    def residual_one(self, x: dict[Any, Any]) -> float:
        """Return Σ weight·x + intercept, in raw outputs."""
        return self.unit * float(self._weights.dot(x)) + self.level  # type: ignore[attr-defined]

    def weight_of(self, key: str | int) -> float:
        """Return the weight of a key of River's dict, in raw outputs, or 0 if it was never learned."""
        return self.unit * float(self._weights.get(key, 0.0))  # type: ignore[attr-defined]

    @property
    def level(self) -> float:
        """The intercept, in raw outputs."""
        return self.unit * float(self.intercept)  # type: ignore[attr-defined]


class OffsetLogisticRegression(_Residual, LogisticRegression):
    """Logistic regression whose logit has an offset, a term with a fixed coefficient of 1."""

    derived = (*_Residual.derived, "shift")
    shift: float = 0.0

    def _raw_dot_one(self, x: dict[Any, Any]) -> float:
        return super()._raw_dot_one(x) + self.shift

    def example(
        self, residual: float, gradient: float, curvature: float, offset: float, label: float, weight: float
    ) -> tuple[bool, float]:
        """Return the label and the weight that River learns: those given."""
        self.shift = offset
        return bool(label), weight


class ResidualRegression(_Residual, LinearRegression):
    """Linear regression that lowers any loss, by one step of iteratively reweighted least squares for each example.

    Notes
    -----
    With g and h the gradient and the curvature of the loss at the residual r, it learns the working response r - g / h with
    weight h (McCullagh and Nelder 1989, section 2.5). With River's squared loss the gradient is 2g, and less as r comes closer
    by other rows of a list, whose g and h are from before any of them. A step that goes beyond the response ends there: the
    first numbers that a scaler passes on are many times as large as later ones.
    """

    def example(self, residual: float, gradient: float, curvature: float, *_: float) -> tuple[float, float]:
        """Return the working response, in units of the residual, and its weight."""
        return (residual - (gradient / curvature if curvature > 0.0 else 0.0)) / self.unit, curvature

    def learn_one(self, x: dict[Any, Any], y: float, w: float = 1.0) -> None:
        """Learn a working response, and cut a step that goes beyond it."""
        weights, intercept, start = {key: self._weights.get(key, 0.0) for key in x}, self.intercept, self._raw_dot_one(x)
        super().learn_one(x, y, w=w)
        moved, wanted = abs(self._raw_dot_one(x) - start), abs(y - start)
        if w > 0.0 and moved > wanted:
            kept = wanted / moved
            self.intercept = intercept + kept * (self.intercept - intercept)
            for key, before in weights.items():
                self._weights[key] = before + kept * (self._weights.get(key, 0.0) - before)
