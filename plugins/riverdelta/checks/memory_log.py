"""MemoryLog: a log in the memory of one process, for tests and notebooks; the smallest example of a backend."""

from __future__ import annotations

import threading
import time
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.hashing import id64
from riverdelta.storage.log.base import ERASED, FACTS, Entry, Fed, Named, Needed, Request, Row, Scored, Stored, Transaction
from riverdelta.storage.log.retention import Part, Retention


class MemoryLog:
    """Keeps records in a list and their index in a dict; all workers and the learner of the process share one instance.

    Parameters
    ----------
    part_records
        The number of records that retention deletes at once. Lower it to test retention with few records.

    Notes
    -----
    The log is its own transaction: writes go into a dict above the index, which is merged into it or dropped.
    """

    where = "the log in memory"

    def __init__(self, part_records: int = 64) -> None:
        self._part_records, self._first = part_records, 1
        #: Each record, and when it was written.
        self._entries: list[tuple[Entry, float]] = []
        #: Facts by name, requests by the client's name (bytes), the newest request by incarnation, rows and position by
        #: request, feedback by request and row, and the text of an id by a set of it.
        self._known: MutableMapping[Any, Any] = dict(FACTS)
        self._retention = Retention({}, {}, {})
        self._outlived: set[bytes] = set()
        self._alive: set[int] = set()
        self._changed = threading.Condition()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `Log.transaction`."""
        with self._changed:
            before, known = len(self._entries), self._known
            written = self._known = ChainMap({}, known)
            try:
                yield self
                known.update(written.maps[0])
            except BaseException:
                del self._entries[before:]
                raise
            finally:
                self._known = known
            self._changed.notify_all()

    def append(self, entry: Entry) -> int:
        """See `Transaction.append`."""
        self._entries.append((entry, time.time()))
        return self.last()

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """See `Transaction.index`."""
        self._known.update({(incarnation, number): (rows, sequence) for number, rows in requests.tolist()})
        self._known[incarnation] = int(requests[-1, 0])

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """See `Transaction.feed`."""
        self._known.update(fed)

    def name(self, name: str, named: Named) -> None:
        """See `Transaction.name`."""
        self._known[name.encode()] = named

    def named(self, name: str) -> Named | None:
        """See `Index.named`."""
        found: Named | None = self._get(name.encode(), None)
        return found

    def note(self, texts: Mapping[int, str], most: int) -> None:
        """See `Transaction.note`."""
        if sum(isinstance(key, frozenset) for key in self._known) + len(texts) <= most:
            self._known.update({frozenset([each]): text for each, text in texts.items()})

    def texts(self, ids: Collection[int]) -> Mapping[int, str]:
        """See `Index.texts`."""
        found = {each: self._get(frozenset([each])) for each in ids}
        return {each: text for each, text in found.items() if text is not None}

    def erase(
        self,
        entries: Mapping[int, Entry],
        rows: Collection[Row] = (),
        requests: Collection[Request] = (),
        ids: Collection[int] = (),
    ) -> None:
        """See `Log.erase`."""
        with self._changed:
            for at, entry in entries.items():
                self._entries[at - self._first] = entry, self._entries[at - self._first][1]
            self._known.update(dict.fromkeys(rows, ERASED))
            for name in [key for key, of in self._known.items() if isinstance(key, bytes) and of.request in requests]:
                del self._known[name]
            for each in ids:
                self._known.pop(frozenset([each]), None)
            self._outlived = {name for name in self._outlived if id64(name) not in ids}

    def scrub(self) -> None:
        """See `Log.scrub`: nothing is left in memory."""

    def outlived(self, name: str) -> bool:
        """See `Index.outlived`."""
        return name.encode() in self._outlived

    def put(self, name: str, value: Any) -> None:
        """See `Transaction.put`."""
        self._known[name] = value

    def fact(self, name: str) -> Any:
        """See `Index.fact`."""
        return self._get(name)

    def find(self, request: Request) -> Scored | None:
        """See `Index.find`."""
        with self._changed:
            rows, sequence = self._get(request, (0, 0))
            fed = {row: self._known[*request, row] for row in range(rows) if (*request, row) in self._known}
            return Scored(rows, fed, self._part(sequence) in self._retention.retired) if sequence else None

    def locate(self, request: Request) -> int | None:
        """See `Log.locate`."""
        sequence: int | None = self._get(request, (0, None))[1]
        return sequence

    def swept(self) -> Mapping[int, int]:
        """See `Index.swept`."""
        return self._retention.swept

    def flushed(self, incarnation: int) -> int:
        """See `Log.flushed`."""
        return int(self._get(incarnation, -1))

    def read(self, after: int, rows: int) -> list[Stored]:
        """See `Log.read`."""
        with self._changed:
            first, last = self.first(), self.last()
            if 0 < after < first - 1 or after > last:
                raise Corrupt(f"{self.where} has records {first} to {last}, and its reader has read up to {after}")
            found: list[Stored] = []
            for sequence in range(max(after + 1, first), last + 1):
                entry, _ = self._entries[sequence - first]
                found.append(Stored(sequence, entry.payload, self.where))
                rows -= entry.rows
                if rows <= 0:
                    break
            return found

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """See `Log.places`."""
        with self._changed:
            found = enumerate(self._entries, self.first())
            return [sequence for sequence, (entry, _) in found if entry.kind == kind and after < sequence < before]

    def fed_up_to(self, newest: Mapping[int, int], kind: str) -> list[int]:
        """See `Log.fed_up_to`."""
        return self.places(kind, 0, self.last() + 1)[::-1] if newest else []

    def first(self) -> int:
        """See `Log.first`."""
        return self._first

    def last(self) -> int:
        """See `Index.last`."""
        with self._changed:
            return self._first + len(self._entries) - 1

    def size(self) -> int:
        """See `Log.size`."""
        with self._changed:
            return sum(len(entry.payload) for entry, _ in self._entries)

    def wait(self, after: int, seconds: float) -> bool:
        """See `Log.wait`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.last() > after, seconds)

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """See `Log.sweep`."""
        with self._changed:
            parts: dict[int, Part] = {}
            for sequence, (entry, written) in enumerate(self._entries, self._first):
                part = parts.setdefault(number := self._part(sequence), Part(number, sequence))
                part.size, part.written = part.size + len(entry.payload), written
            scored = {key: at[1] for key, at in self._known.items() if isinstance(key, tuple) and len(key) == 2}
            for (incarnation, request), sequence in scored.items():
                spans = parts[self._part(sequence)].spans
                spans[incarnation] = (spans.get(incarnation, (request,))[0], request)
            after, gone = self._retention.step(list(parts.values()), behind, max_age, max_bytes, now, needed)
            self._retention = after.at(self.last())
            first = next((part.first for part in parts.values() if part not in gone), self._first)
            for key in [key for key in self._known if isinstance(key, tuple) and scored[key[:2]] < first]:
                del self._known[key]
            for name in [key for key, at in self._known.items() if isinstance(key, bytes) and at.request not in self._known]:
                del self._known[name]
                self._outlived.add(name)
            del self._entries[: first - self._first]
            self._first = first
            return sum(part.size for part in gone)

    def enter(self, incarnation: int) -> None:
        """See `Log.enter`."""
        self._alive.add(incarnation)

    def lives(self, incarnation: int) -> bool:
        """See `Log.lives`."""
        return incarnation in self._alive

    def leave(self, incarnation: int) -> None:
        """See `Log.leave`."""
        self._alive.discard(incarnation)

    def refresh(self) -> None:
        """See `Log.refresh`: there is nothing to release."""

    def close(self) -> None:
        """See `Log.close`: the records stay in memory for other holders."""

    def _get(self, key: Any, default: Any = None) -> Any:
        with self._changed:
            return self._known.get(key, default)

    def _part(self, sequence: int) -> int:
        return sequence // self._part_records
