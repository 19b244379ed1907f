"""Shelf: the rows of one worker that may still become examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]
_LEAST_CAPACITY = 1024


class Shelf:
    """Named columns with one row per impression, ascending by `key` int64; `remove` takes rows from anywhere.

    Each column is one array with room at its end, so that finding and gathering rows is one numpy call however small the
    blocks were. `sequence` is the record of a row.

    >>> shelf = Shelf()
    >>> shelf.add({"key": np.array([3, 5, 9]), "sequence": np.array([1, 1, 2]), "time": np.array([0.1, 0.2, 0.3])})
    >>> at, found = shelf.find(np.array([9, 4]))
    >>> found.tolist(), shelf["time"][at[found]].tolist()
    ([True, False], [0.3])
    """

    def __init__(self) -> None:
        self._columns: dict[str, Array] = {}
        self._live: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
        self._end = 0
        self._newest = -1
        self.rows = 0

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][: self._end]

    @property
    def bytes(self) -> int:
        """The size of its arrays in bytes."""
        return self._live.nbytes + sum(column.nbytes for column in self._columns.values())

    @property
    def row_bytes(self) -> int:
        """The size of one row in bytes."""
        return sum(column[:1].nbytes for column in self._columns.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    def add(self, rows: Mapping[str, Array]) -> None:
        """Append rows; raises `Corrupt` if their columns differ from the earlier ones or keys do not ascend."""
        key, count = rows["key"], len(rows["key"])
        if not count:
            return
        if not self._columns:
            self._columns = {name: np.empty((0, *column.shape[1:]), column.dtype) for name, column in rows.items()}
        if _layout(rows) != _layout(self._columns):
            raise Corrupt(f"impressions have the columns {_shown(rows)}; expected {_shown(self._columns)} as before")
        if key[0] <= self._newest or (np.diff(key) <= 0).any():
            raise Corrupt(f"impressions do not ascend by request and row: key {key[0]} follows {self._newest}")
        if self._end + count > len(self._live):
            self._make_room(count)
        place = slice(self._end, self._end + count)
        for name, column in self._columns.items():
            column[place] = rows[name]
        self._live[place] = True
        self._end += count
        self._newest = int(key[-1])
        self.rows += count

    def find(self, keys: Ints) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Return the place of each key, and whether it is there."""
        if not self._end:
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        at = np.minimum(np.searchsorted(self["key"], keys), self._end - 1)
        return at, (self["key"][at] == keys) & self._live[at]

    def remove(self, at: Rows) -> None:
        """Remove rows, each given once."""
        self._live[at] = False
        self.rows -= len(at)
        if not self.rows:
            self._end = 0
        if len(self._live) > _LEAST_CAPACITY + 4 * self.rows:
            self._make_room(0)

    def compact(self) -> None:
        """Free the room that exceeds the size of its rows."""
        if len(self._live) > 2 * self.rows + _LEAST_CAPACITY:
            self._move(max(_LEAST_CAPACITY, 2 * self.rows))

    def take(self, at: Rows) -> Shelf:
        """Return a shelf with copies of some rows, in the given order; no rows can be added to it."""
        taken = Shelf()
        taken._columns = {name: column[at] for name, column in self._columns.items()}
        taken._live, taken._end, taken.rows = np.ones(len(at), np.bool_), len(at), len(at)
        return taken

    @property
    def first(self) -> int:
        """The place of the first row; the shelf must not be empty."""
        return int(self._live[: self._end].argmax())

    def oldest(self) -> Rows:
        """Return the remaining rows of the oldest record; the shelf must not be empty."""
        start = self.first
        end = int(np.searchsorted(self["sequence"], self["sequence"][start], side="right"))
        return start + np.flatnonzero(self._live[start:end])

    def all(self) -> Rows:
        """Return every row."""
        return np.flatnonzero(self._live[: self._end])

    def _make_room(self, count: int) -> None:
        """Close the gaps, and leave room for as many rows again: a row is moved a constant number of times on average.

        The first rows get no extra room, since many shelves have no others; no new array is made if there is enough room.
        """
        needed, capacity = self.rows + count, len(self._live)
        if not 3 * needed // 2 <= capacity <= _LEAST_CAPACITY + 4 * needed:
            capacity = max(_LEAST_CAPACITY, 2 * needed) if self._end else needed
        self._move(capacity)

    def _move(self, capacity: int) -> None:
        kept = self.all()
        for name, column in self._columns.items():
            room = column if capacity == len(column) else np.empty((capacity, *column.shape[1:]), column.dtype)
            room[: len(kept)] = column[kept]
            self._columns[name] = room
        self._live = np.arange(capacity) < len(kept)
        self._end = len(kept)


def _layout(columns: Mapping[str, Array]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    return {name: (column.dtype, column.shape[1:]) for name, column in columns.items()}


def _shown(columns: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {column.dtype}{list(column.shape[1:])}" for name, column in sorted(columns.items()))
