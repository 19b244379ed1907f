"""MemoryLog: a log for one process, which ends with it, for tests and notebooks; the smallest example of a backend."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.storage.log.base import FACTS, Entry, Fed, Needed, Request, Scored, Stored, Transaction
from riverdelta.storage.log.retention import Retention


@dataclass
class _Part:
    """A run of records: what retention has to know of it."""

    number: int
    first: int
    bytes: int = 0
    time: float = 0.0
    spans: dict[int, Request] = field(default_factory=dict)

    def size(self) -> int:
        return self.bytes

    def written(self) -> float:
        return self.time


class MemoryLog:
    """Records and their index in a list and dicts; every worker and the learner of the process share one.

    `part_bytes` is about how much of it retention deletes at once, by default 1 MiB. It is its own transaction: each change
    notes how it is undone.
    """

    where = "the log in memory"

    def __init__(self, part_bytes: int = 1 << 20) -> None:
        self._part_bytes, self._parts = part_bytes, [_Part(1, 1)]
        self._entries: list[Entry] = []
        #: The rows of each request, and the record that has them.
        self._scored: dict[Request, tuple[int, int]] = {}
        self._fed: dict[Request, dict[int, Fed]] = {}
        self._named: dict[str, Request] = {}
        self._flushed: dict[int, int] = {}
        self._facts: dict[str, Any] = dict(FACTS)
        self._retention = Retention({}, {}, {})
        self._alive: set[int] = set()
        self._undo: list[Callable[[], Any]] = []
        self._changed = threading.Condition()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `Log.transaction`."""
        with self._changed:
            self._undo.clear()
            try:
                yield self
            except BaseException:
                for undo in reversed(self._undo):
                    undo()
                raise
            part = self._parts[-1]
            part.bytes = sum(len(entry.payload) for entry in self._entries[part.first - self._parts[0].first :])
            part.time = time.time()
            if part.bytes > self._part_bytes:
                self._parts.append(_Part(part.number + 1, self.last() + 1))
            self._changed.notify_all()

    def append(self, entry: Entry) -> int:
        """See `Transaction.append`."""
        self._entries.append(entry)
        self._undo.append(self._entries.pop)
        return self.last()

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """See `Transaction.index`."""
        spans = self._parts[-1].spans
        first = spans.get(incarnation, (int(requests[0, 0]), 0))[0]
        self._set(spans, incarnation, (first, int(requests[-1, 0])))
        self._set(self._flushed, incarnation, int(requests[-1, 0]))
        for number, rows in requests.tolist():
            self._set(self._scored, (incarnation, number), (rows, sequence))

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """See `Transaction.feed`."""
        for (incarnation, request, row), known in fed.items():
            self._set(self._fed.setdefault((incarnation, request), {}), row, known)

    def name(self, name: str, request: Request) -> None:
        """See `Transaction.name`."""
        self._set(self._named, name, request)

    def put(self, name: str, value: Any) -> None:
        """See `Transaction.put`."""
        self._set(self._facts, name, value)

    def _set(self, of: MutableMapping[Any, Any], key: Any, value: Any) -> None:
        before = of.get(key)
        self._undo.append(lambda: of.pop(key) if before is None else of.update({key: before}))
        of[key] = value

    def fact(self, name: str) -> Any:
        """See `Index.fact`."""
        with self._changed:
            return self._facts[name]

    def find(self, request: Request) -> Scored | None:
        """See `Index.find`."""
        with self._changed:
            if request not in self._scored:
                return None
            rows, sequence = self._scored[request]
            part = self._parts[bisect_right(self._parts, sequence, key=lambda part: part.first) - 1]
            return Scored(rows, dict(self._fed.get(request, {})), part.number in self._retention.retired)

    def locate(self, request: Request) -> int | None:
        """See `Log.locate`."""
        with self._changed:
            return self._scored.get(request, (0, None))[1]

    def named(self, name: str) -> Request | None:
        """See `Index.named`."""
        with self._changed:
            return self._named.get(name)

    def swept(self) -> Mapping[int, int]:
        """See `Index.swept`."""
        return self._retention.swept

    def flushed(self, incarnation: int) -> int:
        """See `Log.flushed`."""
        with self._changed:
            return self._flushed.get(incarnation, -1)

    def read(self, after: int, rows: int) -> list[Stored]:
        """See `Log.read`."""
        with self._changed:
            first, last = self.first(), self.last()
            if 0 < after < first - 1 or after > last:
                raise Corrupt(f"{self.where} has records {first} to {last}, and its reader has read up to {after}")
            found: list[Stored] = []
            for sequence in range(max(after + 1, first), last + 1):
                entry = self._entries[sequence - first]
                found.append(Stored(sequence, entry.payload, self.where))
                rows -= entry.rows
                if rows <= 0:
                    break
            return found

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """See `Log.places`."""
        with self._changed:
            found = enumerate(self._entries, self.first())
            return [sequence for sequence, entry in found if entry.kind == kind and after < sequence < before]

    def fed_up_to(self, newest: Mapping[int, int], kind: str) -> list[int]:
        """See `Log.fed_up_to`."""
        return self.places(kind, 0, self.last() + 1)[::-1] if newest else []

    def first(self) -> int:
        """See `Log.first`."""
        return self._parts[0].first

    def last(self) -> int:
        """See `Index.last`."""
        with self._changed:
            return self.first() + len(self._entries) - 1

    def size(self) -> int:
        """See `Log.size`."""
        with self._changed:
            return sum(part.bytes for part in self._parts)

    def wait(self, after: int, seconds: float) -> bool:
        """See `Log.wait`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.last() > after, seconds)

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """See `Log.sweep`."""
        with self._changed:
            after, gone = self._retention.step(self._parts, behind, max_age, max_bytes, now, needed)
            last = self.last()
            self._retention = after.at(last)
            self._parts = [part for part in self._parts if part not in gone]
            del self._entries[: len(self._entries) - (last + 1 - self.first())]
            self._scored = {request: at for request, at in self._scored.items() if at[1] >= self.first()}
            self._fed = {request: fed for request, fed in self._fed.items() if request in self._scored}
            self._named = {name: request for name, request in self._named.items() if request in self._scored}
            return sum(part.bytes for part in gone)

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
        """See `Log.refresh`: there is nothing to let go of."""

    def close(self) -> None:
        """See `Log.close`: what is in memory stays for those who share it."""
