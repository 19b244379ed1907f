"""Columns: which columns a pipeline reads, and their keys in River's dict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from river.compose import Pipeline, Select, TransformerUnion

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Column


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
