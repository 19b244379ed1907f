"""Segments: the files of one journal, in order, as one process sees them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.locks import Turn, alone
from riverdelta.core.records import Control, Impressions, Record
from riverdelta.storage.journal.base import Needed
from riverdelta.storage.journal.segment import CARRIED, Fed, Request, Segment, explained

#: The file whose lock keeps retention away while the journal is copied.
COPYING = "copying"

_log = logging.getLogger(__name__)
#: By segment, the newest record at the moment that something was decided about it.
Positions = Mapping[int, int]


class Segments:
    """All segments; the newest takes writes until it is sealed, and a sealed one never changes again.

    A row's feedback may lie in any segment from its impression's on. Looking into sealed ones is free of races, because the
    transaction on the newest one re-checks that it is not sealed. Not thread-safe by itself; any number of processes may
    have their own. Errors are `Corrupt` or `Unavailable` and name the file.
    """

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder, self.segment_bytes = folder, segment_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._turn = Turn(folder / "turn")
        except OSError as error:
            raise Unavailable(f"the journal folder {folder} cannot be written: {error}") from error
        self._open: dict[int, Segment] = {}
        with self._turn.taken():
            if not self._numbers():
                Segment.create(folder, 1, 1, {})
        self.refresh()

    def refresh(self) -> None:
        """Open segments that others made, and let go of those that retention removed."""
        numbers = self._numbers()
        for gone in self._open.keys() - set(numbers):
            self._open.pop(gone).close()
        for number in numbers:
            path = self.folder / f"{number:06d}.sqlite"
            if number not in self._open:
                try:
                    self._open[number] = Segment(path)
                except Unavailable:
                    if path.exists():
                        raise  # else retention was quicker
        if not self._open:
            raise Corrupt(f"the journal folder {self.folder} has no segment any more; restore it, and start again")

    @property
    def newest(self) -> Segment:
        """The segment that takes writes."""
        return self._open[max(self._open)]

    @contextmanager
    def transaction(self) -> Iterator[Segment]:
        """Write to the newest segment; one that has been sealed meanwhile gives way to the next."""
        # The turn makes waiting fair and short; what is right rests on SQLite's lock alone.
        with self._turn.taken():
            while True:
                segment = self.newest
                with segment.transaction():
                    if not segment.sealed:
                        yield segment
                        if segment.size() > self.segment_bytes and segment.last() >= segment.first:
                            segment.put("sealed", 1)
                        return
                self._succeed(segment)

    def _succeed(self, segment: Segment) -> None:
        self.refresh()
        if self.newest is segment:
            carried = {key: segment.get(key) for key in CARRIED}
            Segment.create(self.folder, segment.number + 1, segment.last() + 1, carried)
            segment.settle()
            self.refresh()

    def explained(self) -> AbstractContextManager[None]:
        """Turn SQLite's errors inside the block into those of this journal."""
        return explained(self.newest.path)

    def find(self, request: Request) -> tuple[int, int] | None:
        """Return (segment number, rows) of a request, the newest segment first; None where no segment has it."""
        newest = self.newest
        for number in sorted(self._open, reverse=True):
            segment = self._open[number]
            if segment is not newest:
                first, last = segment.spans.get(request[0], (0, -1))
                if not first <= request[1] <= last:
                    continue
            rows = segment.rows_of(request)
            if rows is not None:
                return number, rows
        return None

    def flushed(self, incarnation: int) -> int:
        """Return the newest request of an incarnation that the journal has, or had before retention; -1 where it had none.

        A process stores its requests in ascending order: one before that and not there was given up.
        """
        if self.newest.sealed:
            self.refresh()
        newest = self.newest
        for number in sorted(self._open, reverse=True):
            segment = self._open[number]
            last = segment.newest_request(incarnation) if segment is newest else segment.spans.get(incarnation, (0, -1))[1]
            if last >= 0:
                return last
        return newest.swept().get(incarnation, -1)

    def fed(self, request: Request, since: int) -> dict[int, Fed]:
        """Return the newest that is known of each row of a request, looking at segment `since` and those after it."""
        known: dict[int, Fed] = {}
        for number in sorted(n for n in self._open if n >= since):
            known |= self._open[number].fed(request)
        return known

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return records after a sequence number, across segments, in order and without a gap.

        With `after` = 0 they begin at the oldest that there is. Raises `Corrupt` naming the first that is missing or damaged.
        """
        with self.explained():
            if self.newest.sealed:
                self.refresh()
            ordered = [self._open[n] for n in sorted(self._open)]
            if 0 < after < ordered[0].first - 1:
                raise Corrupt(
                    f"journal records {after + 1} to {ordered[0].first - 1} are no longer in {self.folder}; restore their "
                    f"segment, or start without a checkpoint"
                )
            for segment, following in zip(ordered, [*ordered[1:], None], strict=True):
                if following is not None and after >= following.first - 1:
                    continue
                records = segment.read(after, rows)
                if records:
                    return records
                if following is not None:
                    missing = max(after + 1, segment.first)
                    raise Corrupt(f"journal segment {segment.path} lacks record {missing}; nothing after it is read")
            if after > (last := self.newest.last()):
                # What comes next would get numbers that the reader has behind it.
                raise Corrupt(
                    f"the journal in {self.folder} ends at record {last}, and its reader has read up to {after}; restore "
                    f"{self.newest.path}, or start without a checkpoint"
                )
            return []

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the record that holds a request's rows; None where no segment has it."""
        with self.explained():
            found = self.find((incarnation, request))
            return None if found is None else self._open[found[0]].sequence_of((incarnation, request))

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` where they cannot be read."""
        for _, record in self.read(sequence - 1, 1):
            if isinstance(record, Impressions):
                return record
        raise Corrupt(f"journal record {sequence} in {self.folder} holds no impressions, and the index says that it does")

    def controls(self, after: int, before: int) -> list[tuple[int, Control]]:
        """Return the controls that are left between two positions, both excluded."""
        with self.explained():
            return [found for n in sorted(self._open) for found in self._open[n].controls(after, before)]

    def complete_after(self) -> int:
        """Return the position after which every record is left, and every row that these records' feedback is for."""
        with self.explained():
            swept, silence = self.newest.swept(), (self.newest.settings(dict) or {}).get("window_seconds") is not None
            found = (self._open[n].newest_feedback_for(swept, silence) for n in sorted(self._open, reverse=True))
            return next((sequence for sequence in found if sequence is not None), self.first() - 1)

    def first(self) -> int:
        """Return the sequence number of the oldest record that is left, or of the next one while there is none."""
        return self._open[min(self._open)].first

    def last(self) -> int:
        """Return the newest sequence number, 0 before the first."""
        with self.explained():
            return self.newest.last()

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed = lambda spans: False) -> int:
        """Retire old segments and delete retired ones; return bytes freed.

        1. A sealed segment wholly behind `behind` is retired while it is older than `max_age` seconds, or all are larger than
           `max_bytes`: from then on its rows take no more feedback.
        2. Once `behind` has come to the newest record of that moment, and `needed` says of its spans that no row is still to be
           read for what is learned by now, it is released.
        3. Once `behind` has come to the newest record of that moment, it is deleted: all feedback that its rows ever took is
           learned and saved, whichever checkpoint a restart begins with. Nothing is deleted while the journal is copied.
        """
        with alone(self.folder / COPYING) as free:
            freed = self._delete(behind) if free else 0
        retired, released = self.newest.retired(), self.newest.released()
        new = [*self._releasable(behind, retired, released, needed)], [*self._due(behind, retired, max_age, max_bytes, now)]
        if any(new):
            with self.transaction() as newest:
                for fact, known, numbers in (("released", released, new[0]), ("retired", retired, new[1])):
                    newest.put(fact, json.dumps({**known, **dict.fromkeys(numbers, newest.last())}))
        for number in new[1]:
            _log.info(
                "the impressions of %s take no more feedback; labels for them are answered 'expired'", self._open[number].path
            )
        return freed

    def _releasable(self, behind: int, retired: Positions, released: Positions, needed: Needed) -> Iterator[int]:
        for number, position in sorted(retired.items()):
            if number not in released and number in self._open:
                if position > behind or needed(self._open[number].spans):
                    return
                yield number

    def _due(self, behind: int, retired: Positions, max_age: float, max_bytes: int, now: float) -> Iterator[int]:
        size = self.size() - sum(self._open[n].size() for n in retired if n in self._open)
        ordered = [self._open[n] for n in sorted(self._open) if n not in retired]
        for segment, following in zip(ordered, ordered[1:], strict=False):
            old = now - segment.path.stat().st_mtime > max_age
            if following.first - 1 > behind or not (old or size > max_bytes):
                return
            size -= segment.size()
            yield segment.number

    def _delete(self, behind: int) -> int:
        numbers = sorted(n for n, position in self.newest.released().items() if n in self._open and position <= behind)
        if not numbers:
            return 0
        gone = [self._open[number] for number in numbers]
        with self.transaction() as newest:
            swept = newest.swept()
            for segment in gone:
                for incarnation, (_, request) in segment.spans.items():
                    swept[incarnation] = max(swept.get(incarnation, -1), request)
            newest.put("swept", json.dumps(swept))
            for fact, kept in (("retired", newest.retired()), ("released", newest.released())):
                newest.put(fact, json.dumps({n: at for n, at in kept.items() if n not in numbers}))
        freed = sum(segment.size() for segment in gone)
        for segment in gone:
            self._open.pop(segment.number).delete()
        return freed

    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(segment.size() for segment in self._open.values())

    def close(self) -> None:
        """Let go of every file."""
        for segment in self._open.values():
            segment.close()
        self._open.clear()
        self._turn.close()

    def _numbers(self) -> list[int]:
        # A copy that somebody made is none of these.
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.sqlite") if path.stem.isdecimal())
