"""Observers: follow the stream as the learner reads it, to report on it or to decide about releases."""

from __future__ import annotations

from typing import Any

from riverdelta.core.arrays import Arrays
from riverdelta.core.examples import Examples
from riverdelta.core.records import Impressions
from riverdelta.learning.outcomes import Outcome


class Observer:
    """Receives the rows scored, the examples joined and the outcome of each control, in order.

    A subclass overrides the methods that it needs. Learning never depends on an observer. Its methods must not raise or access
    files: each record is shown once. Its state is saved with the learner's, under its own name, and depends only on records.
    """

    def on_scored(self, position: int, impressions: Impressions) -> None:
        """Observe the scored rows of the record at `position`."""

    def on_examples(self, position: int, examples: Examples) -> None:
        """Observe examples that the record at `position` completed, after they were learned."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Observe the outcome of a command or other control."""

    def report(self) -> dict[str, Any]:
        """Return its part of the status, {} for none."""
        return {}

    def state(self) -> Arrays:
        """Return the state to save, {} if it starts over with each process."""
        return {}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over if that is {}: the checkpoint is older than the observer."""
