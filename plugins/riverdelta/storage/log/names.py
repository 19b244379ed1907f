"""Names: the requests that clients named, in one segment file, and those that retention has deleted with others."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.hashing import id64
from riverdelta.storage.log.base import Named, Request
from riverdelta.storage.log.schema import explained

# Each table is created with its first row, so that files without names keep the older format, and is never dropped.
_NAMED = "named (name TEXT PRIMARY KEY, incarnation INTEGER, request INTEGER, content BLOB) WITHOUT ROWID"
_OUTLIVED = "outlived (hash INTEGER PRIMARY KEY)"


class Names:
    """The names in the segment at `path`, whose database is `db`; writes happen inside a transaction of the segment."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path, self._there = db, path, set[str]()

    def add(self, name: str, named: Named) -> None:
        """Give a request a name."""
        self._insert(_NAMED, [(name, *named.request, named.content)])

    def find(self, name: str) -> Named | None:
        """Return the request of a name, None if the segment does not have it."""
        found = self._ask("named", "incarnation, request, content", "WHERE name = ?", name)
        if not found:
            return None
        incarnation, request, content = found[0]
        if not (isinstance(incarnation, int) and isinstance(request, int) and isinstance(content, bytes)):
            raise self._odd("named", found[0])
        return Named((incarnation, request), content)

    def hashes(self) -> Ints:
        """Return the hashes of all names."""
        return np.array([id64(name) for (name,) in self._ask("named", "name")], np.int64)

    def outlive(self, hashes: Ints) -> None:
        """Keep the hashes of names whose requests are deleted with another segment."""
        self._insert(_OUTLIVED, [(each,) for each in sorted(hashes.tolist())])

    def forget(self, requests: Collection[Request], hashes: Collection[int]) -> None:
        """Delete the names of requests, and these hashes of the names of deleted ones."""
        if requests and self._has("named"):
            # In one pass, because the table is ordered by name.
            gone = set(requests)
            names = [(name,) for name, *request in self._ask("named", "name, incarnation, request") if tuple(request) in gone]
            self._db.executemany("DELETE FROM named WHERE name = ?", names)
        if hashes and self._has("outlived"):
            self._db.executemany("DELETE FROM outlived WHERE hash = ?", [(each,) for each in hashes])

    def outlived(self, name: str) -> bool:
        """Return whether a name has such a hash."""
        return bool(self._ask("outlived", "1", "WHERE hash = ?", id64(name)))

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        marks, verb = ", ".join("?" * len(rows[0])), "INSERT OR IGNORE" if table is _OUTLIVED else "INSERT"
        self._db.executemany(f"{verb} INTO {table.split()[0]} VALUES ({marks})", rows)

    def _has(self, table: str) -> bool:
        if table not in self._there and self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
            # What a transaction has made may be rolled back.
            if self._db.in_transaction:
                return True
            self._there.add(table)
        return table in self._there

    def _ask(self, table: str, columns: str, where: str = "", *values: str | int) -> list[Any]:
        with explained(self._path):
            return self._db.execute(f"SELECT {columns} FROM {table} {where}", values).fetchall() if self._has(table) else []

    def _odd(self, name: str, value: Any) -> Corrupt:
        return Corrupt(f"journal segment {self._path} has {value!r:.80} as its {name!r}; it is damaged")
