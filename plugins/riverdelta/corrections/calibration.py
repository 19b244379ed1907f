"""Calibration: an online straight line through the logit (Platt scaling that never stops)."""

from __future__ import annotations

import math

import numba
import numpy as np

from riverdelta.core.checked import bound, positive, share
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.coefficients import Coefficients, root_mean

_SIGNATURE = (
    "void(float32[:, ::1], float32[::1], float32[::1], float32[:, ::1], float64[::1], float64, float64, float64, float64,"
    " float32[:, ::1])"
)
#: In learning an offset counts as at most 4 times its typical size (16 times its mean square), that being 1e-6 or more.
_TAIL, _LEAST = 16.0, 1e-12


@numba.njit(inline="always")
def _logit(line, o):  # type: ignore[no-untyped-def]
    return o + (np.float64(line[0, 0]) + np.float64(line[0, 1]) * o)


@numba.njit("void(float32[:, ::1], float32[:, ::1], float32[:, ::1])", cache=True)
def _predict(offset, line, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        out[i, 0] = _logit(line, np.float64(offset[i, 0]))


@numba.njit(_SIGNATURE, cache=True)
def _learn(offset, label, weight, line, belief, prior, forget, clip, radius, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        o = np.float64(offset[i, 0])
        z = _logit(line, o)
        out[i, 0] = z
        w = np.float64(weight[i])
        # Finite only where logit, weight and label are: what is not would stay in the state for good.
        if w == 0.0 or not abs(z + w * label[i]) < math.inf:
            continue
        p = 1.0 / (1.0 + math.exp(-z))
        if abs(w * (label[i] - p)) > clip:
            w = clip / abs(label[i] - p)
        h = w * p * (1.0 - p)
        g = w * (label[i] - p)
        # The belief is (mean of intercept, mean of slope, the precision's three entries, Σ offset², its rows without zeros).
        if o * o * belief[6] > _TAIL * max(belief[5], _LEAST * belief[6]):
            o = np.float64(math.copysign(math.sqrt(_TAIL * max(belief[5] / belief[6], _LEAST)), o))
        if o != 0.0:
            belief[5] += o * o
            belief[6] += 1.0
        belief[2] = forget * belief[2] + (1.0 - forget) * prior + h
        belief[3] = forget * belief[3] + h * o
        belief[4] = forget * belief[4] + (1.0 - forget) * prior + h * o * o
        det = belief[2] * belief[4] - belief[3] * belief[3]
        if det > 0.0:  # rounding may eat it where the prior is next to nothing
            belief[0] += g * (belief[4] - belief[3] * o) / det
            belief[1] += g * (belief[2] * o - belief[3]) / det
        reach = belief[0] * belief[0] + belief[1] * belief[1] * max(belief[5] / max(belief[6], 1.0), _LEAST)
        if reach > radius * radius:
            belief[0] *= radius / math.sqrt(reach)
            belief[1] *= radius / math.sqrt(reach)
        line[0, 0] = belief[0]
        line[0, 1] = belief[1]


class Calibration(Correction):
    """logit = offset + β₀ + β₁·offset, with a Gaussian belief over (β₀, β₁) that takes one Newton step per example.

    With x = (1, offset), p = σ(logit) and example weight w: Λ ← γΛ + (1 - γ)Λ₀ + w·p(1 - p)·xxᵀ and
    β ← β + w·(y - p)·Λ⁻¹x, where Λ₀ = I / `variance` and γ = `forget`. A γ of 1 - 1/n remembers about n examples. With the
    variance of 0.1 one surprising label moves a logit of -2.6 by 0.7; with one of 1 it would turn the line round.

    What one example can do is bounded. Its weight counts as at most `clip` / |y - p|, in the gradient and the curvature
    alike: a clipped step is that of a lighter example, so never longer. With T the mean of offset² where it is not 0, an
    offset beyond 4√T is learned as 4√T. After an update β₀² + T·β₁² <= `radius`²: an offset of size √T gets a residual of
    at most √2·`radius` logits. A row of weight 0, or whose logit is not finite, is predicted and not learned.

    References: Platt 1999 (the line); Murphy, "Machine Learning", section 8.5.3 (online Bayesian logistic regression).

    >>> c = Calibration()
    >>> for _ in range(1_000):
    ...     c.learn_one({"offset": 2.0}, False)
    >>> c.predict_proba_one({"offset": 2.0})[True] < 0.05
    True
    """

    def __init__(
        self,
        variance: float = 0.1,
        forget: float = 0.9999,
        offset: str = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        self.variance = positive("variance", variance)
        self.forget = share("forget", forget)
        self.offset = offset
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"offset": "https"}

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    def bind(self, schema: Schema) -> None:
        prior = 1.0 / self.variance
        self.served = {"line": Table(np.zeros((1, 2)))}
        self.learner = {"belief": np.array([0.0, 0.0, prior, 0.0, prior, 0.0, 0.0])}

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = np.empty_like(offset)
        _predict(offset, self.served["line"].values, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = np.empty_like(offset)
        line = self.served["line"]
        _learn(
            offset, label, weight, line.values, self.learner["belief"], 1.0 / self.variance, self.forget,
            self.clip, self.radius, out,
        )  # fmt: skip
        line.touched[:] |= len(offset) > 0
        return out

    def widen(self, keep: float) -> None:
        prior = 1.0 / self.variance
        self.learner["belief"][2:5] *= keep
        self.learner["belief"][[2, 4]] += (1.0 - keep) * prior

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        line = nodes.table("line", self.served["line"].values)
        intercept, slope = (nodes.add("Gather", line, nodes.constant([j], np.int64), axis=1) for j in (0, 1))
        return nodes.add("Add", offset, nodes.add("Add", intercept, nodes.add("Mul", slope, offset)))

    def coefficients(self) -> dict[str, Coefficients]:
        belief = self.learner["belief"]
        sizes = np.append(1.0, root_mean(belief[5:6], belief[6:7]))
        return {"line": Coefficients(("intercept", "slope"), self.served["line"].values, sizes)}
