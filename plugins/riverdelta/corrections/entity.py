"""Entity: a small model of each user, item or other entity, learned from the rows of that entity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import float64, types
from onnx import TensorProto

from riverdelta.core import checked
from riverdelta.core.checked import bound, column, flag, positive, share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import bounded, limits
from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.coefficients import At, Coefficients, Ids, by_output, root_mean, spelled
from riverdelta.corrections.dense import Dense, listed
from riverdelta.corrections.hashed import read_by
from riverdelta.corrections.hashing import Hash
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.rows import offset_key

#: The largest precision; float32 ends at 3e38.
_CERTAIN = np.float32(1e36)
_Floats, _Table, _Sums = types.float32[::1], types.float32[:, ::1], float64[::1]
_Terms = types.UniTuple(float64, 4)  # type: ignore[no-untyped-call]
#: Unsigned column numbers need no test for negative ones at each element, which saves a third of the time.
_0, _1, _2, _3, _4 = (np.uint64(n) for n in range(5))


@numba.njit(inline="always")
def _dot(a, i, at, b, j, of, length):  # type: ignore[no-untyped-def]
    """Return a[i, at : at + length] · b[j, of : of + length], by four sums in a fixed order: fast without fast math."""
    s0 = s1 = s2 = s3 = 0.0
    fours = length - length % _4
    for d in range(_0, fours, _4):
        s0 += np.float64(a[i, at + d]) * np.float64(b[j, of + d])
        s1 += np.float64(a[i, at + d + _1]) * np.float64(b[j, of + d + _1])
        s2 += np.float64(a[i, at + d + _2]) * np.float64(b[j, of + d + _2])
        s3 += np.float64(a[i, at + d + _3]) * np.float64(b[j, of + d + _3])
    for d in range(fours, length):
        s0 += np.float64(a[i, at + d]) * np.float64(b[j, of + d])
    return (s0 + s1) + (s2 + s3)


@numba.njit(types.void(_Table, types.int64[::1], _Table, _Table, _Table), cache=True)
def _predict(offset, slots, x, mean, out):  # type: ignore[no-untyped-def]
    width = np.uint64(x.shape[1])
    for row in range(offset.shape[0]):
        i, slot = np.uint64(row), np.uint64(slots[row])
        for k in range(offset.shape[1]):
            out[i, k] = np.float64(offset[i, k]) + _dot(mean, slot, np.uint64(k) * width, x, i, _0, width)


@numba.njit
def _shrink(x, i, begin, size, limit):  # type: ignore[no-untyped-def]
    """Limit the numbers of a feature, and return the factor by which their vector is then scaled to the same limit."""
    for d in range(begin, begin + size):
        x[i, d] = limits.counted(x[i, d], limit[0, d])
    length = math.sqrt(_dot(x, i, begin, x, i, begin, size))
    return np.float32(1.0) if length <= limit[0, begin] else limit[0, begin] / np.float32(length)


@numba.njit
def _resize(mean, touched, precision, begin, size, outputs, forgotten, prior, most):  # type: ignore[no-untyped-def]
    """Adapt every entity to another typical size of a feature: bound its |m|², or forget it."""
    width = np.uint64(precision.shape[1]) // np.uint64(outputs)
    for row in range(precision.shape[0]):
        for k in range(outputs):
            slot, at = np.uint64(row), np.uint64(k) * width + begin
            if precision[slot, at] > np.float32(0.0):
                shrinkage = np.float32(bounded.shrinkage(_dot(mean, slot, at, mean, slot, at, size), most))
                for d in range(at, at + size):
                    precision[slot, d] = prior if forgotten else precision[slot, d]
                    mean[slot, d] *= np.float32(0.0) if forgotten else shrinkage
                touched[slot] |= forgotten or shrinkage != np.float32(1.0)


@numba.njit(
    types.void(
        *(_Table, _Floats, _Floats, types.int64[::1], _Table, _Table, types.boolean[::1], _Table, _Sums, _Sums),
        *(float64[:, ::1], _Table, _Sums, types.int64[::1], _Terms, KERNELS, _Table),
    ),
    cache=True,
)
def _learn(  # type: ignore[no-untyped-def]
    offset, label, weight, slots, x, mean, touched, precision, square, present, window, limit, sizes, ends, terms, loss, out
):
    variance, forget, clip, radius = terms
    keep, lose, width, outputs = np.float32(forget), np.float32(1.0 - forget), np.uint64(x.shape[1]), offset.shape[1]
    raw, gradient, curvature, reach = np.empty(outputs), np.empty(outputs), np.empty(outputs), np.empty(outputs)
    lengths, shrinks = np.empty(ends.shape[0]), np.empty(ends.shape[0], np.float32)
    for row in range(offset.shape[0]):
        i, slot = np.uint64(row), np.uint64(slots[row])
        # square[0] counts rows, square[1 + f] is the sum of |x|² of feature f, and present[f] counts its rows with x != 0.
        # Feature f ends before column ends[f].
        begin, finite = _0, True
        for f in range(ends.shape[0]):
            size = np.uint64(ends[f]) - begin
            lengths[f], shrinks[f] = _dot(x, i, begin, x, i, begin, size), 1.0
            if not lengths[f] <= np.float64(limit[0, begin]) ** 2:
                finite &= lengths[f] < math.inf
                shrinks[f] = _shrink(x, i, begin, size, limit)
            begin += size
        for k in range(outputs):
            raw[k] = np.float64(offset[i, k]) + _dot(mean, slot, np.uint64(k) * width, x, i, _0, width)
            out[i, k] = raw[k]
            reach[k] = 0.0
        y, w = np.float64(label[i]), np.float64(weight[i])
        if not (finite and bounded.is_learned(raw, y, w)):
            continue
        loss.derivatives(raw, y, w, gradient, curvature)
        clipped = bounded.largest(gradient) > clip
        if clipped:
            loss.derivatives(raw, y, 1.0, gradient, curvature)
            loss.derivatives(raw, y, clip / bounded.largest(gradient), gradient, curvature)
        square[0] += 1.0
        begin = _0
        for f in range(ends.shape[0]):
            size = np.uint64(ends[f]) - begin
            usual, typical = True, limits.typical(square[1 + f], present[f])
            if lengths[f] > 0.0:
                present[f] += 1.0
                usual = limits.is_usual(lengths[f], present[f], window, f)
                if usual:
                    square[1 + f] += lengths[f]
                else:
                    square[1 + f] = limits.unusual(square[1 + f], present[f], lengths[f], window, f, limit, begin, begin + size)
                    shrinks[f] = _shrink(x, i, begin, size, limit)
                typical = limits.typical(square[1 + f], present[f])
            prior = np.float32(min(max(square[1 + f] / square[0], limits.LEAST) / variance, _CERTAIN))
            if not (usual or sizes[f] / 4.0 <= typical <= sizes[f] * 4.0):
                if sizes[f] > 0.0:
                    jumped = not sizes[f] / 16.0 <= typical <= sizes[f] * 16.0
                    _resize(mean, touched, precision, begin, size, outputs, jumped, prior, radius / math.sqrt(typical))
                sizes[f] = typical
            # A clipped step is at most the prior deviation.
            back, step = lose * prior, np.float32(math.sqrt(variance / typical) if clipped else math.inf)
            for k in range(outputs):
                at, g, h = np.uint64(k) * width + begin, np.float32(gradient[k]), np.float32(curvature[k])
                for d in range(_0, size):
                    v, belief = x[i, begin + d] * shrinks[f], precision[slot, at + d]
                    was = belief if belief > np.float32(0.0) else prior
                    now = min(keep * was + back + h * v * v, _CERTAIN)
                    precision[slot, at + d] = now
                    mean[slot, at + d] -= bounded.within(g * v / now, step)
                reach[k] += typical * _dot(mean, slot, at, mean, slot, at, size)
            begin += size
        for k in range(outputs):
            shrinkage = np.float32(bounded.shrinkage(reach[k], radius))
            if shrinkage != np.float32(1.0):
                for d in range(np.uint64(k) * width, np.uint64(k + 1) * width):
                    # Coefficients that overflowed have no direction: they return to 0.
                    mean[slot, d] = mean[slot, d] * shrinkage if shrinkage > np.float32(0.0) else np.float32(0.0)
        touched[slot] = True


class Entity(Correction):
    """Gives each entity e (a user, an item, …) its own small linear model: raw = offset + m[e]·x.

    Parameters
    ----------
    key
        The id column (int64) of the entity, or a tuple of several for their cross.
    on
        The features x: float32 columns, taps, or vector lookups, one or a list. Without any, an entity has an intercept alone.
    intercept
        Whether x includes a constant 1.
    variance
        The prior variance of each feature's contribution m·x, in squared raw outputs, whatever the scale of the feature. Raise
        it if entities differ much from the base, lower it if they have few rows and noisy labels.
    forget
        The share of an entity's evidence that each of its own examples keeps, above 0 and at most 1: 1 - 1/n remembers about n
        of them. Lower it if tastes change, as to 0.98; 1.0 weighs all examples equally.
    slots
        The rows of the table, 1 to 2**24. Entities are hashed into them, so those that share a slot share a model:
        with four slots for each entity, one in five. A row takes 8 bytes for each number in x and each output.
    offset
        The feature of a row that holds the base's raw output, for `learn_one` and `predict_one`; None if rows have none, and
        then each offset is 0. A service ignores it.
    clip
        The largest gradient of one example. With log loss the gradient is at most the example's weight, so 10.0 limits only
        heavy examples. Raise it if weights above 10 must count in full.
    radius
        The bound on an entity's coefficients, in raw outputs at features of typical size. Lower it to limit what poisoned
        feedback can do; infinity means no bound.

    Notes
    -----
    Each coefficient has a Gaussian belief of mean m and precision λ, moved by one Newton step for each example: λ ← γλ +
    (1 - γ)λ₀ + hx² and m ← m - gx/λ, with g and h the gradient and the curvature of the weighted loss and γ = `forget`. With
    several outputs, each has its own coefficients. λ₀ = E|x|² / `variance`, where E|x|² is the running mean of the feature's
    squared length: the prior does not depend on the feature's scale (a g-prior, Zellner 1986).

    The effect of one example is bounded (`corrections.bounded`). With T the mean of a feature's nonzero |x|², Σ T·|m|² over the
    features is at most `radius`² after an update: m·x is at most `radius`·√(Σ |x|²/T).

    Sources: Ramanath et al. 2021, "Lambda Learner" (arXiv 2010.05154); Zhang et al. 2016, "GLMix" (KDD).

    Examples
    --------
    >>> e = Entity("user", offset=None)
    >>> for _ in range(50):
    ...     e.learn_one({"user": 7}, True)
    >>> e.predict_proba_one({"user": 7})[True] > 0.8, e.predict_proba_one({"user": 8})[True]
    (True, 0.5)
    """

    since = limits.LIMIT, limits.WINDOW, "sizes"

    def __init__(
        self,
        key: str | tuple[str, ...],
        on: str | Lookup | Sequence[str | Lookup] = (),
        intercept: bool = True,
        variance: float = 0.5,
        forget: float = 1.0,
        slots: int = 2**18,
        offset: str | None = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        self.key, self.on, self.intercept = key, listed(on), flag("intercept", intercept)
        for name in self._keys:
            column("key", name, 'Entity("user_id"), or of a cross Entity(("user_id", "item_id"))')
        if not self._keys or not (intercept or self.on):
            lacks = "neither an intercept nor features; name some with on=[...]" if self._keys else "no key; name an id column"
            raise ConfigurationError(f"Entity({key!r}) has {lacks}")
        self.variance = positive("variance", variance)
        self.forget = share("forget", forget)
        self.slots, self.offset = checked.slots(slots), offset_key(offset)
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"key": "age_of_domain", "on": ("ip_in_url",), "slots": 64}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._keys, *(f.key for f in self.on if isinstance(f, Lookup)))))

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(name for name in self.on if isinstance(name, str))

    @property
    def _keys(self) -> tuple[str, ...]:
        return tuple(self.key) if isinstance(self.key, tuple | list) else (self.key,)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._keys, *(name for f in self.on for name in read_by(f)))))

    def bind(self, schema: Schema) -> None:
        what = f"Entity({self.key!r})"
        for name in self._keys:
            schema.need(name, what, "id")
        self._hash = Hash.draw(f"entity/{'*'.join(self._keys)}", len(self._keys), self.slots)
        self._dense = Dense(what, self.on, schema, self.intercept)
        shape = self.slots, self.loss.outputs * self._dense.width
        self.served = {"mean": Table(np.zeros(shape, np.float32)), limits.LIMIT: limits.table(self._dense.width)}
        self.learner = {
            "precision": np.zeros(shape, np.float32),
            "square": np.zeros(1 + len(self._dense.ends)),
            "present": np.zeros(len(self._dense.ends)),
            limits.WINDOW: limits.window(len(self._dense.ends)),
            "sizes": np.zeros(len(self._dense.ends)),
        }
        super().bind(schema)

    def inflate(self, keep: float) -> None:
        square, begin = self.learner["square"], 0
        precision = self.learner["precision"].reshape(self.slots, -1, self._dense.width)
        for k, end in enumerate(self._dense.ends.tolist()):
            prior = min(max(square[1 + k] / max(square[0], 1.0), limits.LEAST) / self.variance, float(_CERTAIN))
            known = precision[..., begin:end]
            # A precision of 0 marks an entity without examples, and stays 0.
            known[known > 0] = np.float32(keep) * known[known > 0] + np.float32((1.0 - keep) * prior)
            begin = end

    def _design(self, columns: Columns, rows: int) -> tuple[Any, Floats]:
        return self._hash(*(columns[name] for name in self._keys)), self._dense.matrix(columns, rows)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        slots, x = self._design(columns, len(offset))
        _predict(offset, slots, limits.limited(x, self.served[limits.LIMIT]), self.served["mean"].values, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = self.room(columns, offset, label, weight)
        slots, x = self._design(columns, len(offset))
        mean, limit, learner = *self.served.values(), self.learner
        terms = tuple(map(float, (self.variance, self.forget, *bounded.finite(self.clip, self.radius))))
        _learn(
            offset, label, weight, slots, x, mean.values, mean.touched, learner["precision"], learner["square"],
            learner["present"], learner[limits.WINDOW], limit.values, learner["sizes"], self._dense.ends, terms,
            self.loss.kernels, out,
        )  # fmt: skip
        limit.touched[:] |= len(offset) > 0
        return out

    def restore(self) -> None:
        window, learner = self.learner[limits.WINDOW], self.learner
        limits.restore(self.served[limits.LIMIT], window, learner["square"][1:], learner["present"], self._dense.ends)

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        mean = nodes.table("mean", self.served["mean"].values)
        ids = [nodes.cast(columns[name], TensorProto.INT64) for name in self._keys]
        rows = nodes.add("Gather", mean, self._hash.export(nodes, *ids))
        width = self._dense.width
        matrix = limits.export(
            nodes, self._dense.export(nodes, columns, offset), nodes.table(limits.LIMIT, self.served[limits.LIMIT].values)
        )
        by_output = nodes.add("Reshape", rows, nodes.constant([-1, self.loss.outputs, width], np.int64))
        product = nodes.add("Mul", by_output, nodes.add("Reshape", matrix, nodes.constant([-1, 1, width], np.int64)))
        return nodes.add("Add", offset, nodes.add("ReduceSum", product, nodes.constant([2], np.int64), keepdims=0))

    def coefficients(self) -> dict[str, Coefficients]:
        widths = np.diff(self._dense.ends, prepend=0)
        # Each element of a vector counts as an equal part of its length.
        sizes = np.repeat(root_mean(self.learner["square"][1:], self.learner["present"]) / np.sqrt(widths), widths)
        names, outputs = by_output(self._dense.names, self.loss.outputs), self.loss.outputs
        return {"mean": Coefficients(names, self.served["mean"].values, np.tile(sizes, outputs), True, self._find)}

    def _find(self, ids: Ids) -> list[At]:
        if not all(name in ids for name in self._keys):
            return []
        slot = self._hash(*(np.array([ids[name]], np.int64) for name in self._keys))
        return [At(int(slot[0]), None, spelled(ids, self._keys))]

    def occupancy(self) -> dict[str, float]:
        return {"mean": float((self.learner["precision"] != 0).any(axis=1).mean())}
