"""Columns: which columns a pipeline reads, and the dicts that River reads them as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from river.compose import Pipeline, Select, TransformerUnion

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Column, Columns, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.centred import Limits
from riverdelta.river.base import Flow, Name, Shape

#: Floats closer to 0 count as 0: float32 tables cannot hold the statistics of smaller ones.
_TINY = float(np.float32(1e-30))


def named(features: Sequence[str]) -> tuple[str, ...]:
    """Return names of columns as a tuple; raises `ConfigurationError` for anything else."""
    names = tuple(features) if isinstance(features, Iterable) else ()
    if not names or isinstance(features, str) or not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
        raise ConfigurationError(f'features is {features!r}; expected different names of columns, as in ("hour", "user_id")')
    return names


def selected(step: Any) -> tuple[str, ...]:
    """Return the names in the Selects that every branch of a pipeline begins with."""
    if isinstance(step, Pipeline):
        return selected(next(iter(step.steps.values())))
    if isinstance(step, TransformerUnion):
        return tuple(dict.fromkeys(name for branch in step.transformers.values() for name in selected(branch)))
    if isinstance(step, Select):
        return tuple(sorted(map(str, step.keys)))
    raise ConfigurationError(
        f"River(...) cannot tell which columns {type(step).__name__} reads; name them, as in "
        f'River(pipeline, features=("hour", "user_id")), or begin every branch with compose.Select'
    )


def river_names(column: Column) -> tuple[str, ...]:
    """Return River's keys of a column."""
    return tuple(f"{column.name}_{i}" for i in range(column.shape[0] or 0)) if column.shape else (column.name,)


class Reader:
    """Reads columns row by row as River does, and as tensors.

    Parameters
    ----------
    schema
        The columns that the pipeline reads.
    keys
        Those that it reads as ids.

    Attributes
    ----------
    shape
        The contents of x before the first step.
    numeric
        The columns that it reads as numbers.
    width
        The numbers in a row.
    """

    def __init__(self, schema: Schema, keys: Sequence[str]) -> None:
        self.schema, self._keys = schema, keys
        self._names = {name: river_names(column) for name, column in schema.items()}
        self.numeric = tuple(name for name in schema if name not in keys)
        self.width = sum(len(self._names[name]) for name in self.numeric)
        ids = frozenset(name for name, column in schema.items() if column.kind == "id")
        self.shape = Shape(tuple(part for parts in self._names.values() for part in parts), ids)

    def numbers(self, columns: Columns, rows: int) -> npt.NDArray[np.float64]:
        """Return the columns that are read as numbers, float64[N, D]; NaN and numbers close to 0 are 0."""
        parts = [columns[name].reshape(rows, len(self._names[name])) for name in self.numeric]
        parts = [np.where(np.abs(part) > _TINY, part, np.float32(0)) if part.dtype.kind == "f" else part for part in parts]
        return np.concatenate([np.empty((rows, 0)), *parts], axis=1, dtype=np.float64)

    def rows(self, columns: Columns, numbers: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        """Yield each row as the dict of Python ints and floats that River reads."""
        values, rest = dict[str, list[Any]](), iter(numbers.T.tolist())
        for name, parts in self._names.items():
            if name in self.numeric:
                values |= {part: next(rest) for part in parts}
            else:
                values[name] = columns[name].tolist()
        for row in zip(*values.values(), strict=True):
            yield dict(zip(values, row, strict=True))

    def ids(self, x: dict[str, Any]) -> dict[str, Any]:
        """Return a row without its numbers."""
        return {name: x[name] for name in self._keys}

    def export(self, nodes: Nodes, columns: dict[str, str], limits: Limits) -> Flow:
        """Append the limits of the numbers and return the flow before the first step."""
        blocks, ids, at = list[tuple[tuple[Name, ...], str]](), dict[Name, str](), 0
        table = nodes.table("limits", limits.table.values) if self.numeric else ""
        for name, names in self._names.items():
            tensor = columns[name]
            if self.schema[name].kind == "id":
                ids[name] = tensor
            else:
                tensor = nodes.add("Shrink", tensor, lambd=_TINY)  # NaN becomes 0
            if name in self.numeric:
                tensor = limits.export(nodes, table, tensor, at, len(names))
                at += len(names)
            blocks.append((names, tensor))
        return Flow(tuple(blocks), ids)
