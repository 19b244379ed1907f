"""Known: the labels that had been received when an example was scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.features import Ints
from riverdelta.core.losses.base import Doubles

#: The most labels that are kept: if more wait, the oldest of them count as known.
KEPT = 32_768


class Moments(NamedTuple):
    """Of N rows: when what a row is about happened, when it was scored, when its label was received, and the item shown.

    Times are in Unix seconds, NaN if unknown. A row whose times are unknown knows all labels before it.
    """

    time: Doubles
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
        time, scored, received = (np.concatenate([part[column] for part in parts]) for column in range(3))
        items = [part.item for part in parts if part.item is not None]
        return cls(time, scored, received, np.concatenate(items) if len(items) == len(parts) else None)

    def at(self, rows: slice | npt.NDArray[Any]) -> Moments:
        """Return the moments of some rows."""
        return Moments(self.time[rows], self.scored[rows], self.received[rows], None if self.item is None else self.item[rows])


class Known:
    """The last labels in the order in which they came, for baselines that predict an example from those known at its scoring.

    An example knows the labels that were received when it was scored, or before, and came before its own.

    Attributes
    ----------
    learned
        How many of `rows` a baseline that only learns, and never unlearns, has learned: those that any example knew.
    """

    def __init__(self, facts: int) -> None:
        self._buffer, self._first, self._end = np.empty((256, 1 + facts)), 0, 0
        self.learned, self._latest = 0, -np.inf

    @property
    def rows(self) -> Doubles:
        """Labels kept, float64[M, 1 + F]: when each was received, and F facts of it."""
        return self._buffer[self._first : self._end]

    def add(self, moments: Moments, facts: Doubles, starts: Ints | None = None) -> tuple[Doubles, Ints, int]:
        """Add the labels of a block: facts float64[N, F] of each row.

        Returns `rows` with those added; int64[E], how many of them each example knows, an example being a row or the rows from
        one of `starts` to the next; and how many a baseline has learned before this block.
        """
        first = len(self.rows) + (np.arange(len(facts)) if starts is None else starts[:-1])
        # A label that is in the journal after another is known after it.
        received = np.nan_to_num(moments.received, nan=-np.inf)
        rows = self._append(np.column_stack([np.maximum.accumulate(np.append(self._latest, received))[1:], facts]))
        self._latest = float(rows[-1, 0]) if len(rows) else self._latest
        scored = np.nan_to_num(moments.scored if starts is None else moments.scored[starts[:-1]], nan=np.inf)
        until = np.searchsorted(rows[:, 0], scored, side="right")
        until = np.clip(until, np.maximum(first - KEPT, 0), first).astype(np.int64)
        before, learned = self.learned, max(self.learned, int(until.max(initial=0)))
        dropped = max(0, min(len(rows) - KEPT - 1, learned))
        self._first, self.learned = self._first + dropped, learned - dropped
        return rows, until, before

    def _append(self, added: Doubles) -> Doubles:
        if self._end + len(added) > len(self._buffer):
            kept = self.rows
            self._buffer = np.empty((2 * (len(kept) + len(added)), kept.shape[1]))
            self._buffer[: len(kept)] = kept
            self._first, self._end = 0, len(kept)
        self._buffer[self._end : self._end + len(added)] = added
        self._end += len(added)
        return self.rows

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save."""
        return {"known": self.rows.copy(), "learned": np.array([self.learned]), "latest": np.array([self._latest])}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit."""
        rows = take(arrays, "known", self.rows, any_rows=True)
        learned, latest = (take(arrays, name, mine) for name, mine in self.state().items() if name != "known")
        self._first = self._end = 0
        self._append(rows)
        self.learned, self._latest = int(learned[0]), float(latest[0])
