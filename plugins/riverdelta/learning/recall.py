"""Recall: the past states and records that a rollback needs, and the refusals on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from riverdelta.core.arrays import Arrays
from riverdelta.core.errors import NotFound
from riverdelta.core.records import Record
from riverdelta.learning.command import Command
from riverdelta.learning.erased import Erased, Subject
from riverdelta.learning.joiner import Source


class Recall(Source):
    """The states of a learner at its releases, by journal position, the records since, and the refusals.

    Whether a control can be applied depends on what is left on disk, which a replay does not have. So each refusal is recorded,
    as `{"action": "refused"}`, and a replay refuses the same controls.

    This base class has no past: it refuses only rollbacks. Subclasses have one.
    """

    def refusal(self, sequence: int) -> str | None:
        """Return why the control at `sequence` was refused when it was read before; None if it was not."""
        return None

    def refuse(self, sequence: int, reason: str) -> None:
        """Record that the control at `sequence` is refused; raises `Unavailable` if that cannot be written now."""

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record, which apply to the records before them too; {} if there are none."""
        return {}

    def check(self, command: Command, position: int | None) -> None:
        """Raise as `Command.check` does if a command cannot be applied; a replay relies on the recorded refusals instead."""

    def keep(self, position: int, state: Callable[[], Arrays]) -> int | None:
        """Make a release of the learner's `state` at `position`, the record being applied; return its number, if any.

        Raises `ParityError` if the release fails its parity check.
        """
        return None

    def erased(self, subject: Subject, before: int) -> Erased:
        """Return the rows of a subject in the records before a position; here, where there are no records, none."""
        return Erased(subject)

    def state(self, position: int) -> Arrays:
        """Return the state at a release's position; raises `NotFound` or `Corrupt` if it is not available."""
        raise NotFound(f"no state was kept at position {position}")

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return the records between two positions, both excluded; raises `NotFound` or `Corrupt` if one is missing."""
        return ()
