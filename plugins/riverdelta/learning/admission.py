"""Admission: decides which joined examples are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.examples import Examples
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.settings import Settings
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.influence import Limiter


class Admission:
    """The breaker, which admits nothing while tripped, and the limiter, which limits the examples of each entity."""

    def __init__(self, breaker: Breaker | None = None, limiter: Limiter | None = None, rolls_back: bool = False) -> None:
        self.breaker, self.limiter = breaker, limiter
        #: The trips of the breaker that need no rollback: it was done, or not requested when they occurred.
        self.rolled_back = 0
        self._rolls_back = rolls_back

    @classmethod
    def of(cls, keys: Sequence[str], settings: Settings, loss: Loss = LOG_LOSS) -> Admission:
        """Return the admission that the settings request, on the id columns `keys`; the breaker needs labels of 0 and 1."""
        s = settings
        breaker = Breaker() if s.breaker != "off" and loss.logit else None
        limit = s.max_updates_per_entity
        limiter = None if limit is None else Limiter(keys, limit, s.entity_window_seconds)
        return cls(breaker, limiter, s.breaker == "rollback")

    def watch(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """Let the breaker observe examples with their scores; return bool[M]: which it lets pass."""
        if self.breaker is None:
            return np.ones(len(examples), np.bool_)
        passes = self.breaker.update(examples)
        if not self._rolls_back:
            self.rolled_back = self.breaker.trips
        return passes

    def admit(self, examples: Examples, watched: bool = True) -> npt.NDArray[np.bool_]:
        """Return bool[M]: which examples may be learned.

        Without `watched` their scores are not known yet: they are at most the rest of the breaker's `CHECK` examples, for which
        it has decided, and `watch` must follow once they are scored.
        """
        is_open = self.breaker is not None and self.breaker.open
        passes = self.watch(examples) if watched else np.full(len(examples), not is_open)
        if self.limiter is not None and passes.any():
            columns = {name: examples.columns[name][passes] for name in self.limiter.keys}
            passes[passes] = self.limiter.admit(columns, examples.received[passes])
        return passes

    def resume(self) -> None:
        """Reset the breaker on an operator's command."""
        if self.breaker is not None:
            self.breaker.reset()

    def answered(self, trip: int) -> None:
        """Record the rollback that the breaker requested at its trip number `trip`, 0 for none."""
        self.rolled_back = max(self.rolled_back, trip)

    def report(self) -> dict[str, Any]:
        """Return what is not admitted, and why."""
        breaker, limiter = self.breaker, self.limiter
        return {
            "open": breaker.open if breaker else False,
            "reason": breaker.reason if breaker else None,
            "trips": breaker.trips if breaker else 0,
            "limited": limiter.refused if limiter else 0,
        }

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        return {"counts": np.array([self.rolled_back], np.int64)} | nest(
            {name: each.state() for name, each in self._parts().items()}
        )

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; a part that was off when it was saved starts over."""
        # Version 0.1 saved another number after it.
        self.rolled_back = int(take(arrays, "counts", np.zeros(1, np.int64), any_rows=True)[:1].sum())
        for name, each in self._parts().items():
            if saved := part(arrays, name):
                each.load(saved)
            elif each is self.breaker:
                self.rolled_back = 0

    def _parts(self) -> dict[str, Breaker | Limiter]:
        parts = {"breaker": self.breaker, "limiter": self.limiter}
        return {name: each for name, each in parts.items() if each is not None}
