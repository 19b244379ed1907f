"""Calibration: an online straight line through the logit (Platt scaling that never stops)."""

from __future__ import annotations

import math

import numba
import numpy as np

from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.checked import positive, share
from riverdelta.corrections.nodes import Nodes
from riverdelta.features import Columns, Floats, Schema

_SIGNATURE = (
    "void(float32[:, ::1], float32[::1], float32[::1], float32[:, ::1], float64[::1], float64, float64, float32[:, ::1])"
)


@numba.njit(inline="always")
def _logit(line, o):  # type: ignore[no-untyped-def]
    return o + (np.float64(line[0, 0]) + np.float64(line[0, 1]) * o)


@numba.njit("void(float32[:, ::1], float32[:, ::1], float32[:, ::1])", cache=True)
def _predict(offset, line, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        out[i, 0] = _logit(line, np.float64(offset[i, 0]))


@numba.njit(_SIGNATURE, cache=True)
def _learn(offset, label, weight, line, belief, prior, forget, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        o = np.float64(offset[i, 0])
        z = _logit(line, o)
        out[i, 0] = z
        p = 1.0 / (1.0 + math.exp(-z))
        h = weight[i] * p * (1.0 - p)
        g = weight[i] * (label[i] - p)
        # The belief is (mean of intercept, mean of slope, the precision's three entries).
        belief[2] = forget * belief[2] + (1.0 - forget) * prior + h
        belief[3] = forget * belief[3] + h * o
        belief[4] = forget * belief[4] + (1.0 - forget) * prior + h * o * o
        det = belief[2] * belief[4] - belief[3] * belief[3]
        belief[0] += g * (belief[4] - belief[3] * o) / det
        belief[1] += g * (belief[2] * o - belief[3]) / det
        line[0, 0] = belief[0]
        line[0, 1] = belief[1]


class Calibration(Correction):
    """logit = offset + β₀ + β₁·offset, with a Gaussian belief over (β₀, β₁) that takes one Newton step per example.

    With x = (1, offset), p = σ(logit) and example weight w: Λ ← γΛ + (1 - γ)Λ₀ + w·p(1 - p)·xxᵀ and
    β ← β + w·(y - p)·Λ⁻¹x, where Λ₀ = I / `variance` and γ = `forget`. A γ of 1 - 1/n remembers about n examples.

    References: Platt 1999 (the line); Murphy, "Machine Learning", section 8.5.3 (online Bayesian logistic regression).

    >>> c = Calibration()
    >>> for _ in range(200):
    ...     c.learn_one({"offset": 2.0}, False)
    >>> c.predict_proba_one({"offset": 2.0})[True] < 0.05
    True
    """

    def __init__(self, variance: float = 1.0, forget: float = 0.9999, offset: str = "offset") -> None:
        self.variance = positive("variance", variance)
        self.forget = share("forget", forget)
        self.offset = offset

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"offset": "https"}

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    def bind(self, schema: Schema) -> None:
        prior = 1.0 / self.variance
        self.served = {"line": Table(np.zeros((1, 2)))}
        self.learner = {"belief": np.array([0.0, 0.0, prior, 0.0, prior])}

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = np.empty_like(offset)
        _predict(offset, self.served["line"].values, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = np.empty_like(offset)
        line = self.served["line"]
        _learn(offset, label, weight, line.values, self.learner["belief"], 1.0 / self.variance, self.forget, out)
        line.touched[:] |= len(offset) > 0
        return out

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        line = nodes.table("line", self.served["line"].values)
        intercept, slope = (nodes.add("Gather", line, nodes.constant([j], np.int64), axis=1) for j in (0, 1))
        return nodes.add("Add", offset, nodes.add("Add", intercept, nodes.add("Mul", slope, offset)))
