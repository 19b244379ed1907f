"""Log loss: a binary label, a logit, and mixtures of probabilities."""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.losses.base import Doubles, Group, Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.nodes import Nodes

#: A probability output is clipped to [FLOOR, 1 - FLOOR] before it becomes a logit.
_FLOOR = 1e-7
#: Far above any normal loss: a base that returns probabilities has logits within ±16.1 and the gate moves them by at most 30.
#: It is the first edge above their sum among the bins in which `Prequential` counts logits.
_BOUND = 56.0
_REACH = 30.0
# exp(88) fits into a float32, exp(89) does not; beyond it σ(-b) is negligible beside exp(-30).
_EDGE = 88.0 - _REACH
#: Beyond every finite float32, so that an infinite logit has a loss too.
_FARTHEST = 3.5e38


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        z = raw[i, 0]
        if z > _FARTHEST:
            z = _FARTHEST
        elif z < -_FARTHEST:
            z = -_FARTHEST
        # Terms that cancel are subtracted first, so that a small loss keeps all its digits.
        losses[i] = math.log1p(math.exp(-abs(z))) + ((z if z > 0.0 else 0.0) - label[i] * z)


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        p = 1.0 / (1.0 + math.exp(-raw[i, 0]))
        gradient[i, 0] = weight[i] * (p - label[i])
        curvature[i, 0] = weight[i] * p * (1.0 - p)


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        b, d = base[i, 0], corrected[i, 0] - base[i, 0]
        # Compared, not clipped by min and max: a NaN stays one.
        if d > _REACH:
            d = _REACH
        elif d < -_REACH:
            d = -_REACH
        g, e = math.exp(-d), math.exp(-(_EDGE if b > _EDGE else -_EDGE if b < -_EDGE else b))
        stay, move = (1.0 - weight) * (1.0 + e * g), weight * (1.0 + e)
        served[i, 0] = b - math.log((stay + move * g) / (stay + move))


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):  # type: ignore[no-untyped-def]
    for i in range(raw.shape[0]):
        e = math.exp(-abs(raw[i, 0]))
        prediction[i, 0] = (1.0 if raw[i, 0] >= 0.0 else e) / (1.0 + e)


class LogLoss(Loss):
    """The log loss softplus(z) - y·z, in nats, of a logit z and a label y of 0 or 1.

    >>> loss = LogLoss()
    >>> loss.value([0.0, -20.0, -1e30], [1, 1, 1]).tolist()
    [0.6931471805599453, 20.000000002061153, 56.0]
    >>> loss.mix([0.3], [0.3], 0.7).tolist(), loss.mix([0.0], [2.0], 1.0).round(6).tolist()
    ([[0.3]], [[2.0]])
    >>> loss.check_labels([0.0, 1.0, 2.0])
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: row 2 has the label 2; expected 0 or 1

    Notes
    -----
    The mixture is that of probabilities, (1 - w)·σ(b) + w·σ(c') with c' = b + clip(c - b, ±30). With E = exp(-b) and
    G = exp(b - c') its logit is b - log((A + w(1 + E)G) / (A + w(1 + E))), A = (1 - w)(1 + E·G): sums of positive numbers
    alone, so nothing cancels, and b is held within ±58 in E, so nothing overflows. With c = b, G is 1 and both sums are one
    number, so the result is b, bit for bit.

    x^(ηω) is concave while 0 < ηω <= 1, so that a mixture of probabilities loses nothing at rates up to 1/ω (Vovk 1990).
    """

    task = "binary"
    name = "log loss"
    raw = "logit"
    labels = (0.0, 1.0)
    logit = True
    bound, reach = _BOUND, _REACH
    kernels = Kernels(_value, _derivatives, _mix, _predict)

    def link(self, prediction: npt.ArrayLike) -> Doubles:
        p = np.clip(self.rows(prediction), _FLOOR, 1.0 - _FLOOR)
        return np.log(p) - np.log1p(-p)

    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        return np.minimum(np.abs(self.rows(corrected) - self.rows(base)), _REACH)[:, 0]

    def judged(self, base: npt.ArrayLike, label: npt.ArrayLike, group: Group = None) -> npt.NDArray[np.bool_]:
        return (np.abs(self.rows(base)) <= _BOUND)[:, 0]

    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        return np.asarray(1.0 / np.maximum(weight, 1.0))

    def export_link(self, nodes: Nodes, prediction: str) -> str:
        floor, ceiling, one = (nodes.constant(value, np.float32) for value in (_FLOOR, 1.0 - _FLOOR, 1.0))
        p = nodes.add("Clip", prediction, floor, ceiling)
        return nodes.add("Sub", nodes.add("Log", p), nodes.add("Log", nodes.add("Sub", one, p)))

    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        return nodes.add("Sigmoid", raw)

    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        def bounded_exp(exponent: str, bound: float) -> str:
            ends = [nodes.constant(sign * bound, np.float32) for sign in (-1, 1)]
            return nodes.add("Exp", nodes.add("Clip", exponent, *ends))

        one = nodes.constant(1.0, np.float32)
        # b - 0 keeps the sign of a zero too.
        g = bounded_exp(nodes.add("Sub", base, corrected), _REACH)
        e = bounded_exp(nodes.add("Neg", base), _EDGE)
        stay = nodes.add("Mul", nodes.add("Sub", one, weight), nodes.add("Add", nodes.add("Mul", e, g), one))
        move = nodes.add("Mul", weight, nodes.add("Add", e, one))
        against = nodes.add("Add", stay, nodes.add("Mul", move, g))
        ratio = nodes.add("Div", against, nodes.add("Add", stay, move))
        return nodes.add("Sub", base, nodes.add("Log", ratio))


LOG_LOSS = LogLoss()
