"""Erasure: takes rows out of a journal, with their feedback, their names and every byte of them; positions stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from riverdelta.core.keys import indices, keys, requests
from riverdelta.core.records import Feedback, Impressions, only
from riverdelta.learning.erased import Erased, Flags
from riverdelta.storage.journal.entries import NOTHING, encoded
from riverdelta.storage.journal.reader import Reader
from riverdelta.storage.log import Entry
from riverdelta.storage.log.base import Request

#: Records and marks that are written together.
_AT_ONCE, _MARKS = 64, 65_536
R = TypeVar("R", Impressions, Feedback)


def erase(journal: Reader, erased: Erased, before: int, pulse: Callable[[], None] = lambda: None) -> dict[str, int]:
    """Erase rows in the records before a position, their feedback wherever it is, and their names; return counts by kind.

    Each step can be repeated: killed at any moment, the next call finds what is left. First the rows are marked, so that no
    more feedback for them is accepted; then their feedback goes, as long as their records show whose it is; then their
    records. `pulse` is called now and then.
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
    counts = {"rows": len(erased), "feedback": 0, "names": 0}
    if rows:

        def has(record: Feedback) -> Flags:
            return erased.has(record.incarnation, keys(record.request, record.index))

        for entries, fed in _batches(journal, Feedback, log.last() + 1, has):
            counts["feedback"] += sum(int(gone.sum()) for _, gone in fed)
            log.erase(entries)
            pulse()
        for entries, scored in _batches(journal, Impressions, before, subject.among):
            log.erase(entries, requests=[request for record, gone in scored for request in _cut(record, gone)])
            pulse()
    if subject.name is not None:
        counts["names"] = len(log.texts([subject.own]))
        log.erase({}, ids=[subject.own])
    return counts


def _batches(
    journal: Reader, kind: type[R], before: int, which: Callable[[R], Flags]
) -> Iterator[tuple[dict[int, Entry], list[tuple[R, Flags]]]]:
    """Yield the records that have rows to erase, with those rows, and the entries that replace them, some at a time."""
    batch: dict[int, tuple[R, Flags]] = {}
    for place in journal.log.places(kind.kind, 0, before):
        for _, record in journal.read(place - 1, 1):
            if isinstance(record, kind) and (gone := which(record)).any():
                batch[place] = record, gone
        if len(batch) == _AT_ONCE:
            yield {at: _entry(record, ~gone) for at, (record, gone) in batch.items()}, list(batch.values())
            batch = {}
    yield {at: _entry(record, ~gone) for at, (record, gone) in batch.items()}, list(batch.values())


def _cut(record: Impressions, gone: Flags) -> list[Request]:
    """Return the requests that lose rows, and with them the client's ids."""
    return [(record.incarnation, number) for number in np.unique(record.request[gone]).tolist()]


def _entry(record: R, left: Flags) -> Entry:
    if not left.any():
        return encoded(NOTHING)
    return encoded(only(record, left))
