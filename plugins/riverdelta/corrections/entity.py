"""Entity: a small model of each user, item or other entity, learned from that entity's own rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from onnx import TensorProto

from riverdelta.core.checked import bound, positive, share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.coefficients import At, Coefficients, Ids, root_mean, spelled
from riverdelta.corrections.dense import Dense
from riverdelta.corrections.hashing import Hash
from riverdelta.corrections.lookup import Lookup

_SIGNATURE = (
    "void(float32[:, ::1], float32[::1], float32[::1], int64[::1], float32[:, ::1], float32[:, ::1], boolean[::1],"
    " float32[:, ::1], float64[::1], float64[::1], int64[::1], float64, float64, float64, float64, float32[:, ::1])"
)
#: In learning a feature is at most 4 times its typical length (16 times its mean square), that being 1e-6 or more.
_TAIL, _LEAST = 16.0, 1e-12
#: The largest precision: float32 ends at 3e38.
_CERTAIN = np.float32(1e36)
#: Columns are counted unsigned, which spares a test for negative ones at each element: a third of the time.
_0, _1, _2, _3, _4 = (np.uint64(n) for n in range(5))


@numba.njit(inline="always")
def _dot(a, i, b, j, begin, end):  # type: ignore[no-untyped-def]
    """a[i]·b[j] over the columns [begin, end): four sums side by side, in an order that is fixed, quick without fast math."""
    s0 = s1 = s2 = s3 = 0.0
    whole = end - (end - begin) % _4
    for d in range(begin, whole, _4):
        s0 += np.float64(a[i, d]) * np.float64(b[j, d])
        s1 += np.float64(a[i, d + _1]) * np.float64(b[j, d + _1])
        s2 += np.float64(a[i, d + _2]) * np.float64(b[j, d + _2])
        s3 += np.float64(a[i, d + _3]) * np.float64(b[j, d + _3])
    for d in range(whole, end):
        s0 += np.float64(a[i, d]) * np.float64(b[j, d])
    return (s0 + s1) + (s2 + s3)


@numba.njit(inline="always")
def _project(mean, slot, factor):  # type: ignore[no-untyped-def]
    for d in range(_0, np.uint64(mean.shape[1])):
        # A row that overflowed has no direction: it goes back to the base.
        mean[slot, d] = mean[slot, d] * np.float32(factor) if factor > 0.0 else np.float32(0.0)


@numba.njit("void(float32[:, ::1], int64[::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])", cache=True)
def _predict(offset, slots, x, mean, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        out[i, 0] = np.float64(offset[i, 0]) + _dot(mean, np.uint64(slots[i]), x, np.uint64(i), _0, np.uint64(x.shape[1]))


@numba.njit(_SIGNATURE, cache=True)
def _learn(  # type: ignore[no-untyped-def]
    offset,
    label,
    weight,
    slots,
    x,
    mean,
    touched,
    precision,
    square,
    present,
    ends,
    variance,
    forget,
    clip,
    radius,
    out,
):
    keep, lose, width = np.float32(forget), np.float32(1.0 - forget), np.uint64(x.shape[1])
    for row in range(offset.shape[0]):
        i, slot = np.uint64(row), np.uint64(slots[row])
        z = np.float64(offset[i, 0]) + _dot(mean, slot, x, i, _0, width)
        out[i, 0] = z
        w = np.float64(weight[i])
        # Finite only where logit, weight and label are: what is not would stay in the state for good.
        if w == 0.0 or not abs(z + w * label[i]) < math.inf:
            continue
        p = 1.0 / (1.0 + math.exp(-z))
        if abs(w * (label[i] - p)) > clip:
            w = clip / abs(label[i] - p)
        h = np.float32(w * p * (1.0 - p))
        g = np.float32(w * (label[i] - p))
        # square[0] counts rows; square[1 + k] is the running sum of |x|² of feature k, which ends before column ends[k], and
        # present[k] counts the rows in which it is not 0.
        square[0] += 1.0
        begin, reach = _0, 0.0
        for k in range(ends.shape[0]):
            end = np.uint64(ends[k])
            length, shrink = _dot(x, i, x, i, begin, end), np.float32(1.0)
            if length * present[k] > _TAIL * max(square[1 + k], _LEAST * present[k]):
                limit = _TAIL * max(square[1 + k] / present[k], _LEAST)
                length, shrink = limit, np.float32(math.sqrt(limit / length))
            if length > 0.0:
                square[1 + k] += length
                present[k] += 1.0
            prior = np.float32(min(max(square[1 + k] / square[0], _LEAST) / variance, _CERTAIN))
            back = lose * prior
            for d in range(begin, end):
                v, belief = x[i, d] * shrink, precision[slot, d]
                was = belief if belief > np.float32(0.0) else prior
                now = min(keep * was + back + h * v * v, _CERTAIN)
                precision[slot, d] = now
                mean[slot, d] += g * v / now
            reach += max(square[1 + k] / max(present[k], 1.0), _LEAST) * _dot(mean, slot, mean, slot, begin, end)
            begin = end
        if not reach <= radius * radius:
            _project(mean, slot, radius / math.sqrt(reach))
        touched[slot] = True


class Entity(Correction):
    """logit = offset + m[e]·x: a random effect of entity e over an intercept, vectors and scalars.

    Each coefficient has a Gaussian belief of mean m and precision λ, moved by one Newton step per example of weight w:
    λ ← γλ + (1 - γ)λ₀ + w·p(1 - p)x² and m ← m + w·(y - p)x/λ, with p = σ(logit), γ = `forget`.

    λ₀ = E|x|² / `variance`, E|x|² being the running mean over all rows of the feature's squared length, so that each
    feature's contribution m·x starts with variance `variance` (in squared logits), whatever the feature's scale (a
    g-prior, Zellner 1986). Entities are hashed into `slots` rows.

    What one example can do is bounded, with T the mean of |x|² over the rows in which the feature is not 0:

    - its weight counts as at most `clip` / |y - p|, in the gradient and the curvature alike: a clipped step is that of a
      lighter example, so never longer than the unclipped one;
    - a feature longer than 4√T is learned, and counted in T and E|x|², as one of length 4√T;
    - after an update Σ over features T·|m|² <= `radius`² (in squared logits, whatever a feature's scale): m·x is at most
      `radius`·√(Σ |x|²/T), so no example moves a row's logit by more than twice that.

    A row of weight 0, or whose logit is not finite, is predicted and not learned.

    `key` is an id column, or several for a cross; `on` names float32 columns, taps, or vector lookups.

    References: Ramanath et al. 2021, "Lambda Learner" (arXiv 2010.05154); Zhang et al. 2016, "GLMix" (KDD).

    >>> e = Entity("user")
    >>> for _ in range(50):
    ...     e.learn_one({"user": 7, "offset": 0.0}, True)
    >>> e.predict_proba_one({"user": 7})[True] > 0.8, e.predict_proba_one({"user": 8})[True]
    (True, 0.5)
    """

    def __init__(
        self,
        key: str | tuple[str, ...],
        on: Sequence[str | Lookup] = (),
        intercept: bool = True,
        variance: float = 0.5,
        forget: float = 1.0,
        slots: int = 2**18,
        offset: str = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        if not intercept and not on:
            raise ConfigurationError(f"Entity({key!r}) has neither an intercept nor features; name some with on=[...]")
        self.key, self.on, self.intercept = key, list(on), intercept  # River cannot clone an empty tuple
        self.variance = positive("variance", variance)
        self.forget = share("forget", forget)
        self.slots, self.offset = slots, offset
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"key": "age_of_domain", "on": ("ip_in_url",), "slots": 64}

    @property
    def keys(self) -> tuple[str, ...]:
        lookups = (f.key for f in self.on if isinstance(f, Lookup))
        return tuple(dict.fromkeys((*self._keys, *lookups)))

    @property
    def _keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def reads(self) -> tuple[str, ...]:
        features = (f.key if isinstance(f, Lookup) else f for f in self.on)
        return tuple(dict.fromkeys((*self._keys, *features)))

    def bind(self, schema: Schema) -> None:
        what = f"Entity({self.key!r})"
        for name in self._keys:
            if schema.need(name, what).kind != "id":
                raise ConfigurationError(f"{what} is keyed by {name!r}, which is {schema[name]}; expected an id (int64)")
        self._hash = Hash.draw(f"entity/{'*'.join(self._keys)}", len(self._keys), self.slots)
        self._dense = Dense(what, self.on, schema, self.intercept)
        self.served = {"mean": Table(np.zeros((self.slots, self._dense.width), np.float32))}
        self.learner = {
            "precision": np.zeros((self.slots, self._dense.width), np.float32),
            "square": np.zeros(1 + len(self._dense.ends)),
            "present": np.zeros(len(self._dense.ends)),
        }

    def widen(self, keep: float) -> None:
        precision, square, begin = self.learner["precision"], self.learner["square"], 0
        for k, end in enumerate(self._dense.ends.tolist()):
            prior = min(max(square[1 + k] / max(square[0], 1.0), _LEAST) / self.variance, float(_CERTAIN))
            known = precision[:, begin:end]
            # A precision of 0 is that of a row never met, and stays so.
            known[known > 0] = np.float32(keep) * known[known > 0] + np.float32((1.0 - keep) * prior)
            begin = end

    def _design(self, columns: Columns, rows: int) -> tuple[Any, Floats]:
        return self._hash(*(columns[name] for name in self._keys)), self._dense.matrix(columns, rows)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = np.empty_like(offset)
        _predict(offset, *self._design(columns, len(offset)), self.served["mean"].values, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = np.empty_like(offset)
        slots, x = self._design(columns, len(offset))
        mean, learner = self.served["mean"], self.learner
        _learn(
            offset, label, weight, slots, x, mean.values, mean.touched, learner["precision"], learner["square"],
            learner["present"], self._dense.ends, self.variance, self.forget, self.clip, self.radius, out,
        )  # fmt: skip
        return out

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        mean = nodes.table("mean", self.served["mean"].values)
        ids = [nodes.cast(columns[name], TensorProto.INT64) for name in self._keys]
        rows = nodes.add("Gather", mean, self._hash.export(nodes, *ids))
        product = nodes.add("Mul", rows, self._dense.export(nodes, columns, offset))
        return nodes.add("Add", offset, nodes.add("ReduceSum", product, nodes.constant([1], np.int64), keepdims=1))

    def coefficients(self) -> dict[str, Coefficients]:
        widths = np.diff(self._dense.ends, prepend=0)
        # Of a vector's length, each of its elements has an equal part.
        sizes = np.repeat(root_mean(self.learner["square"][1:], self.learner["present"]) / np.sqrt(widths), widths)
        return {"mean": Coefficients(tuple(self._dense.names), self.served["mean"].values, sizes, True, self._find)}

    def _find(self, ids: Ids) -> list[At]:
        if not all(name in ids for name in self._keys):
            return []
        slot = self._hash(*(np.array([ids[name]], np.int64) for name in self._keys))
        return [At(int(slot[0]), None, spelled(ids, self._keys))]

    def occupancy(self) -> dict[str, float]:
        return {"mean": float((self.learner["precision"] != 0).any(axis=1).mean())}
