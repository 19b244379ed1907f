"""Recall: past states and records of a learner, read from a journal and its releases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from riverdelta.core.arrays import Arrays, nest, part
from riverdelta.core.errors import NotFound
from riverdelta.core.records import SETTINGS, Control, Impressions, Record
from riverdelta.learning.command import Command, Past
from riverdelta.learning.commands import Rollback
from riverdelta.learning.erased import Erased, Subject
from riverdelta.learning.recall import Recall
from riverdelta.storage.journal import Journal, Reader
from riverdelta.storage.registry import ReleaseStore

_READ_ROWS = 65_536


class Journalled(Recall):
    """The past of a learner that is in its journal."""

    def __init__(self, journal: Reader) -> None:
        self._journal = journal

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the sequence number of the record with a request's rows, None if it is deleted."""
        return self._journal.log.locate((incarnation, request))

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record."""
        return self._journal.impressions(sequence)

    def erased(self, subject: Subject, before: int) -> Erased:
        """Return the rows of a subject in the records before a position."""
        return self._journal.erased(subject, before)

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record, {} if there are none, as in journals of version 0.1."""
        controls = self._journal.controls(0, self._journal.last() + 1)
        refused = _refusals(controls)
        applied = (control for sequence, control in controls if control.action == SETTINGS and sequence not in refused)
        return next((control.arguments for control in applied), {})

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Yield the records between two positions, both excluded; raises `NotFound` at the first missing one."""
        while after + 1 < before:
            records = self._journal.read(after, _READ_ROWS)
            if not records or records[0][0] != after + 1:
                raise NotFound(f"journal record {after + 1} was deleted")
            for sequence, record in records:
                yield sequence, record
                after = sequence
                if after + 1 == before:
                    return


class Kept(Journalled):
    """The past of a running learner: its releases and its journal."""

    def __init__(
        self,
        store: ReleaseStore,
        journal: Journal,
        keep: Callable[[int], int],
        past: Past | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(journal)
        self._journal: Journal = journal
        self._store, self._keep, self._past, self._clock = store, keep, past, clock
        #: The last record of earlier processes; their refusals are read once.
        self._before = journal.last()
        self._refused: dict[int, str] | None = None

    def refusal(self, sequence: int) -> str | None:
        """Return the refusal that an earlier process recorded, None if there is none."""
        if sequence > self._before:
            return None
        if self._refused is None:
            self._refused = _refusals(self._journal.controls(sequence, self._before + 1))
        return self._refused.get(sequence)

    def refuse(self, sequence: int, reason: str) -> None:
        """Record a refusal unless it is recorded already."""
        if self.refusal(sequence) is None:
            self._journal.write(Control("refused", {"sequence": sequence, "reason": reason}, self._clock()))

    def check(self, command: Command, position: int | None) -> None:
        """Raise as `Command.check` does if a command cannot be applied."""
        if self._past is not None:
            command.check(self._past, position)

    def keep(self, position: int, state: Callable[[], Arrays]) -> int | None:
        """Make the release, or return the number of the one that this record made before; None if that is already deleted."""
        made = next((release for release in self._store.all() if release.position >= position), None)
        if made is None:
            return self._keep(position)
        # Only a later one is left: retention has deleted the one that this record made.
        return made.number if made.position == position else None

    def state(self, position: int) -> Arrays:
        """Return the state at a release's position."""
        return _stored(self._store, position)


class Replayed(Journalled):
    """The past of a replay from the start of a journal: it keeps only the states that a later rollback needs.

    Of a replay that begins later, `store` has those from before.
    """

    def __init__(self, journal: Reader, start: Arrays, store: ReleaseStore | None = None) -> None:
        super().__init__(journal)
        self._store = store
        self._made = 0
        until = journal.last() + 1
        self._wanted = {asked.position for _, asked in journal.commands(0, until) if asked.action == Rollback.name}
        self._refused = _refusals(journal.controls(0, until))
        # As in release 0: only the stack.
        self._states: dict[int, Arrays] = {0: nest({"stack": _copied(part(start, "stack"))})}

    def refusal(self, sequence: int) -> str | None:
        """Return the refusal that a later record holds, None if there is none."""
        return self._refused.get(sequence)

    def keep(self, position: int, state: Callable[[], Arrays]) -> int | None:
        """Copy the state if a rollback needs it, and return the number of the release."""
        if position in self._wanted:
            self._states[position] = _copied(state())
        self._made += 1
        return self._made

    def reached(self, position: int, state: Callable[[], Arrays]) -> None:
        """Copy the state at a position that a rollback needs and no record made: release 1 of a rebased home."""
        if position in self._wanted and position not in self._states:
            self._states[position] = _copied(state())

    def state(self, position: int) -> Arrays:
        """Return the state at a release's position."""
        if position in self._states:
            return self._states[position]
        if self._store is None:
            raise NotFound(f"no release was made at position {position}")
        return _stored(self._store, position)


def _stored(store: ReleaseStore, position: int) -> Arrays:
    if (release := next((r for r in store.all() if r.position == position), None)) is None:
        raise NotFound(f"the release at position {position} was deleted")
    return store.state(release)


def _copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _refusals(controls: Iterable[tuple[int, Control]]) -> dict[int, str]:
    """Return the reason of each refusal, by the sequence number of the refused control."""
    refused = [control.arguments for _, control in controls if control.action == "refused"]
    return {int(arguments["sequence"]): str(arguments["reason"]) for arguments in refused}
