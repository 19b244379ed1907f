"""Delays: what the gate had observed at each journal position, for labels that come later."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Arrays, take
from riverdelta.core.errors import Corrupt

_LEAST = 64
#: What the gate had observed at a position: examples, the sums of their spreads and shares, and its weight.
_FIELDS = ("position", "examples", "spread", "share", "weight")
SEEN = np.dtype([(name, np.float64) for name in _FIELDS])


class Delays:
    """The gate's observations at up to `capacity` journal positions, ascending: the first `held` of `rows`.

    The first is the beginning. When full, every other one of the older half is dropped: a row served from a dropped position
    counts as served from the one before it, so that its delay is never understated.

    >>> delays = Delays()
    >>> delays.note(7, examples=3.0, spread=0.5, share=0.1, weight=0.9)
    >>> delays.rows[: delays.held][["position", "examples"]].tolist()
    [(-1.0, 0.0), (7.0, 3.0)]
    """

    def __init__(self, capacity: int = 4096) -> None:
        self.capacity = max(capacity, _LEAST)
        self.rows = np.zeros(self.capacity, SEEN)
        self.rows[0] = -1.0, 0.0, 0.0, 0.0, 0.5
        self.held = 1

    def note(self, position: int, examples: float, spread: float, share: float, weight: float) -> None:
        """Record what was observed up to `position`, which must ascend."""
        if self.held == self.capacity:
            half = self.capacity // 2
            kept = np.concatenate([self.rows[:half:2], self.rows[half:]])
            self.held = len(kept)
            self.rows[: self.held] = kept
        self.rows[self.held] = position, examples, spread, share, weight
        self.held += 1

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save."""
        return {"delays": self.rows[: self.held].view(np.float64).reshape(-1, len(_FIELDS)).copy()}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit."""
        found = take(arrays, "delays", np.zeros((1, len(_FIELDS))), any_rows=True)
        if not len(found):
            raise Corrupt("the saved 'delays' has 0 rows; expected at least 1")
        kept = np.ascontiguousarray(found[-self.capacity :]).view(SEEN)[:, 0]
        self.held = len(kept)
        self.rows[: self.held] = kept
