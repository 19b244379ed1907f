"""Reader: the journal's records for those that only read: the learner, a replay, an operator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from riverdelta.core.errors import Corrupt
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Feedback, Impressions, Record, Tick, decode, encode
from riverdelta.learning.erased import Erased, Subject
from riverdelta.storage.log import Entry, Log, Stored
from riverdelta.storage.log.base import Index, Needed

T = TypeVar("T")
#: What replaces a record without rows: a tick without effect.
NOTHING = Tick(0.0)


class Reader:
    """Reads a journal from its log; every method may be called from any thread.

    Records have one sequence number each, without gaps, and are read in that order only.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        #: See `Log`, of which these are.
        self.first, self.last, self.size, self.wait = log.first, log.last, log.size, log.wait

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return the records after sequence number `after`, about `rows` rows in all; raises `Corrupt` naming a damaged one."""
        return [(stored.sequence, _decoded(stored)) for stored in self.log.read(after, rows)]

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` if they cannot be read."""
        for _, record in self.read(sequence - 1, 1):
            if isinstance(record, Impressions):
                return record
        raise Corrupt(f"journal record {sequence} ({self.log.where}) has no impressions, but the index says that it has")

    def controls(self, after: int, before: int) -> list[tuple[int, Control]]:
        """Return the remaining controls between two positions, both excluded, without reading other records."""
        return [(sequence, record) for sequence, record in self._of(Control.kind, after, before) if isinstance(record, Control)]

    def commands(self, after: int, before: int) -> list[tuple[int, Instruction]]:
        """Return the remaining commands between two positions, both excluded, including those that version 0.1 wrote."""
        return sorted(
            (sequence, record)
            for kind in (Control.kind, Instruction.kind)
            for sequence, record in self._of(kind, after, before)
            if isinstance(record, Instruction)
        )

    def _of(self, kind: str, after: int, before: int) -> Iterator[tuple[int, Record]]:
        return (found for place in self.log.places(kind, after, before) for found in self.read(place - 1, 1))

    def complete_after(self) -> int:
        """Return the position after which every record remains, with every row that their feedback names."""
        swept, shown = self.log.swept(), self.settings().get("window_seconds") is not None
        for place in self.log.fed_up_to(swept, Feedback.kind):
            for _, record in self.read(place - 1, 1):
                if isinstance(record, Feedback):
                    last = np.array([swept.get(incarnation, -1) for incarnation in record.incarnation.tolist()])
                    if ((record.request <= last) & (shown | ~np.isnan(record.label))).any():
                        return place
        return self.first() - 1

    def erased(self, subject: Subject, before: int) -> Erased:
        """Return the rows of a subject in the records before a position."""
        if subject.request is not None:
            place = self.log.locate(subject.request)
            places = [] if place is None or place >= before else [place]
        else:
            places = self.log.places(Impressions.kind, 0, before)
        records = (record for place in places for _, record in self.read(place - 1, 1))
        return Erased.of(subject, (record for record in records if isinstance(record, Impressions)))

    def settings(self) -> dict[str, Any]:
        """Return the settings that learning reads, from their newest record; {} before the first."""
        return recorded(self.log, dict) or {}

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed = lambda spans: False) -> int:
        """Retire and delete the oldest records; return bytes freed. See `Retention.step`."""
        return self.log.sweep(behind, max_age, max_bytes, now, needed)

    def close(self) -> None:
        """Close the log."""
        self.log.close()


def recorded(index: Index, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what `read` returns for the newest record of the settings that learning reads; None before the first."""
    text = index.fact("settings")
    try:
        settings = json.loads(text)
        return None if settings == {} else read(settings)
    except (LookupError, TypeError, ValueError, RecursionError):
        raise Corrupt(f"{index.where} has {text!r:.80} as its 'settings'; it is damaged") from None


def encoded(record: Record) -> Entry:
    """Return a record as a log stores it."""
    return Entry.of(record.kind, len(record) if isinstance(record, Impressions | Feedback) else 1, encode(record))


def _decoded(stored: Stored) -> Record:
    try:
        return decode(stored.payload)
    except Corrupt as error:
        raise Corrupt(f"journal record {stored.sequence} in {stored.where}: {error}") from error
