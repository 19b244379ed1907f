"""Admission: which of the joined examples may be learned."""

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
    """The breaker, which lets nothing pass while it is open, and the limiter, which lets each entity pass so often."""

    def __init__(self, breaker: Breaker | None = None, limiter: Limiter | None = None, rolls_back: bool = False) -> None:
        self.breaker, self.limiter = breaker, limiter
        #: The trips of the breaker that need no rollback: one has answered them, or none was asked for when they came.
        self.rolled_back = 0
        self._rolls_back = rolls_back
        self._scored = 0

    @classmethod
    def of(cls, keys: Sequence[str], settings: Settings, loss: Loss = LOG_LOSS) -> Admission:
        """Return what the settings ask for, on the id columns `keys`; the breaker watches labels 0 and 1 alone."""
        s = settings
        breaker = (
            None
            if s.breaker == "off" or not loss.logit
            else Breaker(keys, s.breaker_resume_examples, silence=s.labels == "silence")
        )
        limit = s.max_updates_per_entity
        limiter = None if limit is None else Limiter(keys, limit, s.entity_window_seconds)
        return cls(breaker, limiter, s.breaker == "rollback")

    def scored(self, rows: int) -> None:
        """Note that rows were scored."""
        self._scored += rows

    def admit(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """Return bool[M]: what may be learned."""
        passes = np.ones(len(examples), np.bool_)
        if self.breaker is not None:
            passes = self.breaker.update(examples.columns, examples.label, examples.source, self._scored)
            self._scored = 0
            if not self._rolls_back:
                self.rolled_back = self.breaker.trips
        if self.limiter is not None and passes.any():
            columns = {name: examples.columns[name][passes] for name in self.limiter.keys}
            passes[passes] = self.limiter.admit(columns, examples.received[passes])
        return passes

    def resume(self) -> None:
        """Close the breaker: an operator says that all is well."""
        if self.breaker is not None:
            self.breaker.reset()

    def answered(self, trip: int) -> None:
        """Note that a trip of the breaker was answered by a rollback, 0 for none."""
        self.rolled_back = max(self.rolled_back, trip)

    def report(self) -> dict[str, Any]:
        """Return what is kept back, and why."""
        breaker, limiter = self.breaker, self.limiter
        return {
            "open": breaker.open if breaker else False,
            "reason": breaker.reason if breaker else None,
            "trips": breaker.trips if breaker else 0,
            "limited": limiter.refused if limiter else 0,
        }

    def state(self) -> dict[str, Array]:
        """Return what `load` needs."""
        counts = np.array([self.rolled_back, self._scored], np.int64)
        return {"counts": counts} | nest({name: each.state() for name, each in self._parts().items()})

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned; a part that was off then begins anew."""
        self.rolled_back, self._scored = take(arrays, "counts", np.zeros(2, np.int64)).tolist()
        for name, each in self._parts().items():
            if saved := part(arrays, name):
                each.load(saved)
            elif each is self.breaker:
                self.rolled_back = 0

    def _parts(self) -> dict[str, Breaker | Limiter]:
        parts = {"breaker": self.breaker, "limiter": self.limiter}
        return {name: each for name, each in parts.items() if each is not None}
