"""Segment: one SQLite file of the journal, with the sequence numbers from its first on."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from riverdelta.core.durable import sync
from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.features import Ints
from riverdelta.core.hashing import digest
from riverdelta.core.records import Control, Feedback, Impressions, Record, decode, encode

_SCHEMA = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE record (sequence INTEGER PRIMARY KEY, kind TEXT, rows INTEGER, payload BLOB, digest BLOB);
CREATE TABLE block (incarnation INTEGER, first INTEGER, requests BLOB, PRIMARY KEY (incarnation, first)) WITHOUT ROWID;
CREATE TABLE fed (incarnation INTEGER, request INTEGER, row INTEGER, label REAL, shown REAL, due REAL,
                  PRIMARY KEY (incarnation, request, row)) WITHOUT ROWID;
"""
#: What a new segment takes over from the one before it.
CARRIED = ("incarnations", "tick", "swept", "retired", "released", "settings", "first_window")
#: The facts that segments of version 0.1 lack, and what stands for them there.
_ADDED = {"retired": "{}", "released": "{}", "settings": "{}", "first_window": -1.0}
#: The facts of a segment, and what each is.
_FACTS: dict[str, type | tuple[type, ...]] = {
    "first": int, "sealed": int, "incarnations": int, "tick": (int, float), "swept": str, "retired": str, "released": str,
    "settings": str, "first_window": (int, float),
}  # fmt: skip

#: The most that a number may be; an incarnation has 23 bits for its place among them.
_MOST = {"first": 1 << 62, "sealed": 1, "incarnations": (1 << 23) - 2}
_PAIR = 16
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)

Request = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Fed:
    """What is known of one row: its label, when it was shown, and when silence makes a negative of it; None where it is not.

    `due` is infinite where the row was shown while silence made no negatives. Version 0.1 kept none.
    """

    label: float | None = None
    shown: float | None = None
    due: float | None = None


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
        return cls(record.kind, _rows(record), payload, digest(payload))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about `path` into `Corrupt` (its bytes are wrong) or `Unavailable` (a full or read-only disk)."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Corrupt(f"journal segment {path} holds what must be new ({error}); it is damaged") from error
    except sqlite3.DatabaseError as error:
        # SQLITE_ERROR is what a file with missing tables raises, and text that is not UTF-8 comes without a code.
        bare = sqlite3.SQLITE_ERROR if isinstance(error, sqlite3.OperationalError) else 0
        if getattr(error, "sqlite_errorcode", bare) & 0xFF in _DAMAGED:
            raise Corrupt(f"journal segment {path} is damaged: {error}; restore the file, or move it away") from error
        raise Unavailable(f"journal segment {path}: {error}; check that its disk has room and may be written") from error


class Segment:
    """One file; writes happen inside `transaction`, reads at any time (WAL, synchronous=FULL)."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.stem)
        with explained(path):
            # SQLite's own waiting is unfair (p99 of four writers over 80 ms): `Segments.transaction` queues them before it.
            # mode=rw: a file that retention has deleted must not come back empty.
            name = f"{path.absolute().as_uri()}?mode=rw"
            self._db = sqlite3.connect(name, timeout=10.0, isolation_level=None, check_same_thread=False, uri=True)
            self._db.execute("PRAGMA synchronous=FULL")
        self.first = self.get("first")
        self._upgrade()

    @classmethod
    def create(cls, folder: Path, number: int, first: int, carried: dict[str, Any]) -> None:
        """Make the file of a new segment, whole and durable or not at all; another process may have been quicker."""
        path = folder / f"{number:06d}.sqlite"
        meta = {"first": first, "sealed": 0, "incarnations": 0, "tick": 0.0, "swept": "{}", **_ADDED, **carried}
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
        sync(folder)

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
        rows = self._ask("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows and key in _ADDED:
            return _ADDED[key]
        if not rows:
            raise Corrupt(f"journal segment {self.path} lacks {key!r}; it is damaged")
        value: Any = rows[0][0]
        typed = isinstance(value, _FACTS[key])
        if not typed or (key in _MOST and not 0 <= value <= _MOST[key]):
            raise self._odd(key, value)
        return value

    def put(self, key: str, value: Any) -> None:
        """Set one fact, inside a transaction."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def sealed(self) -> bool:
        """Whether nothing will be added any more."""
        return bool(self.get("sealed"))

    def last(self) -> int:
        """Return the newest sequence number; that before the segment's first while it is empty."""
        newest = self._ask("SELECT max(sequence) FROM record")[0][0]
        if not isinstance(newest, int | None):
            raise self._odd("sequence", newest)
        return newest if newest is not None else self.first - 1

    def add(self, record: Encoded) -> int:
        """Add a record, inside a transaction, and return its sequence number."""
        sequence = self.last() + 1
        row = (sequence, record.kind, record.rows, record.payload, _seal(sequence, record.digest))
        self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", row)
        return sequence

    def add_block(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """Index the impressions of record `sequence`: int64[R, 2] of request numbers, ascending, and their rows."""
        body = np.append(requests, sequence).astype(np.int64).tobytes()
        self._db.execute("INSERT INTO block VALUES (?, ?, ?)", (incarnation, int(requests[0, 0]), body))

    def rows_of(self, request: Request) -> int | None:
        """Return how many rows a request scored, or None where the segment does not have it."""
        if (found := self._block(request)) is None:
            return None
        requests = self._requests(found[1])
        at = int(np.searchsorted(requests[:, 0], request[1]))
        return int(requests[at, 1]) if at < len(requests) and requests[at, 0] == request[1] else None

    def sequence_of(self, request: Request) -> int:
        """Return the record that holds a request's rows; the segment must have it."""
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
            ((_, record),) = self.read(sequence - 1, 1)
            if isinstance(record, Impressions):
                sequences[record.incarnation, int(record.request[0])] = sequence
        return sequences

    def newest_request(self, incarnation: int) -> int:
        """Return the newest request of an incarnation in this segment, -1 where there is none."""
        found = self._ask("SELECT requests FROM block WHERE incarnation = ? ORDER BY first DESC LIMIT 1", (incarnation,))
        return int(self._requests(found[0][0])[-1, 0]) if found else -1

    @cached_property
    def spans(self) -> dict[int, Request]:
        """Each incarnation's first and last request in this segment, which must be sealed."""
        spans: dict[int, Request] = {}
        for incarnation, first, body in self._ask("SELECT incarnation, first, requests FROM block ORDER BY incarnation, first"):
            if not isinstance(incarnation, int) or not isinstance(first, int):
                raise self._odd("block", (incarnation, first))
            start = spans.get(incarnation, (first, first))[0]
            spans[incarnation] = (start, int(self._requests(body)[-1, 0]))
        return spans

    def fed(self, request: Request) -> dict[int, Fed]:
        """Return what feedback each row of a request has had."""
        rows = self._ask("SELECT row, label, shown, due FROM fed WHERE incarnation = ? AND request = ?", request)
        for row, *facts in rows:
            if not isinstance(row, int) or not all(isinstance(fact, float | None) for fact in facts):
                raise self._odd("feedback", (row, *facts))
        return {row: Fed(*facts) for row, *facts in rows}

    def feed(self, rows: Iterable[tuple[int, int, int, Fed]], new: bool) -> None:
        """Set the feedback of rows, inside a transaction; with `new`, one that has had feedback here is an error."""
        verb = "INSERT" if new else "REPLACE"
        values = [(incarnation, request, row, fed.label, fed.shown, fed.due) for incarnation, request, row, fed in rows]
        self._db.executemany(f"{verb} INTO fed VALUES (?, ?, ?, ?, ?, ?)", values)

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return records after a sequence number, at least one where there are any, about `rows` rows in all."""
        records: list[tuple[int, Record]] = []
        with explained(self.path):
            cursor = self._db.execute(
                "SELECT sequence, payload, digest FROM record WHERE sequence > ? ORDER BY sequence", (after,)
            )
            for sequence, payload, expected in cursor:
                due = max(after + 1, self.first)
                if sequence != due:
                    raise Corrupt(f"journal segment {self.path} lacks record {due}; nothing after it is read")
                if not isinstance(payload, bytes) or _seal(sequence, digest(payload)) != expected:
                    raise Corrupt(
                        f"journal record {sequence} in {self.path} does not match its digest; nothing after it is read"
                    )
                records.append((sequence, _decode(payload, sequence, self.path)))
                after = sequence
                rows -= _rows(records[-1][1])
                if rows <= 0:
                    break
            cursor.close()
        return records

    def controls(self, after: int, before: int) -> list[tuple[int, Control]]:
        """Return the controls between two positions, both excluded."""
        asked = "SELECT sequence FROM record WHERE kind = ? AND sequence > ? AND sequence < ? ORDER BY sequence"
        places = self._ask(asked, (Control.kind, after, before))
        records = [record for (sequence,) in places for record in self.read(sequence - 1, 1)]
        return [(sequence, record) for sequence, record in records if isinstance(record, Control)]

    def newest_feedback_for(self, newest: Mapping[int, int], shown: bool) -> int | None:
        """Return the newest record with labels for workers' requests up to their `newest`, or with showings, if `shown`.

        The index says at once that there is none; otherwise feedback is read from the end of the segment backwards.
        """
        asked = "SELECT 1 FROM fed WHERE incarnation = ? AND request <= ? LIMIT 1"
        if not any(self._ask(asked, pair) for pair in newest.items()):
            return None
        for (sequence,) in self._ask("SELECT sequence FROM record WHERE kind = ? ORDER BY sequence DESC", (Feedback.kind,)):
            for _, record in self.read(sequence - 1, 1):
                if isinstance(record, Feedback):
                    last = np.array([newest.get(incarnation, -1) for incarnation in record.incarnation.tolist()])
                    if ((record.request <= last) & (shown | ~np.isnan(record.label))).any():
                        return int(sequence)
        return None

    def size(self) -> int:
        """Return the bytes on disk, write-ahead log included."""
        return sum(_bytes(path) for path in (self.path, self._beside("-wal")))

    def swept(self) -> dict[int, int]:
        """Return, for each incarnation, the newest request that retention has deleted."""
        return self._numbers("swept")

    def retired(self) -> dict[int, int]:
        """Return, for each segment that takes no more feedback, the newest record from before that."""
        return self._numbers("retired")

    def released(self) -> dict[int, int]:
        """Return, for each retired segment of which no shown row is still to be read, the newest record from before that."""
        return self._numbers("released")

    def settings(self, read: Callable[[dict[str, Any]], T]) -> T | None:
        """Return what `read` makes of the settings that learning reads, as the last record has them; None before the first."""
        text = self.get("settings")
        try:
            settings = json.loads(text)
            return None if settings == {} else read(settings)
        except (LookupError, TypeError, ValueError, RecursionError):
            raise self._odd("settings", text) from None

    def back_up(self, path: Path) -> None:
        """Write the segment, as it is at one moment, to a new file at `path`; others may write to it meanwhile."""
        with explained(path), closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)

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

    def _upgrade(self) -> None:
        """Add what version 0.1 lacks."""

        def lacks() -> bool:
            names = [row[1] for row in self._ask("PRAGMA table_info(fed)")]
            return bool(names) and "due" not in names

        if lacks():
            with self.transaction():
                if lacks():
                    self._db.execute("ALTER TABLE fed ADD COLUMN due REAL")

    def _ask(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with explained(self.path):
            return self._db.execute(statement, values).fetchall()

    def _numbers(self, key: str) -> dict[int, int]:
        text = self.get(key)
        try:
            return {int(name): int(value) for name, value in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
            raise self._odd(key, text) from None

    def _block(self, request: Request) -> tuple[int, bytes] | None:
        """The first request and the index of the block that would hold a request."""
        statement = "SELECT first, requests FROM block WHERE incarnation = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        found = self._ask(statement, request)
        return found[0] if found else None

    def _requests(self, body: Any) -> Ints:
        """The requests of a block's index: pairs of number and rows, and then the record's number."""
        if not isinstance(body, bytes) or len(body) < _PAIR or len(body) % 8:
            raise self._odd("requests", body)
        return np.frombuffer(body[: len(body) // _PAIR * _PAIR], np.int64).reshape(-1, 2)

    def _odd(self, name: str, value: Any) -> Corrupt:
        return Corrupt(f"journal segment {self.path} has {value!r:.80} as its {name!r}; it is damaged")

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _rows(record: Record) -> int:
    return len(record) if isinstance(record, Impressions | Feedback) else 1


def _seal(sequence: int, payload_digest: bytes) -> bytes:
    """The digest that is stored: of a record in its place, so that one in another's is found too."""
    return digest(sequence.to_bytes(8, "little", signed=True) + payload_digest)


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
