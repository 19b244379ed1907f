"""Segments: the files of one log, in order, as one process has them open."""

from __future__ import annotations

import logging
import threading
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.features import Ints
from riverdelta.core.locks import Turn, alone
from riverdelta.storage.log.base import Entry, Fed, Named, Needed, Request, Scored, Stored, Transaction
from riverdelta.storage.log.retention import Part, Retention
from riverdelta.storage.log.schema import CARRIED, create
from riverdelta.storage.log.segment import Segment

#: The file whose lock suspends retention while the log is copied.
COPYING = "copying"

_log = logging.getLogger(__name__)


class Segments:
    """All segments of a log; the newest accepts writes until it is sealed, and a sealed one changes only where `erase` does.

    A row's feedback may be in any segment from its impression's on. Reading sealed ones is free of races, because the
    transaction on the newest one checks again that it is not sealed. Any number of threads and processes may use one. Inside
    `transaction` it is the `Transaction`, and its methods read what was written there. Errors are `Corrupt` or `Unavailable`
    and name the file.
    """

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder, self.segment_bytes = folder, segment_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._turn = Turn(folder / "turn")
        except OSError as error:
            raise Unavailable(f"the journal folder {folder} cannot be written: {error}") from error
        self._lock = threading.RLock()
        self._open: dict[int, Segment] = {}
        self._retired: Mapping[int, int] | None = None  # inside a transaction, which reads it once
        with self._turn.taken():
            if not self._numbers():
                create(folder, 1, 1, {})
        self.refresh()

    @property
    def newest(self) -> Segment:
        """The segment that accepts writes."""
        return self._open[max(self._open)]

    @property
    def where(self) -> str:
        """The file of the newest segment."""
        return self.newest.where

    def refresh(self) -> None:
        """Open new segments, and close those that retention has deleted."""
        with self._lock:
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
                            raise  # else retention was faster
            if not self._open:
                raise Corrupt(f"the journal folder {self.folder} no longer has a segment; restore it and restart")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `Log.transaction`: writes to the newest segment, or to the next one if it was sealed meanwhile."""
        # The turn makes waiting fair and short; correctness depends only on SQLite's lock.
        with self._lock, self._turn.taken():
            while True:
                segment = self.newest
                with segment.transaction():
                    if not segment.sealed:
                        try:
                            self._retired = segment.numbers("retired")
                            yield self
                        finally:
                            self._retired = None
                        if segment.size() > self.segment_bytes and segment.last() >= segment.first:
                            segment.put("sealed", 1)
                        return
                self._succeed(segment)

    def _succeed(self, segment: Segment) -> None:
        self.refresh()
        if self.newest is segment:
            carried = {key: segment.fact(key) for key in CARRIED}
            create(self.folder, segment.number + 1, segment.last() + 1, carried)
            segment.settle()
            self.refresh()

    @contextmanager
    def _now(self, refresh: bool = False) -> Iterator[list[Segment]]:
        """Hold the lock and yield the current segments, in order; most calls need only those already open."""
        with self._lock:
            if self._retired is None and (refresh or self.newest.sealed):
                self.refresh()
            yield [self._open[n] for n in sorted(self._open)]

    def append(self, entry: Entry) -> int:
        """See `Transaction.append`."""
        return self.newest.append(entry)

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """See `Transaction.index`."""
        self.newest.index(incarnation, requests, sequence)

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """See `Transaction.feed`."""
        self.newest.feed(fed)

    def name(self, name: str, named: Named) -> None:
        """See `Transaction.name`."""
        self.newest.names.add(name, named)

    def note(self, texts: Mapping[int, str], most: int) -> None:
        """See `Transaction.note`."""
        if sum(segment.names.noted() for segment in self._open.values()) + len(texts) <= most:
            self.newest.names.note(texts)

    def texts(self, ids: Collection[int]) -> Mapping[int, str]:
        """See `Index.texts`."""
        with self._now() as segments:
            return dict(ChainMap(*(segment.names.texts(ids) for segment in reversed(segments))))

    def put(self, name: str, value: Any) -> None:
        """See `Transaction.put`."""
        self.newest.put(name, value)

    def fact(self, name: str) -> Any:
        """See `Index.fact`."""
        with self._now() as segments:
            return segments[-1].fact(name)

    def find(self, request: Request) -> Scored | None:
        """See `Index.find`."""
        with self._now() as segments:
            found = self._having(request, segments)
            if found is None:
                return None
            fed: dict[int, Fed] = {}
            for segment in segments[found[0] :]:
                fed |= segment.fed(request)
            retired = segments[-1].numbers("retired") if self._retired is None else self._retired
            return Scored(found[1], fed, segments[found[0]].number in retired)

    def locate(self, request: Request) -> int | None:
        """See `Log.locate`."""
        with self._now() as segments:
            found = self._having(request, segments)
            return None if found is None else segments[found[0]].sequence_of(request)

    def _having(self, request: Request, segments: list[Segment]) -> tuple[int, int] | None:
        """Return the place of the segment with a request, searching the newest first, and the request's row count."""
        for place in reversed(range(len(segments))):
            if place < len(segments) - 1:
                first, last = segments[place].spans.get(request[0], (0, -1))
                if not first <= request[1] <= last:
                    continue
            if (rows := segments[place].rows_of(request)) is not None:
                return place, rows
        return None

    def named(self, name: str) -> Named | None:
        """See `Index.named`."""
        with self._now() as segments:
            found = (segment.names.find(name) for segment in reversed(segments))
            return next((named for named in found if named is not None), None)

    def outlived(self, name: str) -> bool:
        """See `Index.outlived`."""
        with self._now() as segments:
            return any(segment.names.outlived(name) for segment in reversed(segments))

    def swept(self) -> Mapping[int, int]:
        """See `Index.swept`."""
        with self._now() as segments:
            return segments[-1].numbers("swept")

    def flushed(self, incarnation: int) -> int:
        """See `Log.flushed`."""
        with self._now() as segments:
            if (last := segments[-1].newest_request(incarnation)) >= 0:
                return last
            for segment in reversed(segments[:-1]):
                if incarnation in segment.spans:
                    return segment.spans[incarnation][1]
            return self.swept().get(incarnation, -1)

    def read(self, after: int, rows: int) -> list[Stored]:
        """See `Log.read`."""
        with self._now() as segments:
            if 0 < after < segments[0].first - 1:
                raise Corrupt(
                    f"journal records {after + 1} to {segments[0].first - 1} are no longer in {self.folder}; restore their "
                    f"segment, or start without a checkpoint"
                )
            for segment, following in zip(segments, [*segments[1:], None], strict=True):
                if following is not None and after >= following.first - 1:
                    continue
                records = segment.read(after, rows)
                if records:
                    return records
                if following is not None:
                    raise Corrupt(f"{segment.where} lacks record {max(after + 1, segment.first)}; nothing after it is read")
            if after > (last := segments[-1].last()):
                # New records would get numbers that the reader has already passed.
                raise Corrupt(
                    f"the journal in {self.folder} ends at record {last}, but its reader has read up to {after}; restore "
                    f"{segments[-1].path}, or start without a checkpoint"
                )
            return []

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """See `Log.places`."""
        with self._now(refresh=True) as segments:
            return [place for segment in segments for place in segment.places(kind, after, before)]

    def fed_up_to(self, newest: Mapping[int, int], kind: str) -> list[int]:
        """See `Log.fed_up_to`: segments without such feedback are skipped by their index."""
        with self._now(refresh=True) as segments:
            having = [segment for segment in reversed(segments) if segment.has_fed(newest)]
            return [place for segment in having for place in reversed(segment.places(kind, 0, segment.last() + 1))]

    def first(self) -> int:
        """See `Log.first`."""
        with self._now(refresh=True) as segments:
            return segments[0].first

    def last(self) -> int:
        """See `Index.last`."""
        with self._now() as segments:
            return segments[-1].last()

    def size(self) -> int:
        """See `Log.size`."""
        with self._now(refresh=True) as segments:
            return sum(segment.size() for segment in segments)

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """See `Log.sweep`; nothing is deleted while the log is being copied."""
        with alone(self.folder / COPYING) as free, self._now(refresh=True) as segments:
            before = Retention(*(self.newest.numbers(fact) for fact in ("swept", "retired", "released")))
            parts = [
                Part(s.number, s.first, s.spans if s.number in before.retired else {}, s.size(), s.written()) for s in segments
            ]
            after, gone = before.step(parts, behind, max_age, max_bytes, now, needed, locked=not free)
            if after == before:
                return 0
            names = np.concatenate([np.zeros(0, np.int64), *(self._open[part.number].names.hashes() for part in gone)])
            with self.transaction():
                if len(names):
                    self.newest.names.outlive(names)
                for fact, text in after.at(self.newest.last()).facts().items():
                    self.newest.put(fact, text)
            for number in after.retired.keys() - before.retired.keys():
                path = self._open[number].path
                _log.info("the impressions of %s accept no more feedback; labels for them are answered 'expired'", path)
            for part in gone:
                self._open.pop(part.number).delete()
            return sum(part.size for part in gone)

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for segment in self._open.values():
                segment.close()
            self._open.clear()
            self._turn.close()

    def _numbers(self) -> list[int]:
        # Other names, such as a manual copy's, are ignored.
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.sqlite") if path.stem.isdecimal())
