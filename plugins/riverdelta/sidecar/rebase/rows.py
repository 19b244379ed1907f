"""Rows: computes the new base's outputs and columns for rows of an old journal or of a log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Column, Floats
from riverdelta.core.records import Impressions, by_output
from riverdelta.graph.features import RAW
from riverdelta.learning.definition import Definition
from riverdelta.serving.session import Session
from riverdelta.storage.registry import Release, State

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LogRows:
    """N rows of a log in the order of time: request columns, N labels, and times float64[N] (Unix seconds).

    `source` is the name of the log in errors, and `weight` are the weights of the labels, 0 to 100 (default 1).
    """

    columns: Mapping[str, Any]
    label: Any
    time: npt.NDArray[np.float64]
    source: str = "the log"
    weight: npt.NDArray[Any] | None = None


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
        self._reads, self._kept = definition.new_stack().reads, definition.journal
        #: The features that no request brings: taps, and those of what `prepare` makes.
        of, sent = definition.features, definition.request_schema
        self._made = {name for name in definition.learned if of[name].tap or of[name].source.name not in sent}
        self._session: Session | None = None

    def lacking(self, logged: Impressions) -> list[Column]:
        """Return the columns that a record lacks for its rows to be used, [] if they can be used."""
        features, request = self._definition.features, self._definition.request_schema
        missing = [name for name in self._reads if not self._has(logged, name)]
        needed = [features[name].source.name for name in missing if name not in self._made]
        if self._runs(missing):
            needed = [*self._definition.needed, *needed]
        return [request[name] for name in dict.fromkeys(needed) if self._raw(logged, name) is None]

    def of_record(self, logged: Impressions) -> tuple[Floats, Columns]:
        """Return the base's raw outputs float32[N, K] and the columns of a usable record."""
        definition, features = self._definition, self._definition.features
        # Copies: kernels take writable arrays, and those of a record are read-only.
        found = {name: logged.columns[name].copy() for name in self._kept if self._has(logged, name)}
        missing = [name for name in definition.learned if name not in found]
        sent = {name: name.removeprefix(RAW) for name in definition.unread if name in self._kept and name not in found}
        if not missing and not sent and self._same_base:
            return logged.base.copy(), found
        raw = {name: one for name in definition.request_schema if (one := self._raw(logged, name)) is not None}
        found |= features.split(raw, [name for name in missing if features[name].source.name in raw])[1]
        found |= {name: raw[column] for name, column in sent.items() if column in raw}
        if not self._runs([name for name in missing if name in self._reads]):
            return logged.base.copy(), {name: found[name] for name in self._kept if name in found}
        # A missing declared column that no correction reads is filled with 0: base and taps do not depend on it.
        filled = {name: raw.get(name, column.zeros(len(logged))) for name, column in definition.request_schema.items()}
        base, made = self._run(filled)
        found |= {name: made[name] for name in self._made}
        return base, {name: found[name] for name in self._kept if name in found}

    def of_log(self, rows: LogRows, first: int) -> tuple[Floats, Columns]:
        """Return the same for rows of a log from `first` on; raises `InvalidInput` naming a missing or invalid column."""
        checked, _ = self._definition.request_schema.check(rows.columns, first=first)
        base, made = self._run(checked, first)
        return base, {name: made[name] for name in self._kept}

    def _runs(self, missing: Collection[str]) -> bool:
        """Whether the base runs: it is another one, or something that it or `prepare` makes is missing."""
        return not self._same_base or not self._made.isdisjoint(missing)

    def _run(self, columns: Columns, first: int = 0) -> tuple[Floats, Columns]:
        """Return the base's raw outputs for checked columns of a request, and what the journal keeps of them."""
        if self._session is None:
            self._session = Session(self._release.path, State(0, 0, 0), loss=self._definition.loss)
        base, made, rows = list[Floats](), list[Columns](), self._definition.rows_at_once
        for at in range(0, len(next(iter(columns.values()))), rows):
            part = self._definition.complete({name: column[at : at + rows] for name, column in columns.items()})
            fed, found = self._definition.split(part, first + at)
            scored = self._session.run(fed)
            base.append(by_output(scored.base))
            made.append({**found, **scored.taps})
        joined = {name: np.concatenate([each[name] for each in made]) for name in made[0]}
        return np.ascontiguousarray(np.concatenate(base)), joined

    def _has(self, logged: Impressions, name: str) -> bool:
        found = logged.columns.get(name)
        return name not in self._changed and found is not None and self._definition.journal[name].holds(found)

    def _raw(self, logged: Impressions, name: str) -> npt.NDArray[Any] | None:
        """Return a column as it was sent, None if a record lacks it."""
        if RAW + name in self._changed:
            return None
        kept = (logged.columns.get(key) for key in (RAW + name, name))
        return next((one.copy() for one in kept if one is not None and self._definition.request_schema[name].holds(one)), None)
