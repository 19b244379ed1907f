"""Calibration: a scale and a shift of the raw output, learned online."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types

from riverdelta.core.checked import bound, positive, share
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import bounded, limits
from riverdelta.corrections.base import Correction
from riverdelta.corrections.coefficients import Coefficients, by_output, root_mean
from riverdelta.corrections.rows import offset_key
from riverdelta.corrections.table import Table

_Floats, _Table, _Doubles = types.float32[::1], types.float32[:, ::1], float64[:, ::1]
_Terms = types.UniTuple(float64, 5)  # type: ignore[no-untyped-call]


@numba.njit(inline="always")
def _raw(line, k, offset, counted):  # type: ignore[no-untyped-def]
    return offset + (np.float64(line[k, 0]) + np.float64(line[k, 1]) * counted)


@numba.njit(types.void(_Table, _Table, types.float32, _Table), cache=True)
def _predict(offset, line, reach, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        for k in range(offset.shape[1]):
            out[i, k] = _raw(line, k, np.float64(offset[i, k]), np.float64(limits.counted(offset[i, k], reach)))


@numba.njit(types.void(_Table, _Floats, _Floats, _Table, _Doubles, _Terms, KERNELS, _Table), cache=True)
def _learn(offset, label, weight, line, beliefs, terms, loss, out):  # type: ignore[no-untyped-def]
    prior, forget, clip, radius, reach = terms
    outputs = offset.shape[1]
    raws, gradients, curvatures = np.empty((1, outputs)), np.empty((1, outputs)), np.empty((1, outputs))
    raw, gradient, curvature, counted, ys, ws = (
        raws[0],
        gradients[0],
        curvatures[0],
        np.empty(outputs),
        np.empty(1),
        np.empty(1),
    )
    for i in range(offset.shape[0]):
        for k in range(outputs):
            counted[k] = limits.counted(offset[i, k], np.float32(reach))
            raw[k] = _raw(line, k, np.float64(offset[i, k]), counted[k])
            out[i, k] = raw[k]
        y, w = np.float64(label[i]), np.float64(weight[i])
        if not bounded.is_learned(raw, y, w):
            continue
        ys[0], ws[0] = y, w
        loss.derivatives(raws, ys, ws, gradients, curvatures)
        if bounded.largest(gradient) > clip:
            ws[0] = 1.0
            loss.derivatives(raws, ys, ws, gradients, curvatures)
            ws[0] = clip / bounded.largest(gradient)
            loss.derivatives(raws, ys, ws, gradients, curvatures)
        for k in range(outputs):
            belief, g, h = beliefs[k], gradient[k], curvature[k]
            # (mean of intercept, mean of slope, the precision's three entries, Σ offset², its rows without zeros).
            o = counted[k]
            belief[2] = forget * belief[2] + (1.0 - forget) * prior + h
            belief[3] = forget * belief[3] + h * o
            belief[4] = forget * belief[4] + (1.0 - forget) * prior + h * o * o
            det = belief[2] * belief[4] - belief[3] * belief[3]
            if det > 0.0:  # rounding can reach 0 with a very weak prior
                belief[0] -= g * (belief[4] - belief[3] * o) / det
                belief[1] -= g * (belief[2] * o - belief[3]) / det
            belief[5] += o * o
            belief[6] += o != 0.0
            size = belief[0] * belief[0] + belief[1] * belief[1] * limits.typical(belief[5], belief[6])
            shrink = bounded.shrinkage(size, radius)
            if shrink != 1.0:
                belief[0] *= shrink
                belief[1] *= shrink
            line[k, 0] = belief[0]
            line[k, 1] = belief[1]


class Calibration(Correction):
    """Corrects the scale and the shift of the raw output: raw = offset + β₀ + β₁·offset.

    Put it first in a stack: it corrects a base that is overconfident or underconfident on all rows alike.

    Parameters
    ----------
    variance
        The prior variance of β₀ (in squared raw outputs) and of β₁. Lower it if the first labels move scores too far; raise it
        if a badly calibrated base is corrected too slowly.
    forget
        The share of the evidence that each example keeps, above 0 and at most 1: 1 - 1/n remembers about n examples. Lower it
        if calibration changes over time; 1.0 weighs all examples equally.
    offset
        The feature of a row that holds the base's raw output, for `learn_one` and `predict_one`; None if rows have none, and
        then each offset is 0. A service ignores it.
    clip
        The largest gradient of one example. With log loss the gradient is at most the example's weight, so 10.0 limits only
        heavy examples. Raise it if weights above 10 must count in full.
    radius
        The bound on the coefficients, in raw outputs. Raise it only if the base is wrong by more than 8 logits; infinity means
        no bound.

    Notes
    -----
    (β₀, β₁) has a Gaussian belief, which takes one Newton step for each example. With x = (1, offset), and g and h the gradient
    and the curvature of the weighted loss: Λ ← γΛ + (1 - γ)Λ₀ + h·xxᵀ and β ← β - g·Λ⁻¹x, where Λ₀ = I / `variance` and
    γ = `forget`. With variance 0.1 one surprising label moves a logit of -2.6 by 0.7; with variance 1 it would reverse the sign
    of the slope. With several outputs, each has its own line.

    The effect of one example is bounded (`corrections.bounded`). The slope multiplies an offset of at most the `reach` of the
    loss: 30 logits with log loss. With T the mean of the nonzero
    squares of these, β₀² + T·β₁² <=
    `radius`² after an update: an offset of size √T gets a residual of at most √2·`radius`.

    Sources: Platt 1999 (the line); Murphy, "Machine Learning", section 8.5.3 (online Bayesian logistic regression).

    Examples
    --------
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
        offset: str | None = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        self.variance = positive("variance", variance)
        self.forget = share("forget", forget)
        self.offset = offset_key(offset)
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"offset": "https"}

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    def bind(self, schema: Schema) -> None:
        prior, outputs = 1.0 / self.variance, self.loss.outputs
        self.served = {"line": Table(np.zeros((outputs, 2)))}
        self.learner = {"belief": np.tile([0.0, 0.0, prior, 0.0, prior, 0.0, 0.0], outputs)}
        super().bind(schema)

    @property
    def _beliefs(self) -> npt.NDArray[np.float64]:
        """The belief of each output, one row each."""
        return self.learner["belief"].reshape(-1, 7)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        _predict(offset, self.served["line"].values, np.float32(self.loss.reach), out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = self.room(columns, offset, label, weight)
        line = self.served["line"]
        terms = 1.0 / self.variance, float(self.forget), *bounded.finite(self.clip, self.radius), float(self.loss.reach)
        _learn(offset, label, weight, line.values, self._beliefs, terms, self.loss.kernels, out)
        line.touched[:] |= len(offset) > 0
        return out

    def inflate(self, keep: float) -> None:
        prior = 1.0 / self.variance
        self._beliefs[:, 2:5] *= keep
        self._beliefs[:, [2, 4]] += (1.0 - keep) * prior

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        line = nodes.add("Transpose", nodes.table("line", self.served["line"].values), perm=[1, 0])
        intercept, slope = (nodes.add("Gather", line, nodes.constant([j], np.int64), axis=0) for j in (0, 1))
        counted = limits.export(nodes, offset, nodes.constant([self.loss.reach], np.float32))
        return nodes.add("Add", offset, nodes.add("Add", intercept, nodes.add("Mul", slope, counted)))

    def coefficients(self) -> dict[str, Coefficients]:
        values, slope = self.served["line"].values, root_mean(self._beliefs[:, 5], self._beliefs[:, 6])
        sizes = np.stack([np.ones(len(slope)), slope], axis=1)
        return {"line": Coefficients(by_output(("intercept", "slope"), len(values)), values.reshape(1, -1), sizes.ravel())}
