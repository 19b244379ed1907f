"""Live: publishes the tables of a stack as deltas, each with the rows touched since the last."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.examples import Examples
from riverdelta.corrections.interval import ENDS, Intervals
from riverdelta.corrections.stack import Stack
from riverdelta.corrections.table import Table
from riverdelta.graph.merge import GATE_WEIGHT
from riverdelta.learning.observers import Observer
from riverdelta.storage.registry import Delta, LiveStore, State

_KEPT_TIMES = 4096


class Live(Observer):
    """Publishes the current tables of a stack and the gate's weight; a delta's size is proportional to the rows touched.

    After a start it publishes nothing until the learner has caught up with what already serves, and then complete tables: a
    restart never serves an older state.
    """

    def __init__(self, store: LiveStore, stack: Stack, intervals: Intervals | None = None) -> None:
        self.store, self.stack = store, stack
        self._ends = {} if intervals is None else {ENDS: intervals.table}
        self.head = store.head()
        #: When this process last published (Unix seconds), 0 if it has not.
        self.published = 0.0
        self._base: State | None = None
        self._received: list[npt.NDArray[np.float64]] = []
        self._weight = Table(np.ones((1, 1)))
        self._changed = False

    def on_examples(self, position: int, examples: Examples) -> None:
        """Record when the feedback of learned examples was received."""
        self._received.append(examples.received)

    def report(self) -> dict[str, Any]:
        """Return the last swap, when it was published, and the release of its tables once there is one."""
        serving = {"swap": 0} if self.head is None else {"swap": self.head.swap, "release": self.head.release}
        return {"published": self.published, **serving}

    def show(self, stack: Stack) -> None:
        """Switch to the tables of another stack, and publish as soon as possible."""
        self.stack, self._base, self._changed = stack, None, True

    def renew(self) -> None:
        """Publish complete tables as soon as the learner has caught up with what serves."""
        self._base, self._changed = None, self._changed or self._base is not None

    def mark_dirty(self) -> None:
        """Publish as soon as possible: the tables have changed without an example.

        Before the learner has caught up this has no effect: all tables are published then.
        """
        self._changed = self._changed or self._base is not None

    def due(self, position: int) -> bool:
        """Whether there is something to publish at this journal position."""
        if self._base is None and not self._changed:
            return self.head is None or position >= self.head.position
        return self._changed or bool(self._received)

    def publish(self, release: int, position: int, weight: float, now: float) -> Delta:
        """Publish tables and weight at `position`: complete if the store needs that, otherwise the touched rows."""
        self._weight.touched[:] |= self._weight.values[0, 0] != np.float32(weight)
        self._weight.values[:] = weight
        base, self._base = self._base, None
        if base is None:  # a publish that failed may be there in part
            self.head = self.store.head() or self.head
        full = base is None or self.store.needs_whole()
        state = State(release, (self.head.swap if self.head else 0) + 1, position)
        tables = {**self.stack.tables(), GATE_WEIGHT: self._weight, **self._ends}
        touched = {name: None if full else np.flatnonzero(table.touched) for name, table in tables.items()}
        rows = {name: (at, tables[name].values[slice(None) if at is None else at]) for name, at in touched.items()}
        received = np.concatenate([np.empty(0), *self._received])
        if len(received) > _KEPT_TIMES:
            received = received[np.linspace(0, len(received) - 1, _KEPT_TIMES).astype(np.int64)]
        changed = {name: (at, values) for name, (at, values) in rows.items() if at is None or at.size}
        delta = Delta(state, None if full else base, changed, received, now)
        self.store.publish(delta)
        # Only now: if publishing fails, the rows stay touched for the next delta.
        for table in tables.values():
            table.touched[:] = False
        self._received.clear()
        self._changed = False
        self.head, self._base, self.published = state, state, now
        return delta
