"""Linear: a sparse linear model over hashed ids, crosses, bags, scalars and vectors."""

from __future__ import annotations

import math

import numba
import numpy as np

from riverdelta.core.checked import bound, not_negative, positive
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.coefficients import Coefficients, root_mean
from riverdelta.corrections.dense import Dense
from riverdelta.corrections.hashed import Hashed, Sparse
from riverdelta.corrections.lookup import Lookup

_METHODS = ("adagrad", "ftrl")
_SIGNATURE = (
    "void(float32[:, ::1], float32[::1], float32[::1], int64[:, ::1], float32[:, ::1], float32[:, ::1],"
    " float32[:, ::1], boolean[::1], float64[:, ::1], float32[:, ::1], float64[:, ::1], float64[:, ::1],"
    " boolean, float64, float64, float64, float64, float64, float64, float32[:, ::1])"
)
#: In learning a float counts as at most 4 times its typical size (16 times its mean square), that being 1e-6 or more.
_TAIL, _LEAST = 16.0, 1e-12
#: A float nearer to 0 counts as 0, so that no coefficient overflows.
_TINY = 1e-30


@numba.njit(inline="always")
def _logit(slots, values, x, ids, dense, i, o):  # type: ignore[no-untyped-def]
    residual = 0.0
    for s in range(slots.shape[1]):
        residual += np.float64(ids[slots[i, s], 0]) * np.float64(values[i, s])
    for d in range(x.shape[1]):
        residual += np.float64(dense[d, 0]) * np.float64(x[i, d])
    return o + residual


@numba.njit(inline="always")
def _step(state, row, coefficient, g, ftrl, rate, beta, l1, l2, radius):  # type: ignore[no-untyped-def]
    """Move one coordinate by gradient g; state[row] is (sum of squares, FTRL's z)."""
    squares = state[row, 0] + g * g
    if ftrl:
        sigma = (math.sqrt(squares) - math.sqrt(state[row, 0])) / rate
        z = state[row, 1] + g - sigma * coefficient
        if abs(z) <= l1:
            coefficient = 0.0
        else:
            divisor = (beta + math.sqrt(squares)) / rate + l2
            coefficient = -(z - math.copysign(l1, z)) / divisor
            if abs(coefficient) > radius:
                # z goes back too, to where it gives the bound: else an attack would pile up in it and outlast itself.
                coefficient = math.copysign(radius, coefficient)
                z = -coefficient * divisor - math.copysign(l1, coefficient)
        state[row, 1] = z
    elif squares > 0.0:
        coefficient -= rate * (g / math.sqrt(squares) + l2 * coefficient)
        if abs(coefficient) > radius:
            coefficient = math.copysign(radius, coefficient)
    state[row, 0] = squares
    return coefficient


@numba.njit(
    "void(float32[:, ::1], int64[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1])",
    cache=True,
)
def _predict(offset, slots, values, x, ids, dense, out):  # type: ignore[no-untyped-def]
    for i in range(offset.shape[0]):
        out[i, 0] = _logit(slots, values, x, ids, dense, i, np.float64(offset[i, 0]))


@numba.njit(_SIGNATURE, cache=True)
def _learn(  # type: ignore[no-untyped-def]
    offset,
    label,
    weight,
    slots,
    values,
    x,
    ids,
    touched,
    id_state,
    dense,
    dense_state,
    scale,
    ftrl,
    rate,
    beta,
    l1,
    l2,
    clip,
    radius,
    out,
):
    for i in range(offset.shape[0]):
        z = _logit(slots, values, x, ids, dense, i, np.float64(offset[i, 0]))
        out[i, 0] = z
        # Finite only where logit, weight and label are: what is not would stay in the state for good.
        if weight[i] == 0.0 or not abs(z + weight[i] * label[i]) < math.inf:
            continue
        g = min(max(weight[i] * (1.0 / (1.0 + math.exp(-z)) - label[i]), -clip), clip)
        for s in range(slots.shape[1]):
            v = np.float64(values[i, s])
            if v != 0.0:
                slot = slots[i, s]
                ids[slot, 0] = _step(id_state, slot, np.float64(ids[slot, 0]), g * v, ftrl, rate, beta, l1, l2, radius)
                touched[slot] = True
        for d in range(x.shape[1]):
            v = np.float64(x[i, d])
            if abs(v) > _TINY:
                # scale[d] is (largest |x|, Σx², rows in which it is not 0), of x as it is learned.
                if v * v * scale[d, 2] > _TAIL * max(scale[d, 1], _LEAST * scale[d, 2]):
                    v = np.float64(math.copysign(math.sqrt(_TAIL * max(scale[d, 1] / scale[d, 2], _LEAST)), v))
                scale[d, 1] += v * v
                scale[d, 2] += 1.0
                # dense_state[d, 2] is the coefficient of x / scale; a new largest |x| shrinks it, and FTRL's z with it.
                if abs(v) > scale[d, 0]:
                    dense_state[d, 2] *= scale[d, 0] / abs(v)
                    dense_state[d, 1] *= scale[d, 0] / abs(v)
                    scale[d, 0] = abs(v)
                scaled = _step(dense_state, d, dense_state[d, 2], g * v / scale[d, 0], ftrl, rate, beta, l1, l2, radius)
                dense_state[d, 2] = scaled
                dense[d, 0] = scaled / scale[d, 0]


class Linear(Correction):
    """logit = offset + Σ coefficient·value over hashed ids and dense features, learned one example at a time.

    With g = w·(σ(logit) - y)·value per coordinate and example weight w, `method="adagrad"` takes
    c ← c - rate·(g / √Σg² + l2·c); `method="ftrl"` keeps z and n = Σg² and serves
    c = -(z - sign(z)·l1) / ((beta + √n) / rate + l2), or 0 while |z| <= l1.

    A feature is an id column, a tuple of id columns (their cross), a float32 scalar or vector, or a `Lookup` (of vectors or
    of bags of ids). Ids share `slots` rows by hashing. Floats are divided by the largest |x| seen so far, so that the step
    does not depend on their scale.

    What one example can do is bounded: w·(σ(logit) - y) is clipped to ±`clip`; a float beyond 4√T, T being the mean of its
    squares other than 0, is learned as 4√T; and after an update no id's coefficient, and no float's times its largest |x|,
    is beyond ±`radius` logits. FTRL's z is then set to what gives the bound. A row of weight 0, or
    whose logit is not finite, is predicted and not learned.

    References: Duchi, Hazan, Singer 2011 (AdaGrad, diagonal); McMahan et al. 2013, "Ad Click Prediction" (FTRL-Proximal);
    Ross, Mineiro, Langford 2013, arXiv 1305.6646 (scale); Weinberger et al. 2009, arXiv 0902.2206 (hashing).

    >>> m = Linear("item", ("user", "item"), "hour", slots=1024)
    >>> for _ in range(100):
    ...     m.learn_one({"user": 1, "item": 5, "hour": 3.0, "offset": 0.0}, True)
    >>> m.predict_proba_one({"user": 1, "item": 5, "hour": 3.0})[True] > 0.9
    True
    """

    def __init__(
        self,
        *features: Sparse,
        method: str = "adagrad",
        rate: float = 0.1,
        beta: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        intercept: bool = False,
        slots: int = 2**18,
        offset: str = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        if not features and not intercept:
            raise ConfigurationError('Linear() has no features; name columns, as in Linear("user_id", "hour")')
        if method not in _METHODS:
            raise ConfigurationError(f"method is {method!r}; expected one of {', '.join(_METHODS)}")
        if method == "adagrad" and l1:
            raise ConfigurationError(f'l1 is {l1} and method="adagrad" has no l1; use method="ftrl"')
        self.features, self.method, self.intercept = features, method, intercept
        self.rate, self.beta = positive("rate", rate), not_negative("beta", beta)
        self.l1, self.l2 = not_negative("l1", l1), not_negative("l2", l2)
        self.slots, self.offset = slots, offset
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"intercept": True}

    @property
    def reads(self) -> tuple[str, ...]:
        names: list[str] = []
        for f in self.features:
            names += [f.key] if isinstance(f, Lookup) else [f] if isinstance(f, str) else f
        return tuple(dict.fromkeys(names))

    @property
    def keys(self) -> tuple[str, ...]:
        crossed = [name for f in self.features if isinstance(f, tuple) for name in f]
        return tuple(dict.fromkeys([*crossed, *(f.key for f in self.features if isinstance(f, Lookup))]))

    def bind(self, schema: Schema) -> None:
        what = f"Linear({', '.join(map(repr, self.features))})"
        sparse: list[Sparse] = []
        dense: list[str | Lookup] = []
        for f in self.features:
            if isinstance(f, tuple) or (isinstance(f, Lookup) and f.kind == "bag"):
                sparse.append(f)
            elif isinstance(f, str) and schema.need(f, what).kind == "id":
                sparse.append(f)
            else:
                dense.append(f)
        self._hashed = Hashed("linear", sparse, schema, self.slots)
        self._dense = Dense(what, dense, schema, self.intercept)
        slots, width = self.slots if sparse else 0, self._dense.width
        self.served = {"ids": Table(np.zeros((slots, 1))), "dense": Table(np.zeros((width, 1)))}
        self.learner = {
            "ids": np.zeros((slots, 2)),
            "dense": np.zeros((width, 3)),
            "scale": np.zeros((width, 3)),
        }

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = np.empty_like(offset)
        rows = len(offset)
        tables = (self.served["ids"].values, self.served["dense"].values)
        _predict(offset, *self._hashed.slots(columns, rows), self._dense.matrix(columns, rows), *tables, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        out = np.empty_like(offset)
        rows = len(offset)
        slots, values = self._hashed.slots(columns, rows)
        ids, dense, learner = self.served["ids"], self.served["dense"], self.learner
        _learn(
            offset, label, weight, slots, values, self._dense.matrix(columns, rows), ids.values, ids.touched,
            learner["ids"], dense.values, learner["dense"], learner["scale"],
            self.method == "ftrl", self.rate, self.beta, self.l1, self.l2, self.clip, self.radius, out,
        )  # fmt: skip
        dense.touched[:] |= rows > 0
        return out

    def widen(self, keep: float) -> None:
        served, learner = self.served, self.learner
        for state, coefficient in ((learner["ids"], served["ids"].values[:, 0]), (learner["dense"], learner["dense"][:, 2:].T)):
            state[:, 0] *= keep
            c = np.asarray(coefficient, np.float64).reshape(-1)
            if self.method == "ftrl":
                # z goes along, so that the coefficient stays where it is.
                divisor = (self.beta + np.sqrt(state[:, 0])) / self.rate + self.l2
                state[:, 1] = np.where(c != 0, -c * divisor - np.copysign(self.l1, c), keep * state[:, 1])

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        logit = offset
        if self._hashed.features:
            ids = nodes.table("ids", self.served["ids"].values)
            logit = nodes.add("Add", logit, self._hashed.export(nodes, columns, ids))
        if self._dense.width:
            dense = nodes.table("dense", self.served["dense"].values)
            matrix = self._dense.export(nodes, columns, offset)
            logit = nodes.add("Add", logit, nodes.add("MatMul", matrix, dense))
        return logit

    def coefficients(self) -> dict[str, Coefficients]:
        found, ids, scale = {}, self.served["ids"].values, self.learner["scale"]
        if self._hashed.features:
            found["ids"] = Coefficients((" | ".join(self._hashed.titles),), ids, np.ones(1), True, self._hashed.find)
        if self._dense.width:
            row, sizes = self.served["dense"].values.T, root_mean(scale[:, 1], scale[:, 2])
            found["dense"] = Coefficients(tuple(self._dense.names), row, sizes)
        return found

    def occupancy(self) -> dict[str, float]:
        return {"ids": float((self.learner["ids"][:, 0] != 0).mean())} if self._hashed.features else {}
