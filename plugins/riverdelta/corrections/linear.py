"""Linear: a sparse linear model of hashed ids, crosses, bags, scalars and vectors."""

from __future__ import annotations

import numpy as np

from riverdelta.core import checked
from riverdelta.core.checked import bound, column, flag, not_negative, positive
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import bounded, evidence, limits, linear_kernels
from riverdelta.corrections.base import Correction
from riverdelta.corrections.coefficients import Coefficients, by_output, root_mean
from riverdelta.corrections.dense import Dense, Feature, times_of
from riverdelta.corrections.hashed import Hashed, Sparse, read_by
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.project import Project
from riverdelta.corrections.rows import offset_key
from riverdelta.corrections.seasons import Seasons
from riverdelta.corrections.table import Table

_METHODS = ("adagrad", "ftrl")


class Linear(Correction):
    """Learns one weight for each id, cross and number: raw = offset + Σ weight·value.

    Parameters
    ----------
    *features
        Id columns, tuples of id columns (crosses), float32 scalars or vectors, taps, lookups, projections (`Project`) and
        `Seasons`.
    method
        "adagrad", or "ftrl", which with `l1` keeps most weights at exactly 0.
    rate
        The learning rate, in raw outputs for each step. Raise it if the loss is still falling, lower it if it fluctuates.
    beta, l1, l2
        FTRL's damping of the first steps, its L1 penalty, and the L2 penalty of both methods. Raise `l2` if rare ids get too
        large weights.
    intercept
        Whether to learn a constant; not needed after `Calibration`.
    slots
        The rows of the table that ids and crosses share by hashing, 1 to 2**24: with four slots for each of them, one in five
        shares its weight. A row takes 20 bytes for each output.
    offset
        The feature of a row that holds the base's raw output, for `learn_one` and `predict_one`; None if rows have none, and
        then each offset is 0. A service ignores it.
    clip
        The largest gradient of one example; with log loss a gradient is at most the example's weight. For values and counts, in
        units of s (`corrections.evidence`).
    radius
        The bound on a weight, in raw outputs (of values: in units of s); for a number, on its weight times its largest |x|.
        Lower it against poisoning.

    Notes
    -----
    With g the gradient of the weighted loss times the value, "adagrad" steps c ← c - rate·(g / √Σg² + l2·c); "ftrl" keeps z and
    n = Σg² and serves c = -(z - sign(z)·l1) / ((beta + √n) / rate + l2), or 0 while |z| <= l1. Numbers are divided by their
    largest |x| so far, so that a step does not depend on their scale. With several outputs, each has its own weights.

    Sources: Duchi, Hazan, Singer 2011 (AdaGrad, diagonal); McMahan et al. 2013, "Ad Click Prediction" (FTRL-Proximal);
    Ross, Mineiro, Langford 2013, arXiv 1305.6646 (scale); Weinberger et al. 2009, arXiv 0902.2206 (hashing).

    Examples
    --------
    >>> m = Linear("item", ("user", "item"), "hour", slots=1024, offset=None)
    >>> for _ in range(100):
    ...     m.learn_one({"user": 1, "item": 5, "hour": 3.0}, True)
    >>> m.predict_proba_one({"user": 1, "item": 5, "hour": 3.0})[True] > 0.9
    True
    """

    since = limits.LIMIT, limits.WINDOW, *evidence.NAMES

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
        offset: str | None = "offset",
        clip: float = 10.0,
        radius: float = 8.0,
    ) -> None:
        if not features and not intercept:
            raise ConfigurationError('Linear() has no features; name columns, as in Linear("user_id", "hour")')
        for feature in features:
            _check(feature, features)
        if method not in _METHODS:
            raise ConfigurationError(f"method is {method!r}; expected one of {', '.join(_METHODS)}")
        self.features, self.method, self.intercept = features, method, flag("intercept", intercept)
        self.rate, self.beta = positive("rate", rate), not_negative("beta", beta)
        self.l1, self.l2 = not_negative("l1", l1), not_negative("l2", l2)
        if method == "adagrad" and l1:
            raise ConfigurationError(f'l1 is {l1} and method="adagrad" has no l1; use method="ftrl"')
        self.slots, self.offset = checked.slots(slots), offset_key(offset)
        self.clip, self.radius = bound("clip", clip), bound("radius", radius)

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        yield {"intercept": True}

    additive = True

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for f in self.features for name in read_by(f)))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for f in self.features if isinstance(f, tuple | Lookup) for name in read_by(f)))

    @property
    def times(self) -> dict[str, int]:
        return times_of(self.features)

    def bind(self, schema: Schema) -> None:
        what = f"Linear({', '.join(map(repr, self.features))})"
        sparse: list[Sparse] = []
        dense: list[Feature] = []
        for f in self.features:
            if isinstance(f, tuple) or (isinstance(f, Lookup) and f.kind == "bag"):
                sparse.append(f)
            elif isinstance(f, str) and schema.need(f, what).kind == "id":
                sparse.append(f)
            else:
                dense.append(f)
        self._hashed = Hashed("linear", sparse, schema, self.slots)
        self._dense = Dense(what, dense, schema, self.intercept)
        slots, width, outputs = self.slots if sparse else 0, self._dense.width, self.loss.outputs
        self.served = {
            "ids": Table(np.zeros((slots, outputs))),
            "dense": Table(np.zeros((width, outputs))),
            limits.LIMIT: limits.table(width),
        }
        self.learner = {
            "ids": np.zeros((slots, 2 * outputs)),
            "dense": np.zeros((width, 3 * outputs)),
            "scale": np.zeros((width, 3)),
            limits.WINDOW: limits.window(width),
            **evidence.arrays(self.loss),
        }
        super().bind(schema)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        rows = len(offset)
        tables = (self.served["ids"].values, self.served["dense"].values)
        x = limits.limited(self._dense.matrix(columns, rows), self.served[limits.LIMIT])
        linear_kernels.predict(offset, *self._hashed.slots(columns, rows), x, *tables, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        out = self.room(columns, offset, label, weight, group)
        rows = len(offset)
        slots, values = self._hashed.slots(columns, rows)
        ids, dense, limit, learner = *self.served.values(), self.learner
        terms = tuple(map(float, (self.rate, self.beta, self.l1, self.l2, *bounded.finite(self.clip, self.radius))))
        linear_kernels.learn(
            offset, label, weight, self.loss.starts(rows, group, each=True), slots, values, self._dense.matrix(columns, rows),
            ids.values, ids.touched, learner["ids"], dense.values, learner["dense"], learner["scale"], learner[limits.WINDOW],
            limit.values, self.method == "ftrl", terms, evidence.terms(self.loss, learner), self.loss.kernels, out,
        )  # fmt: skip
        for table in (dense, limit):
            table.touched[:] |= rows > 0
        return out

    def restore(self) -> None:
        scale = self.learner["scale"]
        limits.restore(self.served[limits.LIMIT], self.learner[limits.WINDOW], scale[:, 1], scale[:, 2])

    def inflate(self, keep: float) -> None:
        ids, dense = self.learner["ids"], self.learner["dense"]
        served = self.served["ids"].values.astype(np.float64)
        for state, every, coefficients in ((ids, 2, served), (dense, 3, dense[:, 2::3])):
            squares, z = state[:, ::every], state[:, 1::every]
            squares *= keep
            if self.method == "ftrl":
                # z changes with them, so that the coefficient stays the same.
                divisor = (self.beta + np.sqrt(squares)) / self.rate + self.l2
                penalty = self.l1 * evidence.unit(self.loss, self.learner)
                kept = -coefficients * divisor - np.copysign(penalty, coefficients)
                z[:] = np.where(coefficients != 0, kept, keep * z)

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        raw = offset
        if self._hashed.features:
            ids = nodes.table("ids", self.served["ids"].values)
            raw = nodes.add("Add", raw, self._hashed.export(nodes, columns, ids, self.loss.outputs))
        if self._dense.width:
            dense = nodes.table("dense", self.served["dense"].values)
            limit = nodes.table(limits.LIMIT, self.served[limits.LIMIT].values)
            matrix = limits.export(nodes, self._dense.export(nodes, columns, offset), limit)
            raw = nodes.add("Add", raw, nodes.add("MatMul", matrix, dense))
        return raw

    def coefficients(self) -> dict[str, Coefficients]:
        found, scale, outputs = {}, self.learner["scale"], self.loss.outputs
        if self._hashed.features:
            names, ids = by_output((" | ".join(self._hashed.titles),), outputs), self.served["ids"].values
            found["ids"] = Coefficients(names, ids, np.ones(outputs), True, self._hashed.find)
        if self._dense.width:
            row, sizes = self.served["dense"].values.T.reshape(1, -1), root_mean(scale[:, 1], scale[:, 2])
            found["dense"] = Coefficients(by_output(self._dense.names, outputs), row, np.tile(sizes, outputs))
        return found

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        slots, ids = self._hashed.slots_of(name, own, rows), self.served["ids"]
        ids.values[slots], ids.touched[slots], self.learner["ids"][slots] = 0, True, 0
        return len(slots)

    def occupancy(self) -> dict[str, float]:
        return {"ids": float((self.learner["ids"][:, 0] != 0).mean())} if self._hashed.features else {}


def _check(feature: Sparse, features: tuple[Sparse, ...]) -> None:
    if isinstance(feature, list):
        columns = ", ".join(map(repr, feature))
        raise ConfigurationError(
            f"Linear has the list {feature!r} as a feature; write Linear({columns}) for a feature of each column, or "
            f"Linear(({columns})) for their cross"
        )
    if isinstance(feature, Lookup | Project | Seasons):
        return
    for name in feature if isinstance(feature, tuple) and feature else (feature,):
        column("a feature of Linear", name, 'Linear("user_id", ("user_id", "item_id"), "hour")')
    if features.count(feature) > 1:
        raise ConfigurationError(f"Linear has the feature {feature!r} twice; expected each feature once")
