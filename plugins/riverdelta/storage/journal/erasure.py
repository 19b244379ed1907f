"""Erasure: takes rows out of a journal, with their feedback, their names and every byte of them; positions stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from riverdelta.core.keys import indices, keys, requests
from riverdelta.core.records import Feedback, Impressions, only
from riverdelta.learning.erased import Erased, Flags
from riverdelta.storage.journal.reader import NOTHING, Reader, encoded
from riverdelta.storage.log import Entry

#: Records and marks that are written together.
_AT_ONCE, _MARKS = 64, 65_536
R = TypeVar("R", Impressions, Feedback)


def erase(journal: Reader, erased: Erased, before: int, pulse: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Erase rows in the records before a position, their feedback wherever it is, and their names; return counts by kind.

    Each step can be repeated: killed at any moment, the next call finds what is left. First the rows are marked, so that no
    more feedback for them is accepted; then the names of their requests and their feedback go, as long as their records show
    whose they are; then their records. `pulse` is called now and then.
    """
    log, subject = journal.log, erased.subject
    rows = [
        (number, *row)
        for number, key in erased.keys.items()
        for row in zip(requests(key).tolist(), indices(key).tolist(), strict=True)
    ]
    for start in range(0, len(rows), _MARKS):
        log.erase({}, rows[start : start + _MARKS])
        pulse()
    cut = {row[:2] for row in rows} | ({subject.request} if subject.request is not None else set())
    counts = {"rows": len(erased), "feedback": 0, "names": len(log.texts([subject.own]))}
    log.erase({}, requests=cut, ids=[subject.own])
    if rows:

        def has(record: Feedback) -> Flags:
            return erased.has(record.incarnation, keys(record.request, record.index))

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


def _entry(record: Impressions | Feedback, left: Flags) -> Entry:
    if not left.any():
        return encoded(NOTHING)
    return encoded(only(record, left))
