"""Delays: what the gate had seen at each journal position, for labels that come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

_LEAST = 64


@numba.njit("int64(float64[:, ::1], int64, int64, float64, float64, float64, float64)", cache=True)
def keep(rows, held, position, examples, spread, share, weight):  # type: ignore[no-untyped-def]
    """Write one row behind the `held` first ones, and return how many there are then; see `Delays`."""
    capacity = rows.shape[0]
    if held == capacity:
        old = capacity // 2
        for i in range(1, (old + 1) // 2):
            rows[i] = rows[2 * i]
        held = (old + 1) // 2
        for i in range(old, capacity):
            rows[held] = rows[i]
            held += 1
    rows[held, 0], rows[held, 1], rows[held, 2], rows[held, 3], rows[held, 4] = position, examples, spread, share, weight
    return held + 1


class Delays:
    """Rows (position, examples, spread, share, weight), ascending by position, of which at most `capacity` are kept.

    When it is full every other one of the older half goes: a row served from a forgotten position counts as served from the
    one before it, so that its delay is never understated.

    The first row stands for the beginning. `rows` is the array that they lie in, `held` how many there are.

    >>> delays = Delays()
    >>> delays.note(7, [3.0, 0.5, 0.1, 0.9])
    >>> delays.rows[: delays.held, :2].tolist()
    [[-1.0, 0.0], [7.0, 3.0]]
    """

    def __init__(self, capacity: int = 4096) -> None:
        self.capacity = max(capacity, _LEAST)
        self.rows = np.zeros((self.capacity, 5))
        self.rows[0] = (-1.0, 0.0, 0.0, 0.0, 0.5)
        self.held = 1

    def note(self, position: int, seen: Sequence[float]) -> None:
        """Keep what was seen up to `position`, which comes after all before it."""
        self.held = keep(self.rows, self.held, position, *seen)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        return {"delays": self.rows[: self.held].copy()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        rows = arrays["delays"][-self.capacity :]
        self.held = len(rows)
        self.rows[: self.held] = rows
