"""Segment: one SQLite file of a log, with consecutive positions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.hashing import digest
from riverdelta.core.records import Impressions, decode
from riverdelta.storage.log.base import Entry, Fed, Request, Row, Stored
from riverdelta.storage.log.names import Names
from riverdelta.storage.log.schema import ADDED, FIRST, MOST, explained

_PAIR = 16
#: The types of the facts about a row's feedback.
_FACT = (float, type(None))
#: The columns that the tables of earlier versions lack.
_ADDED = *(("fed", name, "REAL") for name in ("due", "weight", "event")), ("named", "content", "BLOB NOT NULL DEFAULT x''")


class Segment:
    """One segment file; writes happen inside `transaction`, reads at any time (WAL, synchronous=FULL)."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, self.where = path, int(path.stem), f"journal segment {path}"
        with explained(path):
            # SQLite's own waiting is unfair (p99 over 80 ms with four writers): `Segments.transaction` queues writers first.
            # mode=rw: a file that retention has deleted must not come back empty.
            name = f"{path.absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(name, timeout=10.0, isolation_level=None, check_same_thread=False, uri=True)
            self._db.execute("PRAGMA synchronous=FULL")
            # What is erased is overwritten with zeros.
            self._db.execute("PRAGMA secure_delete=ON")
        self.first: int = self.fact("first")
        self.names = Names(self._db, self.path)
        self._upgrade()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit durably at the end, or roll back on any error."""
        with explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def fact(self, key: str) -> Any:
        """Return one fact of the log or of the segment."""
        rows = self._ask("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows and key not in ADDED:
            raise Corrupt(f"{self.where} lacks {key!r}; it is damaged")
        value: Any = rows[0][0] if rows else FIRST[key]
        typed = isinstance(value, int | float if isinstance(FIRST[key], float) else type(FIRST[key]))
        if not typed or (key in MOST and not 0 <= value <= MOST[key]):
            raise self._odd(key, value)
        return value

    def put(self, key: str, value: Any) -> None:
        """Set one fact, inside a transaction."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def erase(self, rows: Collection[Row], requests: Collection[Request], ids: Collection[int]) -> None:
        """Delete the feedback of rows, the names of requests and all about the texts of `ids`, inside a transaction."""
        self._db.executemany("DELETE FROM fed WHERE incarnation = ? AND request = ? AND row = ?", rows)
        self.names.forget(requests, ids)

    @property
    def sealed(self) -> bool:
        """Whether the segment accepts no more records."""
        return bool(self.fact("sealed"))

    def last(self) -> int:
        """Return the newest sequence number, or the one before the segment's first if it is empty."""
        newest = self._ask("SELECT max(sequence) FROM record")[0][0]
        if not isinstance(newest, int | None):
            raise self._odd("sequence", newest)
        return newest if newest is not None else self.first - 1

    def append(self, entry: Entry) -> int:
        """Append a record, inside a transaction, and return its position."""
        sequence = self.last() + 1
        row = (sequence, entry.kind, entry.rows, entry.payload, _seal(sequence, entry.digest))
        self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", row)
        return sequence

    def replace(self, sequence: int, entry: Entry) -> None:
        """Put another record in the place of the one at a position, inside a transaction."""
        row = (entry.kind, entry.rows, entry.payload, _seal(sequence, entry.digest), sequence)
        self._db.execute("UPDATE record SET kind = ?, rows = ?, payload = ?, digest = ? WHERE sequence = ?", row)

    def forget(self, incarnation: int, first: int) -> None:
        """Take the requests of the record that begins with `first` out of the index, inside a transaction."""
        self._db.execute("DELETE FROM block WHERE incarnation = ? AND first = ?", (incarnation, first))

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """Index, inside a transaction, the record that has the rows of requests."""
        body = np.append(requests, sequence).astype(np.int64).tobytes()
        self._db.execute("INSERT INTO block VALUES (?, ?, ?)", (incarnation, int(requests[0, 0]), body))

    def rows_of(self, request: Request) -> int | None:
        """Return how many rows a request scored, or None if the segment does not have it."""
        if (found := self._block(request)) is None:
            return None
        requests = self._requests(found[1])
        at = int(np.searchsorted(requests[:, 0], request[1]))
        return int(requests[at, 1]) if at < len(requests) and requests[at, 0] == request[1] else None

    def sequence_of(self, request: Request) -> int:
        """Return the record with a request's rows; the segment must have it."""
        found = self._block(request)
        assert found is not None
        first, body = found
        if len(body) % _PAIR:
            return int(np.frombuffer(body[-8:], np.int64)[0])
        return self._sequences_of_0_1[request[0], first]

    @cached_property
    def _sequences_of_0_1(self) -> dict[Request, int]:
        """The record of each block that version 0.1 indexed, by the first request: it wrote no numbers into the index."""
        sequences = {}
        for (sequence,) in self._ask("SELECT sequence FROM record WHERE kind = ? ORDER BY sequence", (Impressions.kind,)):
            record = decode(self.read(sequence - 1, 1)[0].payload)
            if isinstance(record, Impressions):
                sequences[record.incarnation, int(record.request[0])] = sequence
        return sequences

    def newest_request(self, incarnation: int) -> int:
        """Return the newest request of an incarnation in this segment, or -1 without any."""
        found = self._ask("SELECT requests FROM block WHERE incarnation = ? ORDER BY first DESC LIMIT 1", (incarnation,))
        return int(self._requests(found[0][0])[-1, 0]) if found else -1

    @cached_property
    def spans(self) -> dict[int, Request]:
        """Each incarnation's first and last request in this sealed segment."""
        spans: dict[int, Request] = {}
        for incarnation, first, body in self._ask("SELECT incarnation, first, requests FROM block ORDER BY incarnation, first"):
            if not isinstance(incarnation, int) or not isinstance(first, int):
                raise self._odd("block", (incarnation, first))
            start = spans.get(incarnation, (first, first))[0]
            spans[incarnation] = (start, int(self._requests(body)[-1, 0]))
        return spans

    def fed(self, request: Request) -> dict[int, Fed]:
        """Return the feedback of each row of a request."""
        rows = self._ask("SELECT row, label, shown, due, weight, event FROM fed WHERE incarnation = ? AND request = ?", request)
        for row, *facts in rows:
            if not isinstance(row, int) or not all(isinstance(fact, _FACT) for fact in facts):
                raise self._odd("feedback", (row, *facts))
        return {row: Fed(*facts) for row, *facts in rows}

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """Set the feedback of rows, inside a transaction."""
        values = [(*row, f.label, f.shown, f.due, f.weight, f.event) for row, f in fed.items()]
        self._db.executemany("REPLACE INTO fed VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def has_fed(self, newest: Mapping[int, int]) -> bool:
        """Return whether this segment has feedback for requests of incarnations up to these."""
        asked = "SELECT 1 FROM fed WHERE incarnation = ? AND request <= ? LIMIT 1"
        return any(self._ask(asked, pair) for pair in newest.items())

    def read(self, after: int, rows: int) -> list[Stored]:
        """Return records after a position, at least one if there are any, about `rows` rows in all."""
        records: list[Stored] = []
        with explained(self.path):
            cursor = self._db.execute(
                "SELECT sequence, rows, payload, digest FROM record WHERE sequence > ? ORDER BY sequence", (after,)
            )
            for sequence, count, payload, expected in cursor:
                due = max(after + 1, self.first)
                if sequence != due:
                    raise Corrupt(f"{self.where} lacks record {due}; nothing after it is read")
                if not isinstance(payload, bytes) or _seal(sequence, digest(payload)) != expected:
                    raise Corrupt(
                        f"journal record {sequence} in {self.path} does not match its digest; nothing after it is read"
                    )
                records.append(Stored(sequence, payload, str(self.path)))
                after = sequence
                rows -= count if isinstance(count, int) and count > 0 else 1
                if rows <= 0:
                    break
            cursor.close()
        return records

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """Return the positions of the records of a kind between two positions, both excluded."""
        asked = "SELECT sequence FROM record WHERE kind = ? AND sequence > ? AND sequence < ? ORDER BY sequence"
        return [sequence for (sequence,) in self._ask(asked, (kind, after, before))]

    def size(self) -> int:
        """Return the bytes on disk, write-ahead log included."""
        return sum(_bytes(path) for path in (self.path, self._beside("-wal")))

    def written(self) -> float:
        """Return when the file was last written to (Unix seconds)."""
        return self.path.stat().st_mtime

    def numbers(self, key: str) -> dict[int, int]:
        """Return a fact that maps numbers to numbers."""
        text = self.fact(key)
        try:
            return {int(name): int(value) for name, value in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            raise self._odd(key, text) from None

    def back_up(self, path: Path) -> None:
        """Copy the segment, as it is at one moment, to a new file at `path`; others may write to it meanwhile."""
        with explained(path), closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)

    def settle(self) -> bool:
        """Move the write-ahead log into the file and empty it; return False if a reader or a writer prevents it."""
        return not self._ask("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def delete(self) -> None:
        """Close and delete the file with those that SQLite keeps beside it."""
        self.close()
        for path in (self.path, self._beside("-wal"), self._beside("-shm")):
            path.unlink(missing_ok=True)

    def _upgrade(self) -> None:
        """Add the columns that earlier versions lack."""

        def lacks(table: str, column: str) -> bool:
            names = [row[1] for row in self._ask(f"PRAGMA table_info({table})")]
            return bool(names) and column not in names

        for table, column, kind in _ADDED:
            if lacks(table, column):
                with self.transaction():
                    if lacks(table, column):
                        self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")

    def _ask(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with explained(self.path):
            return self._db.execute(statement, values).fetchall()

    def _block(self, request: Request) -> tuple[int, bytes] | None:
        """Return the first request and the index of the block that would have a request."""
        statement = "SELECT first, requests FROM block WHERE incarnation = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        found = self._ask(statement, request)
        return found[0] if found else None

    def _requests(self, body: Any) -> Ints:
        """Return the requests of a block's index: pairs of number and rows, followed by the record's number."""
        if not isinstance(body, bytes) or len(body) < _PAIR or len(body) % 8:
            raise self._odd("requests", body)
        return np.frombuffer(body[: len(body) // _PAIR * _PAIR], np.int64).reshape(-1, 2)

    def _odd(self, name: str, value: Any) -> Corrupt:
        return Corrupt(f"{self.where} has {value!r:.80} as its {name!r}; it is damaged")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _seal(sequence: int, payload_digest: bytes) -> bytes:
    """Return the stored digest, which covers the record's position, so that a displaced record is detected too."""
    return digest(sequence.to_bytes(8, "little", signed=True) + payload_digest)


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted by another process's retention, or a write-ahead log moved into its file
        return 0
