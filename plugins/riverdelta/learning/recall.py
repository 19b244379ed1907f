"""Recall: what a learner needs of the past to go back, and whether it may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from riverdelta.core.arrays import Arrays
from riverdelta.core.errors import NotFound
from riverdelta.core.records import Record
from riverdelta.learning.commands import Command
from riverdelta.learning.joiner import Source


class Recall(Source):
    """The states of a learner at releases, by their journal positions, the records since, and what was refused.

    Whether a control can be carried out depends on what is left on disk, which a replay does not have. So a refusal is a record
    itself, `{"action": "refused"}`, and whoever reads the control again refuses it as well.

    This one has no past: it refuses nothing but a rollback. Subclasses have one.
    """

    def refusal(self, sequence: int) -> str | None:
        """Return why the control at `sequence` was refused when it was read before; None where it was not."""
        return None

    def refuse(self, sequence: int, reason: str) -> None:
        """Record that the control at `sequence` is refused; raises `Unavailable` where that cannot be written now."""

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record, which count for the records before them; {} where there are none."""
        return {}

    def check(self, command: Command, position: int | None) -> None:
        """Raise as `Command.check` does where a command cannot be carried out; a replay has the refusals on record instead."""

    def keep(self, position: int, state: Callable[[], Arrays]) -> int | None:
        """Make a release of the learner's `state` at `position`, the record that it is taking; return its number, if any.

        Raises `ParityError` where the release fails its parity check.
        """
        return None

    def state(self, position: int) -> Arrays:
        """Return the state at a release's position; raises `NotFound` or `Corrupt` where it cannot be had."""
        raise NotFound(f"no state was kept at position {position}")

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return the records between two positions, both excluded; raises `NotFound` or `Corrupt` where one is missing."""
        return ()
