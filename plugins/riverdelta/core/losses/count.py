"""Count: a label that is an integer of at least 0, the log of a rate, and mixtures of rates."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.losses.base import Doubles, Group, Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.losses.regression import seconds
from riverdelta.core.nodes import Nodes

#: The largest count: integers up to it are float32 numbers.
_MOST = 2.0**24
#: Log rates beyond ±30 count as ±30 in rates.
_EDGE, _REACH = 30.0, 30.0


@numba.njit(inline="always")
def _rate(z):  # type: ignore[no-untyped-def]
    return math.exp(_EDGE if z > _EDGE else -_EDGE if z < -_EDGE else z)


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        z, y = raw[i, 0], label[i]
        # Beyond the edge the rate grows linearly, so that the loss is finite.
        rate = math.exp(_EDGE) * (1.0 + (z - _EDGE)) if z > _EDGE else math.exp(z)
        losses[i] = rate - y + (y * (math.log(y) - z) if y > 0.0 else 0.0)


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        z = raw[i, 0]
        rate = math.exp(_EDGE if z > _EDGE else z)
        gradient[i, 0] = weight[i] * (rate - label[i])
        curvature[i, 0] = weight[i] * rate


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        d = corrected[i, 0] - base[i, 0]
        ratio = math.exp(_REACH if d > _REACH else -_REACH if d < -_REACH else d)
        served[i, 0] = base[i, 0] + (math.log((1.0 - weight) + weight * ratio) - math.log((1.0 - weight) + weight))


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):  # type: ignore[no-untyped-def]
    for i in range(raw.shape[0]):
        prediction[i, 0] = _rate(raw[i, 0])


class Count(Loss):
    """Half the Poisson deviance y·log(y/μ) - (y - μ), in nats, of a log rate z = log μ and a count y.

    Parameters
    ----------
    period
        Seconds after which labels repeat, for the baseline "the label a period ago" (default: none).

    Notes
    -----
    It is 0 where μ = y, and differs from the negative log likelihood by a constant of y. The mixture is that of rates,
    b + log((1 - w) + w·e^(c - b)), the residual within ±30. It is not exp-concave in the rate (at y = 0 it is linear), so no
    rate is known at which mixing loses nothing. Corrections learn with the dispersion that they measure (quasi-Poisson), as
    most counts vary more than Poisson's.

    Source: McCullagh and Nelder 1989, "Generalized linear models", chapter 6.

    Examples
    --------
    >>> loss = Count()
    >>> loss.value([0.0, 0.0], [1, 3]).round(4).tolist(), loss.inverse_link([0.0]).tolist()
    ([0.0, 1.2958], [[1.0]])
    >>> loss.check_labels([2, 2.5])
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: row 1 has the label 2.5; expected an integer from 0 to 16777216
    """

    task = "count"
    name = "Poisson deviance / 2"
    raw = "log_rate"
    inverse_name = "log"
    dispersion = "free"
    #: Above the loss of any log rate within ±30: e^30 + 2^24·(log 2^24 + 30).
    bound, reach = 2e13, _REACH
    expected: ClassVar[str] = f"an integer from 0 to {_MOST:.0f}"
    kernels = Kernels(_value, _derivatives, _mix, _predict)
    span = (0.0, _MOST)

    def __init__(self, period: float | None = None) -> None:
        self.period = seconds(period)

    @property
    def label_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 0, "maximum": int(_MOST)}

    def valid(self, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        found = np.asarray(label)
        return (found >= 0) & (found <= _MOST) & (found == np.floor(found))

    def deviation(self, prediction: Doubles) -> Doubles:
        return np.sqrt(1.0 + prediction)

    def export_deviation(self, nodes: Nodes, prediction: str) -> str:
        return nodes.add("Sqrt", nodes.add("Add", nodes.constant(1.0, np.float32), prediction))

    def link(self, prediction: npt.ArrayLike) -> Doubles:
        return np.log(np.clip(self.rows(prediction), math.exp(-_EDGE), math.exp(_EDGE)))

    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        # The difference of losses is linear in y: one of the two extreme labels is the worst.
        served = self.mix(base, corrected, 1.0)
        gaps = [np.abs(self.value(base, label) - self.value(served, label)) for label in (0.0, _MOST)]
        return np.maximum(*gaps)

    def judged(self, base: npt.ArrayLike, label: npt.ArrayLike, group: Group = None) -> npt.NDArray[np.bool_]:
        return (np.abs(self.rows(base)) <= _EDGE)[:, 0]

    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        return np.zeros(np.shape(weight))

    def export_link(self, nodes: Nodes, prediction: str) -> str:
        ends = [nodes.constant(math.exp(sign * _EDGE), np.float32) for sign in (-1, 1)]
        return nodes.add("Log", nodes.add("Clip", prediction, *ends))

    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        return nodes.add("Exp", nodes.add("Clip", raw, *(nodes.constant(sign * _EDGE, np.float32) for sign in (-1, 1))))

    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        ends = [nodes.constant(sign * _REACH, np.float32) for sign in (-1, 1)]
        ratio = nodes.add("Exp", nodes.add("Clip", nodes.add("Sub", corrected, base), *ends))
        stay = nodes.add("Sub", nodes.constant(1.0, np.float32), weight)
        mixed = nodes.add("Log", nodes.add("Add", stay, nodes.add("Mul", weight, ratio)))
        return nodes.add("Add", base, nodes.add("Sub", mixed, nodes.add("Log", nodes.add("Add", stay, weight))))
