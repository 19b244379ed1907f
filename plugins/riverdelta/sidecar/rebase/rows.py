"""Rows: computes the new base's outputs and columns for rows of an old journal or of a log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    """N rows of a log in the order of time: request columns, labels float32[N], and times float64[N] (Unix seconds).

    `source` is the name of the log in errors.
    """

    columns: Mapping[str, Any]
    label: npt.NDArray[Any]
    time: npt.NDArray[np.float64]
    source: str = "the log"


class Rows:
    """Computes the new base's raw outputs, and the columns that the new journal keeps.

    Parameters
    ----------
    definition
        The new scorer.
    release
        Release 0 of the new home, which runs the base.
    same_base
        Whether the logged base outputs can be used: file and output of the base are unchanged.
    changed
        Columns that have changed their meaning, such as a tap that reads another tensor (default: none).
    """

    def __init__(self, definition: Definition, release: Release, same_base: bool, changed: Collection[str] = ()) -> None:
        self._definition, self._release = definition, release
        self._same_base, self._changed = same_base, changed
        self._reads, self._kept = definition.new_stack().reads, definition.kept
        self._session: Session | None = None

    def lacking(self, logged: Impressions) -> list[Column]:
        """Return the columns that a record lacks for its rows to be used, [] if they can be used."""
        missing = [name for name in self._reads if not self._has(logged, name)]
        if self._same_base and not missing:
            return []
        request = self._definition.request_schema
        # The base runs only where it is another one, or for a tap.
        runs = not self._same_base or any(name not in request for name in missing)
        needed = (*(self._definition.needed if runs else ()), *(name for name in missing if name in request))
        return [request[name] for name in dict.fromkeys(needed) if not self._has(logged, name)]

    def of_record(self, logged: Impressions) -> tuple[Floats, Columns]:
        """Return the base's raw outputs float32[N, K] and the columns of a usable record."""
        if self._same_base and all(self._has(logged, name) for name in self._reads):
            # Copies: kernels take writable arrays, and those of a record are read-only.
            kept = [name for name in self._kept if self._has(logged, name)]
            return logged.base.copy(), {name: logged.columns[name].copy() for name in kept}
        # A missing declared column that no correction reads is filled with 0: base and taps do not depend on it.
        rows, has = len(logged), {name for name in self._definition.request_schema if self._has(logged, name)}
        request = {
            name: logged.columns[name].copy() if name in has else _blank(column, rows)
            for name, column in self._definition.request_schema.items()
        }
        base, columns = self._run(request)
        return base, {name: column for name, column in columns.items() if name in has or name in self._definition.taps}

    def of_log(self, rows: LogRows, first: int) -> tuple[Floats, Columns]:
        """Return the same for rows of a log from `first` on; raises `InvalidInput` naming a missing or invalid column."""
        return self._run(self._definition.request_schema.check(rows.columns, first=first)[0])

    def _run(self, request: Columns) -> tuple[Floats, Columns]:
        if self._session is None:
            self._session = Session(self._release.path, State(0, 0, 0), loss=self._definition.loss)
        base, found, rows = list[Floats](), list[Columns](), self._definition.rows_at_once
        for at in range(0, len(next(iter(request.values()))), rows):
            part = self._definition.complete({name: column[at : at + rows] for name, column in request.items()})
            scored = self._session.run(part)
            base.append(by_output(scored.base))
            found.append({**part, **scored.taps})
        columns = {
            name: request[name] if name in request else np.concatenate([each[name] for each in found]) for name in self._kept
        }
        return np.ascontiguousarray(np.concatenate(base)), columns

    def _has(self, logged: Impressions, name: str) -> bool:
        if name not in logged.columns or name in self._changed:
            return False
        column, found = self._definition.schema[name], logged.columns[name]
        fits = column.numpy == found.dtype and len(column.shape) == found.ndim - 1
        return fits and all(n in (None, m) for n, m in zip(column.shape, found.shape[1:], strict=True))


def _blank(column: Column, rows: int) -> npt.NDArray[Any]:
    shape = (rows, *(n or 1 for n in column.shape))
    return np.full(shape, "" if column.dtype == "string" else 0, column.numpy)
