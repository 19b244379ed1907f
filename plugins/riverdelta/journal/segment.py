"""Segment: one SQLite file of the journal, with the sequence numbers from its first on."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.errors import Corrupt
from riverdelta.events import Feedback, Impressions, Record, decode, digest, encode
from riverdelta.features import Ints

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE record (sequence INTEGER PRIMARY KEY, kind TEXT, rows INTEGER, payload BLOB, digest BLOB);
CREATE TABLE block (incarnation INTEGER, first INTEGER, requests BLOB, PRIMARY KEY (incarnation, first)) WITHOUT ROWID;
CREATE TABLE fed (incarnation INTEGER, request INTEGER, row INTEGER, label REAL, shown REAL,
                  PRIMARY KEY (incarnation, request, row)) WITHOUT ROWID;
"""
#: What a new segment takes over from the one before it.
CARRIED = ("incarnations", "tick", "swept")


@dataclass(frozen=True)
class Fed:
    """What is known of one row: its label, and when it was shown; None where it is not."""

    label: float | None
    shown: float | None


class Segment:
    """One file; writes happen inside `transaction`, reads at any time (WAL, synchronous=FULL)."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem)
        self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self.first = int(self.get("first"))

    @classmethod
    def create(cls, folder: Path, number: int, first: int, carried: dict[str, Any]) -> None:
        """Make the file of a new segment, whole or not at all; another process may have been quicker."""
        path = folder / f"{number:06d}.sqlite"
        temporary = folder / f".{number:06d}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        db = sqlite3.connect(temporary, isolation_level=None)
        db.executescript(_SCHEMA)
        meta = {"first": first, "sealed": 0, "incarnations": 0, "tick": 0.0, "swept": "{}", **carried}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        db.close()
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # the other one's is as good
        finally:
            temporary.unlink()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit durably at the end, or roll back on any error."""
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

    def add(self, record: Record) -> int:
        """Add a record and return its sequence number."""
        sequence, payload = self.last() + 1, encode(record)
        rows = len(record) if isinstance(record, Impressions | Feedback) else 1
        self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", (sequence, record.kind, rows, payload, digest(payload)))
        return sequence

    def add_block(self, incarnation: int, requests: Ints) -> None:
        """Index a block of impressions: int64[R, 2] of request numbers, ascending, and their rows."""
        body = np.ascontiguousarray(requests, np.int64).tobytes()
        self._db.execute("INSERT INTO block VALUES (?, ?, ?)", (incarnation, int(requests[0, 0]), body))

    def rows_of(self, incarnation: int, request: int) -> int | None:
        """Return how many rows a request scored, or None where the segment does not have it."""
        found = self._db.execute(
            "SELECT requests FROM block WHERE incarnation = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (incarnation, request),
        ).fetchone()
        if found is None:
            return None
        requests = np.frombuffer(found[0], np.int64).reshape(-1, 2)
        at = int(np.searchsorted(requests[:, 0], request))
        return int(requests[at, 1]) if at < len(requests) and requests[at, 0] == request else None

    def last_requests(self) -> dict[int, int]:
        """Return each incarnation's newest request in this segment."""
        newest: dict[int, int] = {}
        for incarnation, body in self._db.execute("SELECT incarnation, requests FROM block"):
            newest[incarnation] = max(newest.get(incarnation, 0), int(np.frombuffer(body, np.int64)[-2]))
        return newest

    def fed(self, key: tuple[int, int, int]) -> Fed | None:
        """Return what feedback a row has had."""
        row = self._db.execute("SELECT label, shown FROM fed WHERE incarnation = ? AND request = ? AND row = ?", key).fetchone()
        return Fed(*row) if row else None

    def feed(self, key: tuple[int, int, int], fed: Fed) -> None:
        """Set what feedback a row has had; the primary key makes it one entry a row."""
        self._db.execute("INSERT OR REPLACE INTO fed VALUES (?, ?, ?, ?, ?)", (*key, fed.label, fed.shown))

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return records after a sequence number, at least one where there are any, about `rows` rows in all."""
        records: list[tuple[int, Record]] = []
        cursor = self._db.execute(
            "SELECT sequence, rows, payload, digest FROM record WHERE sequence > ? ORDER BY sequence", (after,)
        )
        for sequence, count, payload, expected in cursor:
            if digest(payload) != expected:
                raise Corrupt(f"journal record {sequence} in {self.path} does not match its digest; nothing after it is read")
            records.append((sequence, decode(payload)))
            rows -= count
            if rows <= 0:
                break
        cursor.close()
        return records

    def size(self) -> int:
        """Return the bytes on disk, write-ahead log included."""
        wal = self.path.with_name(self.path.name + "-wal")
        return self.path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)

    def swept(self) -> dict[int, int]:
        """Return, for each incarnation, the newest request that retention has deleted."""
        return {int(k): v for k, v in json.loads(self.get("swept")).items()}

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def delete(self) -> None:
        """Close and remove the file with what SQLite keeps beside it."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
