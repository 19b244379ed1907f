"""Dense: the design matrix of a correction's float features, in numpy and in ONNX."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from riverdelta.core.checked import column
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.project import Project, project
from riverdelta.corrections.seasons import Seasons

#: A column of floats, or what makes some of one.
Feature = str | Lookup | Project | Seasons


class Dense:
    """Makes the matrix float32[N, D] of an intercept, scalars, vectors, projections, vector lookups and seasons.

    Feature k ends before column `ends[k]`; `names` has one name for each of the D columns.
    """

    def __init__(self, what: str, features: Sequence[Feature], schema: Schema, intercept: bool) -> None:
        self.features, self.intercept = tuple(features), intercept
        self._widths = {feature: _width(what, feature, schema) for feature in self.features}
        self._matrices = {feature: feature.of(schema) for feature in self.features if isinstance(feature, Project)}
        titles = [["intercept"]] * intercept + [_titles(feature, self._widths[feature]) for feature in self.features]
        self.ends: Ints = np.cumsum([len(each) for each in titles], dtype=np.int64)
        self.names = [name for each in titles for name in each]
        self.width = len(self.names)

    def matrix(self, columns: Columns, rows: int) -> Floats:
        """Return the design matrix of a block."""
        parts = [self._part(feature, columns).reshape(rows, self._widths[feature]) for feature in self.features]
        return np.ascontiguousarray(np.concatenate([np.ones((rows, int(self.intercept)), np.float32), *parts], axis=1))

    def _part(self, feature: Feature, columns: Columns) -> Floats:
        if isinstance(feature, Lookup | Seasons):
            return feature.vector(columns[feature.key])
        if isinstance(feature, Project):
            return project(columns[feature.key], self._matrices[feature])
        return columns[feature]

    def export(self, nodes: Nodes, columns: dict[str, str], like: str) -> str:
        """Append the nodes of the same matrix and return its tensor; `like` is any tensor with N rows."""
        parts = []
        if self.intercept:
            shape = nodes.add("Min", nodes.add("Shape", like), nodes.constant([2**62, 1], np.int64))
            one = nodes.constant(np.ones((1, 1), np.float32))
            parts.append(nodes.add("Expand", one, shape))
        for feature in self.features:
            if isinstance(feature, Lookup | Seasons):
                parts.append(feature.export_vector(nodes, columns[feature.key]))
            elif isinstance(feature, Project):
                parts.append(nodes.add("MatMul", columns[feature.key], nodes.constant(self._matrices[feature])))
            else:
                parts.append(nodes.add("Reshape", columns[feature], nodes.constant([-1, self._widths[feature]], np.int64)))
        return parts[0] if len(parts) == 1 else nodes.add("Concat", *parts, axis=1)


def listed(on: Feature | Sequence[Feature]) -> list[Feature]:
    """Return float features as a list; raises `ConfigurationError` for an invalid or repeated feature."""
    features = list(on) if isinstance(on, Iterable) and not isinstance(on, str) else [on]
    for feature in features:
        if not isinstance(feature, Lookup | Project | Seasons):
            column("a feature of on", feature, 'Entity("user_id", on=["item_vec", "hour"])')
        if features.count(feature) > 1:
            raise ConfigurationError(f"on has the feature {feature!r} twice; expected each feature once")
    return features


def _width(what: str, feature: Feature, schema: Schema) -> int:
    if isinstance(feature, Seasons):
        feature.check(schema)
    if isinstance(feature, Project | Seasons):
        return feature.width
    if isinstance(feature, Lookup):
        schema.need(feature.key, f"lookup {feature.name!r}", "id")
        if feature.kind != "vector":
            raise ConfigurationError(f"{what} needs vectors, and lookup {feature.name!r} is a bag of ids; use Linear")
        return feature.width
    found = schema.need(feature, what, "scalar", "vector")
    return (found.shape[0] or 1) if found.shape else 1


def times_of(features: Iterable[object]) -> dict[str, int]:
    """Return the columns that features read as times, and how many numbers they make of each."""
    found = dict[str, int]()
    for feature in features:
        if isinstance(feature, Seasons):
            found[feature.key] = found.get(feature.key, 0) + feature.width
    return found


def _titles(feature: Feature, width: int) -> list[str]:
    if isinstance(feature, Seasons):
        return feature.titles
    name = feature if isinstance(feature, str) else feature.name
    return [name] if width == 1 else [f"{name}[{i}]" for i in range(width)]
