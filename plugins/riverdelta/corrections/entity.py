"""Entity: a small model of each user, item or other entity, learned from the rows of that entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from riverdelta.core import checked
from riverdelta.core.checked import bound, column, flag, positive, share
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import bounded, entity_kernels, evidence, limits
from riverdelta.corrections.base import Correction
from riverdelta.corrections.coefficients import At, Coefficients, Ids, by_output, root_mean, spelled
from riverdelta.corrections.dense import Dense, Feature, listed, times_of
from riverdelta.corrections.growing import INDEX, SLOTS, Growing
from riverdelta.corrections.hashed import combinations, read_by
from riverdelta.corrections.hashing import Hash
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.rows import offset_key
from riverdelta.corrections.table import Table


class Entity(Correction):
    """Gives each entity e (a user, an item, …) its own small linear model: raw = offset + m[e]·x.

    Parameters
    ----------
    key
        The id column (int64) of the entity, or a tuple of several for their cross.
    on
        The features x: float32 columns, taps, vector lookups, projections of a wide vector (`Project`) or `Seasons`, one or
        a list. Without any, an entity has an intercept alone.
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
        with four slots for each entity, one in five. Each slot takes 4 bytes; once an entity in it is learned, it gets a row of
        8 bytes for each number in x and each output.
    offset
        The feature of a row that holds the base's raw output, for `learn_one` and `predict_one`; None if rows have none, and
        then each offset is 0. A service ignores it.
    clip
        The largest gradient of one example. With log loss the gradient is at most the example's weight, so 10.0 limits only
        heavy examples. Raise it if weights above 10 must count in full. For values and counts it is in units of s
        (`corrections.evidence`).
    radius
        The bound on an entity's coefficients, in raw outputs (of values: in units of s) at features of typical size. Lower it
        to limit what poisoned feedback can do; infinity means no bound.

    Notes
    -----
    Each coefficient has a Gaussian belief of mean m and precision λ, moved by one Newton step for each example: λ ← max(γλ
    + (1 - γ)λ₀, λ₀) + hx² and m ← m - gx/λ, with g and h the gradient and the curvature of the weighted loss and γ = `forget`.
    With several outputs, each has its own coefficients. λ₀ = E|x|² / `variance`, where E|x|² is the running mean of the
    feature's squared length: the prior does not depend on the feature's scale (a g-prior, Zellner 1986).

    With squared error and without features, m[e] is a Kalman mean of label - offset: a state that does not move (with `forget`
    1), of prior variance `variance`·s², seen with noise of variance s² / weight, with s the unit of `corrections.evidence`.

    The effect of one example is bounded (`corrections.bounded`). With T the mean of a feature's nonzero |x|², Σ T·|m|² over the
    features is at most `radius`² after an update: m·x is at most `radius`·√(Σ |x|²/T). A step that `clip` limits moves a
    coefficient at most √(`variance`/T). If T changes by a factor of 16 or more, the feature is forgotten.

    Sources: Ramanath et al. 2021, "Lambda Learner" (arXiv 2010.05154); Zhang et al. 2016, "GLMix" (KDD).

    Examples
    --------
    >>> e = Entity("user", offset=None)
    >>> for _ in range(50):
    ...     e.learn_one({"user": 7}, True)
    >>> e.predict_proba_one({"user": 7})[True] > 0.8, e.predict_proba_one({"user": 8})[True]
    (True, 0.5)
    """

    since = limits.LIMIT, limits.WINDOW, "sizes", INDEX, SLOTS, *evidence.NAMES
    grows = "mean", "precision", SLOTS

    def __init__(
        self,
        key: str | tuple[str, ...],
        on: Feature | Sequence[Feature] = (),
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
    def times(self) -> dict[str, int]:
        return times_of(self.on)

    @property
    def _keys(self) -> tuple[str, ...]:
        return tuple(self.key) if isinstance(self.key, tuple | list) else (self.key,)

    additive = True

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._keys, *(name for f in self.on for name in read_by(f)))))

    def bind(self, schema: Schema) -> None:
        what = f"{type(self).__name__}({self.key or self.on!r})"
        self._bind_key(schema, what)
        self._dense = Dense(what, self.on, schema, self.intercept)
        row = np.zeros((1, self.loss.outputs * self._dense.width), np.float32)
        self.served = {"mean": Table(row, slots=self.slots), limits.LIMIT: limits.table(self._dense.width)}
        self.learner = {
            "precision": row.copy(),
            "square": np.zeros(1 + len(self._dense.ends)),
            "present": np.zeros(len(self._dense.ends)),
            limits.WINDOW: limits.window(len(self._dense.ends)),
            "sizes": np.zeros(len(self._dense.ends)),
            **evidence.arrays(self.loss),
        }
        self._rows = Growing(self.served, self.learner, self.slots, "mean", "precision")
        super().bind(schema)

    def _bind_key(self, schema: Schema, what: str) -> None:
        for name in self._keys:
            schema.need(name, what, "id")
        self._hash = Hash.draw(f"entity/{'*'.join(self._keys)}", len(self._keys), self.slots)

    def _slots(self, columns: Columns, rows: int) -> Ints:
        return self._hash(*(columns[name] for name in self._keys))

    def _export_slots(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        return self._hash.export(nodes, *(nodes.cast(columns[name], TensorProto.INT64) for name in self._keys))

    def inflate(self, keep: float) -> None:
        square, begin = self.learner["square"], 0
        precision = self.learner["precision"].reshape(self._rows.used, -1, self._dense.width)
        for k, end in enumerate(self._dense.ends.tolist()):
            prior = min(max(square[1 + k] / max(square[0], 1.0), limits.LEAST) / self.variance, float(entity_kernels.CERTAIN))
            known = precision[..., begin:end]
            # A precision of 0 marks that of all entities without examples, and stays 0.
            known[known > 0] = np.float32(keep) * known[known > 0] + np.float32((1.0 - keep) * prior)
            begin = end

    def _design(self, columns: Columns, rows: int) -> tuple[Any, Floats]:
        return self._slots(columns, rows), self._dense.matrix(columns, rows)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        slots, x = self._design(columns, len(offset))
        x, index = limits.limited(x, self.served[limits.LIMIT]), self._rows.index.values
        entity_kernels.predict(offset, slots, index, x, self.served["mean"].values, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        out = self.room(columns, offset, label, weight, group)
        slots, x = self._design(columns, len(offset))
        limit, learner, rows = self.served[limits.LIMIT], self.learner, self._rows
        mean, touched, slot_of, precision = rows.room(len(offset))
        terms = tuple(map(float, (self.variance, self.forget, *bounded.finite(self.clip, self.radius))))
        used = entity_kernels.learn(
            offset, label, weight, self.loss.starts(len(offset), group, each=True), slots, rows.index.values,
            rows.index.touched, rows.used, x, mean, touched, slot_of, precision, learner["square"], learner["present"],
            learner[limits.WINDOW], limit.values, learner["sizes"], self._dense.ends, terms,
            evidence.terms(self.loss, learner), self.loss.kernels, out,
        )  # fmt: skip
        rows.keep(used)
        limit.touched[:] |= len(offset) > 0
        return out

    def saved(self) -> dict[str, Mapping[str, npt.NDArray[Any]]]:
        return self._rows.saved()

    def restore(self) -> None:
        self._rows.restore()
        window, learner = self.learner[limits.WINDOW], self.learner
        limits.restore(self.served[limits.LIMIT], window, learner["square"][1:], learner["present"], self._dense.ends)

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        rows = self._rows.export(nodes, self._export_slots(nodes, columns, offset))
        width = self._dense.width
        limit = nodes.table(limits.LIMIT, self.served[limits.LIMIT].values)
        matrix = limits.export(nodes, self._dense.export(nodes, columns, offset), limit)
        by_output = nodes.add("Reshape", rows, nodes.constant([-1, self.loss.outputs, width], np.int64))
        product = nodes.add("Mul", by_output, nodes.add("Reshape", matrix, nodes.constant([-1, 1, width], np.int64)))
        return nodes.add("Add", offset, nodes.add("ReduceSum", product, nodes.constant([2], np.int64), keepdims=0))

    def coefficients(self) -> dict[str, Coefficients]:
        widths = np.diff(self._dense.ends, prepend=0)
        # Each element of a vector counts as an equal part of its length.
        sizes = np.repeat(root_mean(self.learner["square"][1:], self.learner["present"]) / np.sqrt(widths), widths)
        names, outputs = by_output(self._dense.names, self.loss.outputs), self.loss.outputs
        saved = self.saved()
        values, at = saved["served"]["mean"][1:], saved["learner"][SLOTS][1:]
        return {"mean": Coefficients(names, values, np.tile(sizes, outputs), True, self._find, at)}

    def _find(self, ids: Ids) -> list[At]:
        if not all(name in ids for name in self._keys):
            return []
        slot = self._hash(*(np.array([ids[name]], np.int64) for name in self._keys))
        return [At(int(slot[0]), None, spelled(ids, self._keys))]

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        # A precision of 0 marks an entity without examples.
        return self._rows.reset(self._hash(*combinations(self._keys, name, own, rows)))

    def occupancy(self) -> dict[str, float]:
        return {"mean": (self._rows.used - 1) / self.slots}
