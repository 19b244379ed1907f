"""Segment: one SQLite file of the journal, with the sequence numbers from its first on."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from riverdelta.errors import Corrupt, Unavailable
from riverdelta.events import Feedback, Impressions, Record, decode, digest, encode
from riverdelta.features import Ints

_SCHEMA = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE record (sequence INTEGER PRIMARY KEY, kind TEXT, rows INTEGER, payload BLOB, digest BLOB);
CREATE TABLE block (incarnation INTEGER, first INTEGER, requests BLOB, PRIMARY KEY (incarnation, first)) WITHOUT ROWID;
CREATE TABLE fed (incarnation INTEGER, request INTEGER, row INTEGER, label REAL, shown REAL,
                  PRIMARY KEY (incarnation, request, row)) WITHOUT ROWID;
"""
#: What a new segment takes over from the one before it.
CARRIED = ("incarnations", "tick", "swept")

Request = tuple[int, int]


@dataclass(frozen=True)
class Fed:
    """What is known of one row: its label, and when it was shown; None where it is not."""

    label: float | None
    shown: float | None


@dataclass(frozen=True)
class Encoded:
    """A record as it is stored."""

    kind: str
    rows: int
    payload: bytes
    digest: bytes

    @classmethod
    def of(cls, record: Record) -> Encoded:
        """Encode a record."""
        payload = encode(record)
        return cls(record.kind, len(record) if isinstance(record, Impressions | Feedback) else 1, payload, digest(payload))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about `path` into `Corrupt` (its bytes are wrong) or `Unavailable` (a full or read-only disk)."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Corrupt(f"journal segment {path} holds what must be new ({error}); it is damaged") from error
    except sqlite3.DatabaseError as error:
        # SQLITE_ERROR is what a file with missing tables raises.
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_ERROR,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        )
        if damaged:
            raise Corrupt(f"journal segment {path} is damaged: {error}; restore the file, or move it away") from error
        raise Unavailable(f"journal segment {path}: {error}; check that its disk has room and may be written") from error


class Segment:
    """One file; writes happen inside `transaction`, reads at any time (WAL, synchronous=FULL)."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem)
        with explained(path):
            # SQLite's own waiting is unfair (p99 of four writers over 80 ms): `Segments.transaction` queues them before it.
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=FULL")
            self.first = int(self.get("first"))

    @classmethod
    def create(cls, folder: Path, number: int, first: int, carried: dict[str, Any]) -> None:
        """Make the file of a new segment, whole and durable or not at all; another process may have been quicker."""
        path = folder / f"{number:06d}.sqlite"
        meta = {"first": first, "sealed": 0, "incarnations": 0, "tick": 0.0, "swept": "{}", **carried}
        with explained(path), TemporaryDirectory(dir=folder, prefix=".new-") as private:
            temporary = Path(private) / path.name
            db = sqlite3.connect(temporary, isolation_level=None)
            try:
                db.executescript(_SCHEMA)
                db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
                db.execute("COMMIT")
            finally:
                db.close()
            try:
                os.link(temporary, path)
            except FileExistsError:
                return  # the other one's is as good
        _sync(folder)

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

    def get(self, key: str) -> Any:
        """Return one fact about the segment."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise Corrupt(f"journal segment {self.path} lacks {key!r}; it is damaged")
        return row[0]

    def put(self, key: str, value: Any) -> None:
        """Set one fact, inside a transaction."""
        self._db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    @property
    def sealed(self) -> bool:
        """Whether nothing will be added any more."""
        return bool(self.get("sealed"))

    def last(self) -> int:
        """Return the newest sequence number; that before the segment's first while it is empty."""
        newest = self._db.execute("SELECT max(sequence) FROM record").fetchone()[0]
        return int(newest) if newest is not None else self.first - 1

    def add(self, record: Encoded) -> int:
        """Add a record, inside a transaction, and return its sequence number."""
        sequence = self.last() + 1
        row = (sequence, record.kind, record.rows, record.payload, record.digest)
        self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", row)
        return sequence

    def add_block(self, incarnation: int, requests: Ints) -> None:
        """Index a block of impressions: int64[R, 2] of request numbers, ascending, and their rows."""
        body = np.ascontiguousarray(requests, np.int64).tobytes()
        self._db.execute("INSERT INTO block VALUES (?, ?, ?)", (incarnation, int(requests[0, 0]), body))

    def rows_of(self, request: Request) -> int | None:
        """Return how many rows a request scored, or None where the segment does not have it."""
        found = self._db.execute(
            "SELECT requests FROM block WHERE incarnation = ? AND first <= ? ORDER BY first DESC LIMIT 1", request
        ).fetchone()
        if found is None:
            return None
        requests = np.frombuffer(found[0], np.int64).reshape(-1, 2)
        at = int(np.searchsorted(requests[:, 0], request[1]))
        return int(requests[at, 1]) if at < len(requests) and requests[at, 0] == request[1] else None

    @cached_property
    def spans(self) -> dict[int, Request]:
        """Each incarnation's first and last request in this segment, which must be sealed."""
        spans: dict[int, Request] = {}
        for incarnation, first, body in self._db.execute("SELECT * FROM block ORDER BY incarnation, first"):
            start = spans.get(incarnation, (first, first))[0]
            spans[incarnation] = (start, int(np.frombuffer(body, np.int64)[-2]))
        return spans

    def fed(self, request: Request) -> dict[int, Fed]:
        """Return what feedback each row of a request has had."""
        rows = self._db.execute("SELECT row, label, shown FROM fed WHERE incarnation = ? AND request = ?", request)
        return {row: Fed(label, shown) for row, label, shown in rows}

    def feed(self, rows: Iterable[tuple[int, int, int, Fed]], new: bool) -> None:
        """Set the feedback of rows, inside a transaction; with `new`, one that has had feedback here is an error."""
        verb = "INSERT" if new else "REPLACE"
        values = [(incarnation, request, row, fed.label, fed.shown) for incarnation, request, row, fed in rows]
        self._db.executemany(f"{verb} INTO fed VALUES (?, ?, ?, ?, ?)", values)

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return records after a sequence number, at least one where there are any, about `rows` rows in all."""
        records: list[tuple[int, Record]] = []
        cursor = self._db.execute(
            "SELECT sequence, rows, payload, digest FROM record WHERE sequence > ? ORDER BY sequence", (after,)
        )
        for sequence, count, payload, expected in cursor:
            due = max(after + 1, self.first)
            if sequence != due:
                raise Corrupt(f"journal segment {self.path} lacks record {due}; nothing after it is read")
            if digest(payload) != expected:
                raise Corrupt(f"journal record {sequence} in {self.path} does not match its digest; nothing after it is read")
            records.append((sequence, _decode(payload, sequence, self.path)))
            after = sequence
            rows -= count
            if rows <= 0:
                break
        cursor.close()
        return records

    def size(self) -> int:
        """Return the bytes on disk, write-ahead log included."""
        return sum(_bytes(path) for path in (self.path, self._beside("-wal")))

    def swept(self) -> dict[int, int]:
        """Return, for each incarnation, the newest request that retention has deleted."""
        return {int(k): v for k, v in json.loads(self.get("swept")).items()}

    def settle(self) -> None:
        """Move the write-ahead log of a sealed segment into the file, where nobody reads just now."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def delete(self) -> None:
        """Close and remove the file with what SQLite keeps beside it."""
        self.close()
        for path in (self.path, self._beside("-wal"), self._beside("-shm")):
            path.unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _decode(payload: bytes, sequence: int, path: Path) -> Record:
    try:
        return decode(payload)
    except Corrupt as error:
        raise Corrupt(f"journal record {sequence} in {path}: {error}") from error


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # retention by another process, or a log that has been moved into its file
        return 0


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
