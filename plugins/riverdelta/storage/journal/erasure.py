"""Erasure: takes rows out of a journal, with their feedback, their names and every byte of them; positions stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from riverdelta.core.features import Ints
from riverdelta.core.records import Feedback, Impressions, Tick, encode, only
from riverdelta.learning.erased import Erased, Flags
from riverdelta.storage.journal.reader import Reader
from riverdelta.storage.log import Entry
from riverdelta.storage.log.base import Row

#: What replaces a record without rows: a tick without effect.
_NOTHING = Tick(0.0)
#: Records and marks that are written together.
_AT_ONCE, _MARKS = 64, 65_536
R = TypeVar("R", Impressions, Feedback)
_INDEX_BITS, _INDEX = 20, (1 << 20) - 1


def erase(journal: Reader, erased: Erased, before: int, pulse: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Erase rows in the records before a position, their feedback wherever it is, and their names; return counts by kind.

    Each step can be repeated: killed at any moment, the next call finds what is left. First the rows are marked, so that no
    more feedback for them is accepted; then the names of their requests and their feedback go, as long as their records show
    whose they are; then their records. `pulse` is called now and then.
    """
    log, subject = journal.log, erased.subject
    rows = [row for number, keys in erased.keys.items() for row in _rows(number, keys)]
    for start in range(0, len(rows), _MARKS):
        log.erase({}, rows[start : start + _MARKS])
        pulse()
    requests = {row[:2] for row in rows} | ({subject.request} if subject.request is not None else set())
    counts = {"rows": len(erased), "feedback": 0, "names": len(log.texts([subject.own]))}
    log.erase({}, requests=requests, ids=[subject.own])
    if rows:

        def has(record: Feedback) -> Flags:
            return erased.has(record.incarnation, _keys(record))

        for entries, items in _batches(journal, Feedback, log.last() + 1, has):
            counts["feedback"] += items
            log.erase(entries)
            pulse()
        for entries, _ in _batches(journal, Impressions, before, subject.among):
            log.erase(entries)
            pulse()
    return counts


def _batches(
    journal: Reader, kind: type[R], before: int, which: Callable[[R], Flags]
) -> Iterator[tuple[dict[int, Entry], int]]:
    """Yield the entries that replace records which have rows to erase, some at a time, and the number of those rows."""
    entries, rows = dict[int, Entry](), 0
    for place in journal.log.places(kind.kind, 0, before):
        for _, record in journal.read(place - 1, 1):
            if isinstance(record, kind) and (gone := which(record)).any():
                entries[place], rows = _entry(record, ~gone), rows + int(gone.sum())
        if len(entries) == _AT_ONCE:
            yield entries, rows
            entries, rows = {}, 0
    yield entries, rows


def _rows(incarnation: int, keys: Ints) -> list[Row]:
    return [(incarnation, key >> _INDEX_BITS, key & _INDEX) for key in keys.tolist()]


def _keys(record: Feedback | Impressions) -> Ints:
    return record.request << _INDEX_BITS | record.index


def _entry(record: Impressions | Feedback, left: Flags) -> Entry:
    if not left.any():
        return Entry.of(_NOTHING.kind, 1, encode(_NOTHING))
    kept = only(record, left)
    return Entry.of(kept.kind, len(kept), encode(kept))
