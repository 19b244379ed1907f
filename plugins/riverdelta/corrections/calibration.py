"""Calibration: a scale and a shift of the raw output, learned online."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
from numba import float64, types

from riverdelta.core.checked import bound, positive, share
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import bounded, evidence, limits
from riverdelta.corrections.base import Correction
from riverdelta.corrections.coefficients import Coefficients, by_output, root_mean
from riverdelta.corrections.rows import offset_key
from riverdelta.corrections.table import Table

_Floats, _Table, _Doubles = types.float32[::1], types.float32[:, ::1], float64[:, ::1]
#: Unsigned row numbers need no test for negative ones.
_NO_ROWS = np.uint64(0)
_Terms = types.UniTuple(float64, 4)  # type: ignore[no-untyped-call]


@numba.njit(inline="always")
def _raw(line, k, offset, counted):  # type: ignore[no-untyped-def]
    return offset + (np.float64(line[k, 0]) + np.float64(line[k, 1]) * counted)


@numba.njit(types.void(_Table, _Table, _Table, _Table), cache=True)
def _predict(offset, line, limit, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        for k in range(offset.shape[1]):
            out[i, k] = _raw(line, k, np.float64(offset[i, k]), np.float64(limits.counted(offset[i, k], limit[0, k])))


@numba.njit(
    types.void(
        *(_Table, _Floats, _Floats, types.int64[::1], types.boolean, _Table, _Doubles, _Doubles, _Table, _Terms),
        *(evidence.TERMS, KERNELS, _Table),
    ),
    cache=True,
)
def _learn(  # type: ignore[no-untyped-def]
    offset, label, weight, starts, lists, line, beliefs, sizes, limit, terms, counts, loss, out
):  # fmt: skip
    prior, forget, clip, radius = terms
    most, outputs, one = evidence.longest(starts), offset.shape[1], 0.0 if lists else 1.0
    raws, offsets, gradients, curvatures = (
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
        np.empty((most, outputs)),
    )
    any_range, unlimited = sizes.shape[0] > 0, np.full((1, 2 * outputs), np.float32(limits.MOST))
    counted, centre, ys, ws = np.empty((most, outputs)), np.zeros(outputs), np.empty(most), np.empty(most)
    # Views of the first rows; to make them takes as long as to learn a row.
    viewed, raw, y, w, near = np.uint64(most), raws[:most], ys[:most], ws[:most], offsets[:most]
    gradient, curvature, plain = gradients[:most], curvatures[:most], evidence.is_plain(counts)
    for n in range(starts.shape[0] - 1):
        rows = _NO_ROWS
        for i in range(starts[n], starts[n + 1]):
            for k in range(outputs):
                offsets[rows, k] = offset[i, k]
                counted[rows, k] = limits.counted(offset[i, k], limit[0, k])
                raws[rows, k] = _raw(line, k, offsets[rows, k], counted[rows, k])
                out[i, k] = raws[rows, k]
            ys[rows], ws[rows] = label[i], weight[i]
            rows += np.uint64(bounded.is_learned(raws, rows, ys[rows], ws[rows]))
        if rows == _NO_ROWS:
            continue
        if rows != viewed:
            viewed, raw, y, w, near = rows, raws[:rows], ys[:rows], ws[:rows], offsets[:rows]
            gradient, curvature = gradients[:rows], curvatures[:rows]
        unit, anew = 1.0, False
        if plain:
            loss.derivatives(raw, y, w, gradient, curvature)
        if not plain or bounded.largest(gradient) > clip:
            unit, anew, _ = evidence.count(near, raw, y, w, clip, counts, loss, gradient, curvature)
        if anew:
            beliefs[:] = 0.0
            beliefs[:, 2] = prior
            beliefs[:, 4] = prior
        for k in range(outputs):
            if lists:
                total = curvature[:, k].sum()
                weighed = (curvature[:, k] * counted[:rows, k]).sum()
                centre[k] = weighed / total if total > 0.0 else counted[:rows, k].mean()
            for j in range(_NO_ROWS, rows):
                belief, g, h, o = beliefs[k], gradient[j, k] / unit, curvature[j, k], counted[j, k] - centre[k]
                # (mean of intercept, mean of slope, the precision's three entries, Σ offset², its rows without zeros).
                v = o / unit
                belief[2] = forget * belief[2] + (1.0 - forget) * prior + h * one
                belief[3] = forget * belief[3] + h * v * one
                belief[4] = forget * belief[4] + (1.0 - forget) * prior + h * v * v
                det = belief[2] * belief[4] - belief[3] * belief[3]
                if det > 0.0:  # rounding can reach 0 with a very weak prior
                    belief[0] -= unit * (g * (belief[4] * one - belief[3] * v) / det)
                    belief[1] -= g * (belief[2] * v - belief[3]) / det
                belief[5] += o * o
                belief[6] += o != 0.0
                if any_range and offsets[j, k] != 0.0:
                    evidence.meet(offsets[j, k] * offsets[j, k], sizes, k, limit)
                if any_range and o != 0.0:
                    evidence.meet(o * o, sizes, outputs + k, unlimited)
            typical = evidence.typical(sizes, outputs + k) if any_range else limits.typical(belief[5], belief[6])
            size = belief[0] * belief[0] + belief[1] * belief[1] * typical
            shrink = bounded.shrinkage(size, unit * radius)
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
        heavy examples. Raise it if weights above 10 must count in full. For values and counts it is in units of s
        (`corrections.evidence`).
    radius
        The bound on the coefficients, in raw outputs (of values: in units of s). Raise it only if the base is wrong by more
        than 8 logits; infinity means no bound.

    Notes
    -----
    (β₀, β₁) has a Gaussian belief, which takes one Newton step for each example. With x = (1, offset), and g and h the gradient
    and the curvature of the weighted loss: Λ ← γΛ + (1 - γ)Λ₀ + h·xxᵀ and β ← β - g·Λ⁻¹x, where Λ₀ = I / `variance` and
    γ = `forget`. With variance 0.1 one surprising label moves a logit of -2.6 by 0.7; with variance 1 it would reverse the sign
    of the slope. With several outputs, each has its own line (vector scaling, Guo et al. 2017, arXiv 1706.04599). A list has a
    slope alone, as an intercept would cancel. Each of its rows takes a step, with the derivatives from before the list and with
    the offset counted from the list's mean, weighted by the curvature.

    The effect of one example is bounded (`corrections.bounded`). The slope multiplies an offset of at most the `reach` of the
    loss, 30 logits with log loss, or of 4 times its typical size where it has any unit. With T the mean of the nonzero
    squares of these, β₀² + T·β₁² <= `radius`² after an update: an offset of size √T gets a residual of at most √2·`radius`.

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

    since = evidence.NAMES

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"offset": "https"}

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    def bind(self, schema: Schema) -> None:
        prior, outputs = 1.0 / self.variance, self.loss.outputs
        self.served = {"line": Table(np.zeros((outputs, 2)))}
        self.learner = {
            "belief": np.tile([0.0, 0.0, prior, 0.0, prior, 0.0, 0.0], outputs),
            **evidence.arrays(self.loss),
        }
        # A logit has a known range; a value, or the score of a list, has any.
        self._any_range = self.loss.lists or self.loss.dispersion == "unit"
        if self._any_range:
            self.served[limits.LIMIT] = limits.table(outputs)
            # Of each output the offsets, and those as they count.
            self.learner["offsets"] = np.zeros((2 * outputs, evidence.WIDTH))
        super().bind(schema)

    @property
    def _limit(self) -> Floats:
        """What an offset counts as at most, float32[1, K]."""
        if self._any_range:
            return self.served[limits.LIMIT].values
        return np.full((1, self.loss.outputs), self.loss.reach, np.float32)

    @property
    def _beliefs(self) -> npt.NDArray[np.float64]:
        """The belief of each output, one row each."""
        return self.learner["belief"].reshape(-1, 7)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        _predict(offset, self.served["line"].values, self._limit, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        out = self.room(columns, offset, label, weight, group)
        line, loss, learner = self.served["line"].values, self.loss, self.learner
        terms = 1.0 / self.variance, float(self.forget), *bounded.finite(self.clip, self.radius)
        sizes, starts = learner.get("offsets", np.empty((0, 0))), loss.starts(len(offset), group, each=True)
        _learn(
            offset, label, weight, starts, loss.lists, line, self._beliefs, sizes, self._limit, terms,
            evidence.terms(loss, learner), loss.kernels, out,
        )  # fmt: skip
        for table in self.served.values():
            table.touched[:] |= len(offset) > 0
        return out

    def inflate(self, keep: float) -> None:
        prior = 1.0 / self.variance
        self._beliefs[:, 2:5] *= keep
        self._beliefs[:, [2, 4]] += (1.0 - keep) * prior

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        line = nodes.add("Transpose", nodes.table("line", self.served["line"].values), perm=[1, 0])
        intercept, slope = (nodes.add("Gather", line, nodes.constant([j], np.int64), axis=0) for j in (0, 1))
        limit = nodes.table(limits.LIMIT, self._limit) if self._any_range else nodes.constant([self.loss.reach], np.float32)
        counted = limits.export(nodes, offset, limit)
        return nodes.add("Add", offset, nodes.add("Add", intercept, nodes.add("Mul", slope, counted)))

    def coefficients(self) -> dict[str, Coefficients]:
        values, slope = self.served["line"].values, root_mean(self._beliefs[:, 5], self._beliefs[:, 6])
        sizes = np.stack([np.ones(len(slope)), slope], axis=1)
        return {"line": Coefficients(by_output(("intercept", "slope"), len(values)), values.reshape(1, -1), sizes.ravel())}
