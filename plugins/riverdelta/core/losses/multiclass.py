"""Multiclass: a label that is one of K classes, K logits, and mixtures of probabilities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.losses.base import Doubles, Group, Loss
from riverdelta.core.losses.kernels import DERIVATIVES, MIX, PREDICT, VALUE, Kernels
from riverdelta.core.nodes import Nodes

#: A probability is raised to this before its logarithm is taken.
_FLOOR = 1e-7
#: A base that returns probabilities has losses up to 16.1, and the gate adds at most twice the reach.
_REACH, _BOUND = 30.0, 80.0
#: The most classes that an error lists.
_SHOWN = 10


@numba.njit(inline="always")
def log_sum(raw):  # type: ignore[no-untyped-def]
    """Return log Σ exp(raw[k])."""
    most = raw[0]
    for k in range(raw.shape[0]):
        if not raw[k] <= most:  # a NaN stays one
            most = raw[k]
    total = 0.0
    for k in range(raw.shape[0]):
        total += math.exp(raw[k] - most)
    return most + math.log(total)


@numba.njit(inline="always")
def mix_logs(base, corrected, weight, reach, served):  # type: ignore[no-untyped-def]
    """Fill served[n] with the mixture of two distributions over n, given as logits."""
    for k in range(base.shape[0]):
        d = corrected[k] - base[k]
        # Compared, not clipped by min and max: a NaN stays one.
        served[k] = base[k] + (reach if d > reach else -reach if d < -reach else d)
    moved = log_sum(served) - log_sum(base)
    for k in range(base.shape[0]):
        ratio = math.exp((served[k] - base[k]) - moved)
        served[k] = base[k] + (math.log((1.0 - weight) + weight * ratio) - math.log((1.0 - weight) + weight))


@numba.njit(VALUE, cache=True)
def _value(raw, label, losses):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        # What is not a class has no loss.
        known = 0.0 <= label[i] < raw.shape[1]
        losses[i] = log_sum(raw[i]) - raw[i, int(label[i])] if known else math.nan


@numba.njit(DERIVATIVES, cache=True)
def _derivatives(raw, label, weight, gradient, curvature):  # type: ignore[no-untyped-def]
    for i in range(label.shape[0]):
        total = log_sum(raw[i])
        for k in range(raw.shape[1]):
            p = math.exp(raw[i, k] - total)
            gradient[i, k] = weight[i] * (p - (1.0 if k == int(label[i]) else 0.0))
            curvature[i, k] = weight[i] * 2.0 * p * max(1.0 - p, 0.0)


@numba.njit(MIX, cache=True)
def _mix(base, corrected, weight, served):  # type: ignore[no-untyped-def]
    for i in range(base.shape[0]):
        mix_logs(base[i], corrected[i], weight, _REACH, served[i])


@numba.njit(PREDICT, cache=True)
def _predict(raw, prediction):  # type: ignore[no-untyped-def]
    for i in range(raw.shape[0]):
        total = log_sum(raw[i])
        for k in range(raw.shape[1]):
            prediction[i, k] = math.exp(raw[i, k] - total)


def _number(name: str) -> int | float | None:
    """Return the number that the name of a class is, None for other names."""
    for read in (int, float):
        try:
            number = read(name)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def export_mixed_logs(nodes: Nodes, base: str, corrected: str, weight: str, reach: float, normalized: Any) -> str:
    """Append the nodes of `mix_logs`; `normalized` appends those that return log probabilities of logits."""
    ends = [nodes.constant(sign * reach, np.float32) for sign in (-1, 1)]
    near_base = nodes.add("Add", base, nodes.add("Clip", nodes.add("Sub", corrected, base), *ends))
    ratio = nodes.add("Exp", nodes.add("Sub", normalized(near_base), normalized(base)))
    stay = nodes.add("Sub", nodes.constant(1.0, np.float32), weight)
    mixed = nodes.add("Add", stay, nodes.add("Mul", weight, ratio))
    moved = nodes.add("Sub", nodes.add("Log", mixed), nodes.add("Log", nodes.add("Add", stay, weight)))
    return nodes.add("Add", base, moved)


class Multiclass(Loss):
    """The log loss of one class in K, in nats, of K logits; labels are classes by name or index.

    Parameters
    ----------
    classes
        The names of the outputs in their order (default: those of the base's export, or "0", "1", …). Give them where the
        export has none and clients send names. A label that is a number is the place of a class, or the class of that name
        if some names are numbers.

    Raises
    ------
    ConfigurationError
        If there are fewer than 2 classes, or two have one name.

    Notes
    -----
    value = log Σ exp(z_k) - z_y. The mixture is that of probabilities: with p of the base, q of the corrected logits, each
    within ±30 of the base's, the served logit is b_k + log((1 - w) + w·q_k/p_k), which is b_k, bit for bit, where q = p.
    x^(ηω) is concave while 0 < ηω <= 1, so mixing loses nothing at rates up to 1/ω (Vovk 1990).

    The curvature is 2·p·(1 - p): as |H_jk| summed over j != k is p_k·(1 - p_k), the diagonal of twice the diagonal bounds the
    Hessian (Gershgorin), so that steps of single outputs, taken together, do not overshoot. With 2 classes it is exact.

    Examples
    --------
    >>> loss = Multiclass(["cat", "dog", "owl"])
    >>> loss.value([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], [1, 0]).round(4).tolist()
    [1.0986, 0.0002]
    >>> loss.read_labels(["owl", "cat"]).tolist(), loss.label_of(2)
    ([2.0, 0.0], 'owl')
    >>> loss.read_labels(["owl", "dgo"])
    Traceback (most recent call last):
        ...
    riverdelta.core.errors.InvalidInput: row 1 has the label 'dgo'; expected one of 'cat', 'dog', 'owl', or a place from 0 to 2
    """

    task = "multiclass"
    name = "log loss"
    raw = "logit"
    bound, reach = _BOUND, _REACH
    kernels = Kernels(_value, _derivatives, _mix, _predict)

    def __init__(self, classes: Sequence[Any] | None = None) -> None:
        self.classes = None if classes is None else tuple(str(one) for one in classes)
        if self.classes is None:
            self.outputs = 0
            return
        self.outputs, self._codes = len(self.classes), {name: code for code, name in enumerate(self.classes)}
        if len(self._codes) != self.outputs or self.outputs < 2:
            raise ConfigurationError(
                f"classes is {list(self.classes)!r:.200}; expected 2 or more different names: Multiclass(['cat', 'dog'])"
            )
        numbers = [_number(name) for name in self.classes]
        self._are_numbers, twice = numbers.count(None) < self.outputs, Counter(numbers)
        #: The classes by number, where some names are numbers: numbers are then names, and never places.
        self._by_number = {number: code for code, number in enumerate(numbers) if number is not None and twice[number] == 1}

    def __repr__(self) -> str:
        return f"Multiclass(classes={None if self.classes is None else list(self.classes)!r})"

    def of_base(self, outputs: int | None, classes: Sequence[str] | None) -> Multiclass:
        if outputs is None:
            return self
        if self.classes is None:
            return Multiclass(classes or range(outputs))
        if self.outputs != outputs:
            raise ConfigurationError(
                f"the base has {outputs} classes, and classes has {self.outputs}; give {outputs} names in the base's order"
            )
        return self

    @property
    def labels(self) -> tuple[float, ...]:  # type: ignore[override]
        """The codes of the classes."""
        return tuple(float(code) for code in range(self.outputs))

    @property
    def expected(self) -> str:
        named = [repr(name) for name in (self.classes or ())]
        more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        places = "" if self._are_numbers else f", or a place from 0 to {self.outputs - 1}"
        return f"one of {', '.join(named[:_SHOWN])}{more}{places}"

    @property
    def label_schema(self) -> dict[str, Any]:
        names = [*(self.classes or ())]
        return {"enum": [*names, *(self._by_number if self._are_numbers else range(self.outputs))]}

    def valid(self, label: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        found = np.asarray(label, np.float64)
        return (found >= 0) & (found < self.outputs) & (found == np.floor(found))

    def read_labels(
        self, label: npt.ArrayLike, what: str = "row", shown: bool = False, first: int = 0
    ) -> npt.NDArray[np.float32]:
        given = np.asarray(label, object) if isinstance(label, list | tuple) else np.asarray(label)
        if given.dtype.kind in "iuf" and not self._are_numbers:
            return self.check_labels(given, what, shown, first)
        return np.array([self._code(one, what, first + at, shown) for at, one in enumerate(given.tolist())], np.float32)

    def _code(self, label: Any, what: str, at: int, shown: bool) -> float:
        if isinstance(label, np.generic):
            label = label.item()
        if isinstance(label, bytes):
            label = label.decode(errors="replace")
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if shown and isinstance(label, float) and math.isnan(label):
            return math.nan
        if isinstance(label, str | int | float) and not isinstance(label, bool):
            if (code := self._codes.get(str(label))) is not None:
                return code
            if not isinstance(label, str) and (code := self._by_number.get(label)) is not None:
                return code
            if isinstance(label, int) and not self._are_numbers and 0 <= label < self.outputs:
                return label
        raise InvalidInput(f"{what} {at} has the label {label!r:.100}; expected {self.expected}")

    def label_of(self, code: float) -> str | float:
        return self.classes[int(code)] if self.classes else code

    def link(self, prediction: npt.ArrayLike) -> Doubles:
        return np.log(np.clip(self.rows(prediction), _FLOOR, 1.0))

    def spread(self, base: npt.ArrayLike, corrected: npt.ArrayLike, group: Group = None) -> Doubles:
        moved = self.mix(base, corrected, 1.0) - self.rows(base)
        return np.abs(moved).max(axis=1)

    def mixable(self, weight: npt.ArrayLike) -> Doubles:
        return np.asarray(1.0 / np.maximum(weight, 1.0))

    def export_link(self, nodes: Nodes, prediction: str) -> str:
        ends = [nodes.constant(end, np.float32) for end in (_FLOOR, 1.0)]
        return nodes.add("Log", nodes.add("Clip", prediction, *ends))

    def export_inverse_link(self, nodes: Nodes, raw: str, group: str | None = None) -> str:
        return nodes.add("Softmax", raw, axis=1)

    def export_mixture(self, nodes: Nodes, base: str, corrected: str, weight: str, group: str | None = None) -> str:
        def normalized(logits: str) -> str:
            return nodes.add("LogSoftmax", logits, axis=1)

        return export_mixed_logs(nodes, base, corrected, weight, _REACH, normalized)
