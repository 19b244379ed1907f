"""The contract of a converter: the served tables and the ONNX nodes of one River estimator.

A pipeline is traversed twice: at `bind` with a `Shape` (the keys of River's dict), at `export` with a `Flow` (the tensors of
their values). Numbers are float64, as in River.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from riverdelta.core.errors import ConfigurationError, Unsupported
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table
from riverdelta.river.categories import Categories

#: A key of River's dict: the name of a feature, or a bucket of a hasher.
Name = str | int


@dataclass(frozen=True)
class Shape:
    """The contents of x between two steps: the keys of its numbers, those that are still ids, and the encoded categories."""

    names: tuple[Name, ...]
    ids: frozenset[Name] = frozenset()
    encoded: tuple[Categories, ...] = ()

    def __post_init__(self) -> None:
        keys = list(self.names)
        for c in self.encoded:
            # Two encoders of one column would share keys.
            keys += [name for name in [*self.names, c.column] if c.owns(name)] + [c.column]
        if doubles := [key for key, n in Counter(keys).items() if n > 1]:
            raise ConfigurationError(
                f"two features of the pipeline are named {doubles[0]!r}; River would keep only one of them; rename one"
            )

    def unmixed(self, what: str) -> None:
        """Raise `Unsupported` if a hasher has mixed categories, because `what` must act on each of them alone."""
        if any(c.mixed for c in self.encoded):
            raise Unsupported(f"{what} comes after a FeatureHasher of one-hot categories; put it before the hasher")


@dataclass(frozen=True)
class Flow:
    """The tensors between two steps: blocks of numbers with their keys, ids, and the categories' terms of the residual."""

    blocks: tuple[tuple[tuple[Name, ...], str], ...] = ()
    ids: Mapping[Name, str] = field(default_factory=dict)
    terms: tuple[str, ...] = ()

    def matrix(self, nodes: Nodes, names: Iterable[Name]) -> str:
        """Return the tensor float64[N, D] of the numbers under `names`, in their order."""
        wanted = list(names)
        parts: list[str] = []
        have: list[Name] = []
        for keys, tensor in self.blocks:
            if set(keys) & set(wanted):
                wide = nodes.add("Reshape", tensor, nodes.constant([-1, len(keys)], np.int64))
                parts.append(nodes.cast(wide, TensorProto.DOUBLE))
                have += keys
        matrix = parts[0] if len(parts) == 1 else nodes.add("Concat", *parts, axis=1)
        if have == wanted:
            return matrix
        return nodes.add("Gather", matrix, nodes.constant([have.index(n) for n in wanted], np.int64), axis=1)


@dataclass(frozen=True)
class Place:
    """The position of a step: the prefix of its tables' names, and the rows of each table of categories."""

    path: str
    slots: int

    def inside(self, name: str) -> Place:
        """Return the place of the step `name` inside this one."""
        clean = re.sub(r"\W+", "_", name).lower()
        return Place(f"{self.path}_{clean}" if self.path else clean, self.slots)


class Converter(ABC):
    """Serves one step of a River pipeline: subclass it, and `register` the subclass for an estimator.

    Parameters
    ----------
    step
        The estimator of the pipeline that learns.
    before
        The contents of x before the step. A subclass sets `after`, and `tables` if it has served tables.
    place
        The position in the pipeline, for the names of the tables.

    Notes
    -----
    A step that passes on categories (those of `before.encoded` that are in `after.encoded`) must treat each key alone: their
    coefficients are computed by `transform_one` of one key at a time.
    """

    after: Shape
    tables: dict[str, Table]

    def __init__(self, step: Any, before: Shape, place: Place) -> None:
        self.step, self.before, self.place = step, before, place
        self.after, self.tables = before, {}

    @classmethod  # noqa: B027 - most estimators can be served as they are
    def check(cls, step: Any) -> None:
        """Raise `Unsupported` naming an option of the estimator that cannot be served."""

    @classmethod
    def learner(cls, step: Any) -> Any:
        """Return the untrained copy of `step` that learns."""
        return step.clone()

    @classmethod
    def keys(cls, step: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns of `names` that the step reads as ids, and those that it passes on."""
        return (), names

    def write(self) -> None:  # noqa: B027 - a step without tables writes none
        """Write the estimator's state into `tables`."""

    @abstractmethod
    def export(self, nodes: Nodes, flow: Flow) -> Flow:
        """Append nodes that compute `transform_one` of each row, and return the flow after them."""


_CONVERTERS: dict[type, type[Converter]] = {}


def register(estimator: type, converter: type[Converter]) -> None:
    """Use `converter` for steps of exactly the class `estimator`."""
    _CONVERTERS[estimator] = converter


def check(step: Any) -> None:
    """Raise `Unsupported` naming the step of a pipeline that cannot be served."""
    if type(step) not in _CONVERTERS:
        known = ", ".join(sorted(t.__name__ for t in _CONVERTERS))
        raise Unsupported(
            f"the pipeline holds {type(step).__name__}, which River(...) cannot export; it takes {known} "
            f"(riverdelta.river.register adds one)"
        )
    _CONVERTERS[type(step)].check(step)


def find(step: Any) -> type[Converter]:
    """Return the converter class of a step, or of its copy that learns."""
    return next(_CONVERTERS[kind] for kind in type(step).__mro__ if kind in _CONVERTERS)


def convert(step: Any, before: Shape, place: Place) -> Converter:
    """Return the converter of one step, and add the step to the path of the categories that pass through it."""
    converter = find(step)(step, before, place)
    for categories in before.encoded:
        if categories in converter.after.encoded:
            categories.path.append(step)
    return converter
