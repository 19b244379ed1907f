"""Texts: the texts of string ids in one segment file, by their hashes."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from pathlib import Path

from riverdelta.storage.log.schema import explained


class Texts:
    """The texts in the segment at `path`, whose database is `db`; writes happen inside a transaction of the segment.

    Their table is created with the first one, so that files without texts keep the older format.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db, self._path = db, path

    def note(self, texts: Mapping[int, str]) -> None:
        """Add the texts of ids."""
        self._db.execute("CREATE TABLE IF NOT EXISTS text (place INTEGER PRIMARY KEY, id INTEGER UNIQUE, value TEXT)")
        self._db.executemany("INSERT OR IGNORE INTO text (id, value) VALUES (?, ?)", list(texts.items()))

    def find(self, ids: Collection[int]) -> dict[int, str]:
        """Return the texts of ids that this segment has."""
        with explained(self._path):
            if not self._exists():
                return {}
            asked = "SELECT value FROM text WHERE id = ?"
            found = [(each, self._db.execute(asked, (each,)).fetchone()) for each in ids]
        return {each: row[0] for each, row in found if row is not None and isinstance(row[0], str)}

    def count(self) -> int:
        """Return how many texts this segment has, at once: those deleted before the newest one count too."""
        with explained(self._path):
            return int(self._db.execute("SELECT max(place) FROM text").fetchone()[0] or 0) if self._exists() else 0

    def forget(self, ids: Collection[int]) -> None:
        """Delete the texts of ids."""
        if self._exists():
            self._db.executemany("DELETE FROM text WHERE id = ?", [(each,) for each in ids])

    def _exists(self) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'text'").fetchone() is not None
