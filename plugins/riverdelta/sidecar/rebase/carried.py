"""Carried: the past of a learner that reads a copied journal while its impressions are rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from riverdelta.core.arrays import Arrays
from riverdelta.core.records import Impressions, Record
from riverdelta.learning.erased import Erased, Subject
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.journal import Reader
from riverdelta.storage.journal.reader import NOTHING, encoded
from riverdelta.storage.log.rewriter import Rewriter

_READ_ROWS = 16_384


class Carried(Replayed):
    """The past of the new scorer: the rows as it scored them, and its own tables at the positions of the old releases.

    A rollback to a release whose record retention has deleted restores the tables that the replay began with: everything that
    was learned after them is what the rollback undid.
    """

    def __init__(self, journal: Reader, folder: Path, start: Arrays) -> None:
        super().__init__(journal, start)
        #: The position after which the replay begins.
        self.start = journal.first() - 1
        self._rewriter = Rewriter(folder)
        self._pending: dict[int, Record] = {}
        self._forgotten: set[tuple[int, int]] = set()

    def read(self, after: int, last: int) -> list[tuple[int, Record]]:
        """Return the next records up to `last`, about `_READ_ROWS` rows."""
        return [each for each in self._journal.read(after, _READ_ROWS) if each[0] <= last]

    def put(self, sequence: int, logged: Impressions, scored: Impressions | None) -> Record:
        """Replace the impressions at a position by the rows as scored, or drop them if that is None; return the new record."""
        if scored is None:
            self._forgotten.add((logged.incarnation, int(logged.request[0])))
        return self._pending.setdefault(sequence, NOTHING if scored is None else scored)

    def flush(self) -> None:
        """Write the records that were `put` since the last call."""
        self._rewriter.write({at: encoded(each) for at, each in self._pending.items()}, self._forgotten)
        self._pending.clear()
        self._forgotten.clear()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
        self._rewriter.close()

    def settings(self) -> Mapping[str, Any]:
        """Return the first settings on record, or those in effect if retention has deleted that record."""
        return super().settings() or self._journal.settings()

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the sequence number of the record with a request's rows, None if it is deleted or dropped."""
        self.flush()
        return super().locate(incarnation, request)

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record."""
        self.flush()
        return super().impressions(sequence)

    def erased(self, subject: Subject, before: int) -> Erased:
        """Return the rows of a subject in the records before a position."""
        self.flush()
        return super().erased(subject, before)

    def records(self, after: int, before: int) -> Iterable[tuple[int, Record]]:
        """Return the records between two positions, both excluded, starting with the oldest that is left."""
        self.flush()
        return super().records(max(after, self.start), before)

    def state(self, position: int) -> Arrays:
        """Return the state at the position of an old release."""
        return super().state(0 if position <= self.start else position)
