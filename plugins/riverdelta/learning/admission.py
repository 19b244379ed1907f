"""Admission: decides which joined examples are learned, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core import senders
from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.settings import Settings
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.influence import Limiter
from riverdelta.learning.shares import Shares

Rows = npt.NDArray[np.bool_]


def _starts(group: Ints) -> Ints:
    return np.flatnonzero(np.diff(group, prepend=group[0] - 1)) if len(group) else np.empty(0, np.int64)


def together(rows: Rows, group: Ints) -> Rows:
    """Return bool[M]: whether all rows of the row's list are marked; the rows of a list are adjacent.

    >>> together(np.array([True, False, True]), np.array([5, 5, 6])).tolist()
    [False, False, True]
    """
    starts = _starts(group)
    return np.repeat(np.logical_and.reduceat(rows, starts), np.diff(starts, append=len(group))) if len(group) else rows


class Admission:
    """The limits of each entity and of each sender, and the breaker, which while tripped holds what they admit.

    Limits apply when an example comes, whether the breaker is open or not, so that what is held is what would have been
    learned. A list passes or fails as a unit: the limit of an entity counts its labels above 0, all of which have to pass.
    """

    def __init__(
        self,
        breaker: Breaker | None = None,
        limiter: Limiter | None = None,
        rolls_back: bool = False,
        shares: Shares | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.breaker, self.limiter, self.shares = breaker, limiter, shares
        #: The names of senders by number.
        self.names = names or {}
        #: The trips of the breaker that need no rollback: it was done, or not requested when they occurred.
        self.rolled_back = 0
        self._rolls_back = rolls_back

    @classmethod
    def of(cls, keys: Sequence[str], settings: Settings, loss: Loss = LOG_LOSS) -> Admission:
        """Return the admission that the settings request, on the id columns `keys`; some losses have no breaker."""
        s = settings
        breaker = Breaker(loss) if s.breaker != "off" and Breaker.watches(loss) else None
        limit = s.max_updates_per_entity
        limiter = None if limit is None else Limiter(keys, limit, s.entity_window_seconds)
        shares = Shares(s.sender_burst) if s.sender_burst else None
        return cls(breaker, limiter, s.breaker == "rollback", shares, senders.names(s))

    @property
    def open(self) -> bool:
        """Whether the breaker is tripped, so that what comes is held."""
        return self.breaker is not None and self.breaker.open

    def watch(self, examples: Examples, passes: Rows) -> Rows:
        """Let the breaker observe examples with their scores; return which it lets pass, bool[M] as `passes` of the limits."""
        if self.breaker is None:
            return np.ones(len(examples), np.bool_)
        closed = self.breaker.update(examples, passes)
        if not self._rolls_back:
            self.rolled_back = self.breaker.trips
        return closed

    def admit(self, examples: Examples, watched: bool = True) -> tuple[Rows, Rows]:
        """Return which of M examples may be learned now, and which are held for later, bool[M] each.

        Without `watched` their scores are not known yet: they are at most the rest of the breaker's `CHECK` examples, for which
        it has decided, and `watch` must follow once they are scored, with those of both kinds.
        """
        e, passes = examples, np.ones(len(examples), np.bool_)
        # A light example counts for 1: a correction forgets with each, however light. One of weight 0 is not learned.
        learned = e.weight > 0 if e.group is None else (e.weight > 0) & (e.label > 0)
        if self.limiter is not None:
            passes = self.limiter.admit(e.columns, e.received, np.where(learned, np.maximum(e.sent, 1.0), 0.0))
        if self.shares is not None:
            weight = np.where(learned & (e.sent < 1.0), np.maximum(e.weight, np.float32(1.0)), e.weight)
            if e.group is None:
                passes[passes] = self.shares.admit(e.source[passes], weight[passes], e.received[passes])
            else:
                passes = self._share_lists(e, e.group, passes, np.where(learned, weight, np.float32(0.0)))
        elif e.group is not None:
            passes = together(passes, e.group)
        closed = self.watch(e, passes) if watched else np.full(len(e), not self.open)
        if e.group is not None:
            closed = together(closed, e.group)
        return passes & closed, passes & ~closed

    def _share_lists(self, e: Examples, group: Ints, passes: Rows, weight: Floats) -> Rows:
        """Return which lists pass the limits of senders: each is one example, of the sender of its first label above 0."""
        assert self.shares is not None
        starts, rows = _starts(group), len(group)
        first = np.minimum.reduceat(np.where(weight > 0, np.arange(rows), rows), starts)
        source = e.source[np.where(first < rows, first, starts)]
        admitted = np.logical_and.reduceat(passes, starts)
        total, received = np.add.reduceat(weight, starts), np.maximum.reduceat(e.received, starts)
        admitted[admitted] = self.shares.admit(source[admitted], total[admitted], received[admitted])
        return np.repeat(admitted, np.diff(starts, append=rows))

    def resume(self, learned: bool) -> None:
        """Reset the breaker on an operator's command, which also answers the rollback that it requested.

        `learned` says whether what came since the trip is learned.
        """
        if self.breaker is not None:
            self.breaker.reset(learned)
            self.answered(self.breaker.trips)

    def answered(self, trip: int) -> None:
        """Record the rollback that the breaker requested at its trip number `trip`, 0 for none."""
        self.rolled_back = max(self.rolled_back, trip)

    def report(self) -> dict[str, Any]:
        """Return what is not admitted, and why."""
        breaker, limiter = self.breaker, self.limiter
        return {
            "open": self.open,
            "reason": breaker.explain(self.names) if breaker else None,
            "trips": breaker.trips if breaker else 0,
            "limited": limiter.refused if limiter else 0,
            "senders": self.shares.report(self.names) if self.shares else None,
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

    def _parts(self) -> dict[str, Breaker | Limiter | Shares]:
        parts = {"breaker": self.breaker, "limiter": self.limiter, "shares": self.shares}
        return {name: each for name, each in parts.items() if each is not None}
