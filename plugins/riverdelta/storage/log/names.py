"""Names: what one segment file has by its clients' words: named requests, names of deleted ones, and texts of string ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.hashing import id64
from riverdelta.storage.log.base import Named, Request
from riverdelta.storage.log.schema import explained

# Each table is created with its first row, so that files without names keep the older format.
_NAMED = "named (name TEXT PRIMARY KEY, incarnation INTEGER, request INTEGER, content BLOB) WITHOUT ROWID"
_OUTLIVED = "outlived (hashes BLOB)"
_TEXT = "text (id INTEGER PRIMARY KEY, value TEXT)"


class Names:
    """The names in the segment at `path`, whose database is `db`; writes happen inside a transaction of the segment."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

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
        self._insert(_OUTLIVED, [(hashes.tobytes(),)])

    def outlived(self, name: str) -> bool:
        """Return whether a name has such a hash."""
        for (hashes,) in self._ask("outlived", "hashes"):
            if not isinstance(hashes, bytes) or len(hashes) % 8:
                raise self._odd("outlived", hashes)
            if id64(name) in np.frombuffer(hashes, np.int64):
                return True
        return False

    def note(self, texts: Mapping[int, str]) -> None:
        """Add the texts of ids."""
        self._insert(_TEXT, list(texts.items()), "INSERT OR IGNORE")

    def texts(self, ids: Collection[int]) -> dict[int, str]:
        """Return the texts of ids that this segment has."""
        found = {each: self._ask("text", "value", "WHERE id = ?", each) for each in ids}
        return {each: rows[0][0] for each, rows in found.items() if rows and isinstance(rows[0][0], str)}

    def noted(self) -> int:
        """Return how many texts this segment has."""
        return sum(count for (count,) in self._ask("text", "count(*)"))

    def forget(self, requests: Collection[Request], ids: Collection[int]) -> None:
        """Delete the names of requests and the texts of ids."""
        if self._ask("named", "1", "LIMIT 1"):
            self._db.executemany("DELETE FROM named WHERE incarnation = ? AND request = ?", requests)
        if self._ask("text", "1", "LIMIT 1"):
            self._db.executemany("DELETE FROM text WHERE id = ?", [(each,) for each in ids])

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]], verb: str = "INSERT") -> None:
        if rows:
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            self._db.executemany(f"{verb} INTO {table.split()[0]} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def _ask(self, table: str, columns: str, where: str = "", *values: str | int) -> list[Any]:
        with explained(self._path):
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchall():
                return []
            return self._db.execute(f"SELECT {columns} FROM {table} {where}", values).fetchall()

    def _odd(self, name: str, value: Any) -> Corrupt:
        return Corrupt(f"journal segment {self._path} has {value!r:.80} as its {name!r}; it is damaged")
