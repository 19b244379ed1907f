"""Hashed: the sparse features of a correction as slots of one bounded table, in numpy and in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.coefficients import At, Ids, spelled
from riverdelta.corrections.hashing import Hash
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.project import Project
from riverdelta.corrections.seasons import Seasons

#: A column, a cross of ids, or what makes features of a column.
Sparse = str | tuple[str, ...] | Lookup | Project | Seasons


class Hashed:
    """Maps ids and crosses (value 1) and bags (values 1/√n, 0 for padding) to slots int64[N, S] and values float32[N, S].

    All features share one table of `slots` rows, and each has its own hash function (the hashing trick, Weinberger et al. 2009,
    arXiv 0902.2206).
    """

    def __init__(self, what: str, features: Sequence[Sparse], schema: Schema, slots: int) -> None:
        self.features = tuple(features)
        self.hashes = [Hash.draw(f"{what}/{_title(f)}", len(read_by(f)), slots) for f in self.features]
        self.widths = [f.width if isinstance(f, Lookup) else 1 for f in self.features]
        for feature in self.features:
            for name in read_by(feature):
                schema.need(name, f"lookup {feature.name!r}" if isinstance(feature, Lookup) else what, "id")

    def slots(self, columns: Columns, rows: int) -> tuple[Ints, Floats]:
        """Return the slots and values of a block."""
        out = np.empty((rows, sum(self.widths)), np.int64)
        values = np.ones(out.shape, np.float32)
        at = 0
        for feature, hashing, width in zip(self.features, self.hashes, self.widths, strict=True):
            if isinstance(feature, Lookup):
                ids, values[:, at : at + width] = feature.bag(columns[feature.key])
                out[:, at : at + width] = hashing(ids.reshape(-1)).reshape(ids.shape)
            else:
                hashing.into(out, at, *(columns[name] for name in read_by(feature)))
            at += width
        return out, values

    def export(self, nodes: Nodes, columns: dict[str, str], table: str, outputs: int) -> str:
        """Append Σ value · table[slot] and return its tensor, float32[N, K] for K `outputs`; `table` is float32[slots, K]."""
        sums = []
        for feature, hashing in zip(self.features, self.hashes, strict=True):
            if isinstance(feature, Lookup):
                ids, values = feature.export_bag(nodes, columns[feature.key])
                rows = nodes.add("Gather", table, hashing.export(nodes, ids))
                bags = nodes.add("Reshape", rows, nodes.constant([-1, feature.width, outputs], np.int64))
                shares = nodes.add("Reshape", values, nodes.constant([-1, feature.width, 1], np.int64))
                product = nodes.add("Mul", bags, shares)
                sums.append(nodes.add("ReduceSum", product, nodes.constant([1], np.int64), keepdims=0))
            else:
                ids64 = [nodes.cast(columns[name], TensorProto.INT64) for name in read_by(feature)]
                sums.append(nodes.add("Gather", table, hashing.export(nodes, *ids64)))
        total = sums[0]
        for part in sums[1:]:
            total = nodes.add("Add", total, part)
        return total

    @property
    def titles(self) -> list[str]:
        """The names of the features."""
        return [_title(feature) for feature in self.features]

    def find(self, ids: Ids) -> list[At]:
        """Return the slots of each feature whose ids are all given."""
        found = []
        for feature, hashing in zip(self.features, self.hashes, strict=True):
            names = read_by(feature)
            if not all(name in ids for name in names):
                continue
            whose = spelled(ids, names)
            if isinstance(feature, Lookup):
                entries, values = feature.bag(np.array([ids[feature.key]], np.int64))
                for entry in entries[values != 0]:
                    found.append(At(int(hashing(entry[None])[0]), None, f"{feature.name}={entry} of {whose}"))
            else:
                found.append(At(int(hashing(*(np.array([ids[name]], np.int64) for name in names))[0]), None, whose))
        return found

    def slots_of(self, name: str, own: int, rows: Columns) -> Ints:
        """Return the slots that belong to one id: its own, and those of its crosses in `rows`; a bag's belong to many ids."""
        found = [np.empty(0, np.int64)]
        for feature, hashing in zip(self.features, self.hashes, strict=True):
            if not isinstance(feature, Lookup):
                found.append(hashing(*combinations(read_by(feature), name, own, rows)))
        return np.unique(np.concatenate(found))


def combinations(names: Sequence[str], name: str, own: int, rows: Columns) -> list[Ints]:
    """Return the ids under `names` that belong to the id `own` of `name`: of a cross those in `rows`; none without `name`."""
    if tuple(names) == (name,):
        return [np.array([own], np.int64)]
    if name not in names or not all(each in rows for each in names):
        return [np.empty(0, np.int64) for _ in names]
    mine = rows[name] == own
    return list(np.unique(np.stack([rows[each][mine] for each in names]), axis=1))


def read_by(feature: Sparse) -> tuple[str, ...]:
    """Return the columns that a feature reads."""
    return feature if isinstance(feature, tuple) else (feature if isinstance(feature, str) else feature.key,)


def _title(feature: Sparse) -> str:
    return feature if isinstance(feature, str) else "*".join(feature) if isinstance(feature, tuple) else feature.name
