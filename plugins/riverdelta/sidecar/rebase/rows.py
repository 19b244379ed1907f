"""Rows: what a new scorer makes of rows that another one scored, or that a log has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Column, Floats
from riverdelta.core.records import Impressions, by_output
from riverdelta.learning.definition import Definition
from riverdelta.serving.session import Session
from riverdelta.storage.registry import Release, State

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LogRows:
    """A block of a log: the columns of a request, labels float32[N], and times float64[N] (Unix seconds), in order.

    `source` is the name of the log for errors.
    """

    columns: Mapping[str, Any]
    label: npt.NDArray[Any]
    time: npt.NDArray[np.float64]
    source: str = "the log"


class Rows:
    """The raw outputs of the new base, and the columns that the new journal keeps, of rows of either kind.

    Parameters
    ----------
    same_base
        Whether the journal's base outputs are those of the new base: its file and output are the old one's.
    changed
        Columns of the journal that mean something else now, such as a tap of another tensor.
    """

    def __init__(self, definition: Definition, release: Release, same_base: bool, changed: Collection[str] = ()) -> None:
        self._definition, self._release = definition, release
        self._same_base, self._changed = same_base, changed
        self._reads, self._kept = definition.new_stack().reads, definition.kept
        self._session: Session | None = None

    def lacking(self, logged: Impressions) -> list[Column]:
        """Return the columns that a record would need to have for its rows to be used, [] where they can be."""
        missing = [name for name in self._reads if not self._has(logged, name)]
        if self._same_base and not missing:
            return []
        needed = (*self._definition.signature.inputs, *(name for name in missing if name in self._definition.columns))
        return [self._definition.request_schema[name] for name in dict.fromkeys(needed) if not self._has(logged, name)]

    def of_record(self, logged: Impressions) -> tuple[Floats, Columns]:
        """Return the base's raw outputs float32[N, K] and the columns of a record that lacks nothing."""
        if self._same_base and all(self._has(logged, name) for name in self._reads):
            # A copy: kernels take arrays that may be written to, which a record's are not.
            kept = [name for name in self._kept if self._has(logged, name)]
            return logged.base.copy(), {name: logged.columns[name].copy() for name in kept}
        # What no correction reads may be missing: the base and its taps do not depend on a declared column.
        rows, has = len(logged), {name for name in self._definition.request_schema if self._has(logged, name)}
        request = {
            name: logged.columns[name].copy() if name in has else np.zeros((rows, *_shape(column)), column.dtype)
            for name, column in self._definition.request_schema.items()
        }
        base, columns = self._run(request)
        return base, {name: column for name, column in columns.items() if name in has or name in self._definition.taps}

    def of_log(self, rows: LogRows, first: int) -> tuple[Floats, Columns]:
        """Return the same of a log's rows from `first` on; raises `InvalidInput` naming the column that is missing or wrong."""
        return self._run(self._definition.request_schema.check(rows.columns, first=first)[0])

    def _run(self, request: Columns) -> tuple[Floats, Columns]:
        if self._session is None:
            self._session = Session(self._release.path, State(0, 0, 0), loss=self._definition.loss)
        scored = self._session.run(request)
        found = {**request, **scored.taps}
        return np.ascontiguousarray(by_output(scored.base)), {name: found[name] for name in self._kept}

    def _has(self, logged: Impressions, name: str) -> bool:
        if name not in logged.columns or name in self._changed:
            return False
        column, found = self._definition.schema[name], logged.columns[name]
        fits = column.dtype == found.dtype.name and len(column.shape) == found.ndim - 1
        return fits and all(n in (None, m) for n, m in zip(column.shape, found.shape[1:], strict=True))


def _shape(column: Column) -> Iterator[int]:
    return (n or 1 for n in column.shape)
