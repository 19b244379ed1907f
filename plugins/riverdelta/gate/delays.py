"""Delays: what the gate had seen at each journal position, for labels that come later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST = 64


class Delays:
    """Rows (position, examples, spread, share, weight), ascending by position, of which at most `capacity` are kept.

    When it is full every other one of the older half goes: a row served from a forgotten position counts as served from the
    one before it, so that its delay is never understated.

    The first row stands for the beginning.

    >>> delays = Delays()
    >>> delays.note(7, [3.0, 0.5, 0.1, 0.9])
    >>> rows, held = delays.place()
    >>> rows[:held, :2].tolist()
    [[-1.0, 0.0], [7.0, 3.0]]
    """

    def __init__(self, capacity: int = 4096) -> None:
        self.capacity = max(capacity, _LEAST)
        self._rows = np.zeros((self.capacity, 5))
        self._rows[0] = (-1.0, 0.0, 0.0, 0.0, 0.5)
        self._held = 1

    def note(self, position: int, seen: npt.ArrayLike) -> None:
        """Keep what was seen up to `position`, which comes after all before it."""
        if self._held == self.capacity:
            old = self.capacity // 2
            kept = np.concatenate([self._rows[:old:2], self._rows[old:]])
            self._held = len(kept)
            self._rows[: self._held] = kept
        self._rows[self._held, 0] = position
        self._rows[self._held, 1:] = seen
        self._held += 1

    def place(self) -> tuple[npt.NDArray[np.float64], int]:
        """Return the array that the rows lie in, and how many there are."""
        return self._rows, self._held

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        return {"delays": self._rows[: self._held].copy()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        rows = arrays["delays"][-self.capacity :]
        self._held = len(rows)
        self._rows[: self._held] = rows
