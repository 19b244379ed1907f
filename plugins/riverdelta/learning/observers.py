"""Observers: what is shown of the stream, and what is decided about releases, as the learner reads it."""

from __future__ import annotations

from typing import Any

from riverdelta.core.arrays import Arrays
from riverdelta.core.examples import Examples
from riverdelta.core.records import Impressions
from riverdelta.learning.outcomes import Outcome


class Observer:
    """Learns nothing and is shown everything: the rows scored, the examples joined, and what came of each control, in order.

    A subclass overrides what it needs. Nothing that is learned depends on an observer. Its methods may not fail and touch no
    files: a record is read once. What it saves lies beside the learner's state under the observer's own name, and follows from
    the records alone.
    """

    def on_scored(self, position: int, impressions: Impressions) -> None:
        """Observe the rows that the record at `position` says were scored."""

    def on_examples(self, position: int, examples: Examples) -> None:
        """Observe examples that the record at `position` completed, after they were learned."""

    def on_outcome(self, outcome: Outcome) -> None:
        """Observe what came of a command, or of another control."""

    def report(self) -> dict[str, Any]:
        """Return what the learner's status says of it, {} for nothing."""
        return {}

    def state(self) -> Arrays:
        """Return what `load` needs, {} where it begins anew at each start."""
        return {}

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned, or begin anew where that is {}: the observer is new."""
