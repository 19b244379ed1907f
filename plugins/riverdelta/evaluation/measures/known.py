"""Known: the labels that had been received when an example was scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.losses.base import Doubles

#: The most labels that are kept: if more wait, the oldest of them count as known.
KEPT = 32_768
#: The type of what `Known.room` returns.
ROOM = types.Tuple((types.float64[:, ::1], types.int64, types.int64, types.int64))  # type: ignore[no-untyped-call]


class Moments(NamedTuple):
    """Of N rows: when what a row is about happened, when it was scored, when its label was received, and the item shown.

    Times are in Unix seconds, NaN if unknown. A row whose times are unknown knows all labels before it, and one of which only
    the first is unknown is about the moment at which it was scored.
    """

    event: Doubles
    scored: Doubles
    received: Doubles
    item: npt.NDArray[np.int64] | None = None

    @classmethod
    def unknown(cls, rows: int) -> Moments:
        """Return the moments of rows without any."""
        return cls(*np.full((3, rows), np.nan))

    @classmethod
    def joined(cls, parts: Sequence[Moments]) -> Moments:
        """Return the moments of all parts in order; items only if all have them."""
        event, scored, received = (np.concatenate([part[column] for part in parts]) for column in range(3))
        items = [part.item for part in parts if part.item is not None]
        return cls(event, scored, received, np.concatenate(items) if len(items) == len(parts) else None)

    def at(self, rows: slice | npt.NDArray[Any]) -> Moments:
        """Return the moments of some rows."""
        return Moments(self.event[rows], self.scored[rows], self.received[rows], None if self.item is None else self.item[rows])


@numba.njit
def until(rows, held, scored, kept, before):  # type: ignore[no-untyped-def]
    """Return how many of rows[:held] an example knows that was scored then, NaN for all; the last example knew `before`."""
    least = max(held - kept, 0)
    if held == 0 or not rows[held - 1, 0] > scored:
        return held
    # Examples of one request know the same.
    if least < before < held and rows[before - 1, 0] <= scored < rows[before, 0]:
        return before
    low, high = least, held
    while low < high:
        middle = (low + high) // 2
        if rows[middle, 0] <= scored:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit
def came(rows, held, received):  # type: ignore[no-untyped-def]
    """Note when the label after rows[:held] was received, NaN if unknown: one that is in the journal after another is known
    after it."""
    latest = rows[held - 1, 0] if held > 0 else -math.inf
    rows[held, 0] = received if received > latest else latest


class Known:
    """The last labels in the order in which they came, for baselines that predict an example from those known at its scoring.

    An example knows the labels that were received when it was scored, or before, and came before its own. Kernels call `until`
    and `came` for each example.

    Attributes
    ----------
    learned
        How many of `rows` a baseline that only learns, and never unlearns, has learned: those that any example knew.
    """

    def __init__(self, facts: int) -> None:
        self._buffer, self._first, self._end, self.learned = np.empty((256, 1 + facts)), 0, 0, 0

    @property
    def rows(self) -> Doubles:
        """Labels kept, float64[M, 1 + F]: when each was received, and F facts of it."""
        return self._buffer[self._first : self._end]

    def room(self, more: int) -> tuple[Doubles, int, int, int]:
        """Return `rows` with room for more, to be filled; M; `learned`; and the number of last rows that may be unknown."""
        if self._end + more > len(self._buffer):
            kept = self.rows
            self._buffer = np.empty((2 * (len(kept) + more), kept.shape[1]))
            self._buffer[: len(kept)] = kept
            self._first, self._end = 0, len(kept)
        return self._buffer[self._first : self._end + more], len(self.rows), self.learned, KEPT

    def add(self, more: int, learned: int) -> None:
        """Add the rows that were filled; drop what is learned and too old to be unknown."""
        self._end += more
        dropped = max(0, min(len(self.rows) - KEPT - 1, learned))
        self._first, self.learned = self._first + dropped, learned - dropped

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save."""
        return {"known": self.rows.copy(), "learned": np.array([self.learned])}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit."""
        rows = take(arrays, "known", self.rows, any_rows=True)
        learned = take(arrays, "learned", np.array([self.learned]))
        self._first = self._end = 0
        self.room(len(rows))[0][:] = rows
        self._end, self.learned = len(rows), int(learned[0])
