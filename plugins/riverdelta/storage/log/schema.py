"""Schema: the tables and facts of a segment, the upgrade from version 0.1, and the translation of SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from riverdelta.core.durable import sync
from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.storage.log.base import FACTS

_SCHEMA = """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE record (sequence INTEGER PRIMARY KEY, kind TEXT, rows INTEGER, payload BLOB, digest BLOB);
CREATE TABLE block (incarnation INTEGER, first INTEGER, requests BLOB, PRIMARY KEY (incarnation, first)) WITHOUT ROWID;
CREATE TABLE fed (incarnation INTEGER, request INTEGER, row INTEGER, label REAL, shown REAL, due REAL, weight REAL,
                  event REAL, PRIMARY KEY (incarnation, request, row)) WITHOUT ROWID;
"""
#: The facts of a segment and their initial values, which determine their types.
FIRST: dict[str, Any] = {"first": 1, "sealed": 0, "swept": "{}", "retired": "{}", "released": "{}", **FACTS}
#: The facts that a new segment copies from the one before it.
CARRIED = tuple(name for name in FIRST if name not in ("first", "sealed"))
#: The facts that segments of version 0.1 lack.
ADDED = ("retired", "released", "settings", "first_window")
#: The largest value of a number; an incarnation has 23 bits for its place.
MOST = {"first": 1 << 62, "sealed": 1, "incarnations": (1 << 23) - 2}
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)


def create(folder: Path, number: int, first: int, carried: dict[str, Any]) -> None:
    """Create the file of a new segment, complete and durable or not at all, unless another process has created it."""
    path = folder / f"{number:06d}.sqlite"
    meta = {**FIRST, **carried, "first": first}
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
            return  # the other process's file is the same
    sync(folder)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about `path` into `Corrupt` (its bytes are wrong) or `Unavailable` (a full or read-only disk)."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise Corrupt(f"journal segment {path} already has what must be new ({error}); it is damaged") from error
    except sqlite3.DatabaseError as error:
        # A file with missing tables raises SQLITE_ERROR; text that is not UTF-8 raises an error without a code.
        bare = sqlite3.SQLITE_ERROR if isinstance(error, sqlite3.OperationalError) else 0
        if getattr(error, "sqlite_errorcode", bare) & 0xFF in _DAMAGED:
            raise Corrupt(f"journal segment {path} is damaged: {error}; restore the file, or move it away") from error
        raise Unavailable(f"journal segment {path}: {error}; check that its disk has room and is writable") from error
