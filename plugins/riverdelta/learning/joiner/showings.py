"""Showings: the rows that were shown and have no label yet, until silence makes negatives of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.keys import requests

_Array = npt.NDArray[Any]
_Columns = dict[str, _Array]
EMPTY: _Columns = {"incarnation": np.empty(0, np.int64), "key": np.empty(0, np.int64), "due": np.empty(0)}
#: Rows of a part: a tick reads only the parts in which a window has ended.
_PART_ROWS = 65_536
#: Labels are collected up to this number plus a sixteenth of the showings before their showings are removed.
_LABELS = 4_096


class Showings:
    """Rows in the order in which they were shown, each with the time at which its window ends; 24 bytes per row.

    The journal accepts no showing of a row that has a label or was shown before.

    >>> showings = Showings()
    >>> showings.add(np.array([1, 1]), np.array([5, 6]), np.array([110.0, 111.0]))
    >>> showings.label(np.array([1]), np.array([5]))
    >>> [array.tolist() for array in showings.due(111.0, 10)]
    [[1], [6]]
    """

    def __init__(self) -> None:
        self._parts: list[_Columns] = []
        self._added: list[_Columns] = []
        self._labelled: list[tuple[Ints, Ints]] = []

    def __len__(self) -> int:
        return sum(len(part["key"]) for part in (*self._parts, *self._added))

    @property
    def bytes(self) -> int:
        """The size of the rows in bytes."""
        return sum(array.nbytes for part in (*self._parts, *self._added) for array in part.values())

    def add(self, incarnation: Ints, key: Ints, due: npt.NDArray[np.float64]) -> None:
        """Add rows int64[N] of workers int64[N] whose windows end at float64[N] (Unix seconds)."""
        self._added.append({"incarnation": incarnation, "key": key, "due": due})

    def label(self, incarnation: Ints, key: Ints) -> None:
        """Add labels, whose rows will not become negatives."""
        self._labelled.append((incarnation, key))
        if sum(len(labelled) for _, labelled in self._labelled) > _LABELS + len(self) // 16:
            self._settle()

    def due(self, tick: float, most: int) -> tuple[Ints, Ints]:
        """Return workers and keys of the first `most` rows whose window has ended without a label, in order.

        They stay until `take` removes them.
        """
        if self._ripe(tick, 1):
            self._settle()
        ripe = self._ripe(tick, most)
        incarnation, key = (np.concatenate([EMPTY[n], *(part[n][at] for part, at in ripe)]) for n in ("incarnation", "key"))
        return incarnation, key

    def take(self, tick: float, most: int) -> None:
        """Remove the rows that `due` returned; no other call may come in between."""
        for part, ripe in self._ripe(tick, most):
            _keep(part, np.delete(np.arange(len(part["key"])), ripe))
        self._parts = [part for part in self._parts if len(part["key"])]

    def within(self, spans: Mapping[int, tuple[int, int]]) -> bool:
        """Return whether a row belongs to a worker's requests from one to another, both included."""
        self._settle()
        for part in self._parts:
            incarnation, request = part["incarnation"], requests(part["key"])
            for number, (first, last) in spans.items():
                if ((incarnation == number) & (first <= request) & (request <= last)).any():
                    return True
        return False

    def has(self, incarnation: int, key: Ints) -> npt.NDArray[np.bool_]:
        """Return which of a worker's rows are waiting, bool[N]."""
        self._settle()
        mine = [part["key"][part["incarnation"] == incarnation] for part in self._parts]
        return np.isin(key, np.concatenate([np.empty(0, np.int64), *mine]))

    def forget(self, has: Callable[[Ints, Ints], npt.NDArray[np.bool_]]) -> int:
        """Remove the rows of which `has` returns True, given workers and keys int64[N]; return how many."""
        self._settle()
        forgotten = 0
        for part in self._parts:
            gone = has(part["incarnation"], part["key"])
            forgotten += int(gone.sum())
            _keep(part, ~gone)
        self._parts = [part for part in self._parts if len(part["key"])]
        return forgotten

    def state(self) -> dict[str, _Array]:
        """Return the state to save."""
        self._settle()
        return {name: np.concatenate([none, *(part[name] for part in self._parts)]) for name, none in EMPTY.items()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned."""
        saved = {name: take(arrays, name, none, any_rows=True) for name, none in EMPTY.items()}
        if len({len(array) for array in saved.values()}) > 1:
            raise Corrupt(
                f"the saved showings have {', '.join(f'{len(a)} of {name!r}' for name, a in saved.items())}; expected equal"
            )
        starts = range(0, len(saved["key"]), _PART_ROWS)
        self._parts = [{name: a[start : start + _PART_ROWS].copy() for name, a in saved.items()} for start in starts]
        self._added, self._labelled = [], []

    def _ripe(self, tick: float, most: int) -> list[tuple[_Columns, npt.NDArray[np.intp]]]:
        self._gather()
        found: list[tuple[_Columns, npt.NDArray[np.intp]]] = []
        for part in self._parts:
            if most > 0 and (ripe := np.flatnonzero(part["due"] <= tick)[:most]).size:
                found.append((part, ripe))
                most -= len(ripe)
        return found

    def _gather(self) -> None:
        """Merge the added rows into one part, together with the last part if that is small."""
        if self._added:
            if self._parts and len(self._parts[-1]["key"]) < _PART_ROWS:
                self._added.insert(0, self._parts.pop())
            self._parts.append({name: np.concatenate([part[name] for part in self._added]) for name in self._added[0]})
            self._added = []

    def _settle(self) -> None:
        """Remove the rows that have a label."""
        self._gather()
        if not self._labelled:
            return
        of, known = (np.concatenate(column) for column in zip(*self._labelled, strict=True))
        self._labelled.clear()
        for part in self._parts:
            labelled = np.zeros(len(part["key"]), np.bool_)
            for number in np.unique(of).tolist():
                mine = np.flatnonzero(part["incarnation"] == number)
                labelled[mine] = np.isin(part["key"][mine], known[of == number])
            if labelled.any():
                _keep(part, ~labelled)
        self._parts = [part for part in self._parts if len(part["key"])]


def _keep(part: _Columns, rows: _Array) -> None:
    for name, column in part.items():
        part[name] = column[rows]
