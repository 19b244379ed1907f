"""SqliteLog: the embedded log, a folder of SQLite files that any number of processes write to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riverdelta.core.errors import Unavailable
from riverdelta.storage.log.alive import Alive
from riverdelta.storage.log.base import Needed, Transaction
from riverdelta.storage.log.segments import Segments

#: How often one who waits for a record looks for those of other processes.
_LOOK_SECONDS = 0.01


class SqliteLog(Segments):
    """A folder of segments of about `segment_bytes` each (256 MiB by default; an old one is deleted as one).

    It reads by one connection and writes by another, so that readers see only what is committed and never wait for a writer.
    Raises `Unavailable` or `Corrupt`, naming the file, where the folder cannot be used.
    """

    def __init__(self, folder: Path, segment_bytes: int = 256 << 20) -> None:
        self._writer = Segments(folder, segment_bytes)
        super().__init__(folder, segment_bytes)
        self._alive = Alive(folder / "alive")
        self._written = threading.Condition()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See `Log.transaction`."""
        with self._writer.transaction() as transaction:
            yield transaction
        with self._written:
            self._written.notify_all()

    def wait(self, after: int, seconds: float) -> bool:
        """See `Log.wait`."""
        deadline = time.monotonic() + seconds
        with self._written:
            while self.last() <= after:
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                self._written.wait(min(left, _LOOK_SECONDS))
        return True

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """See `Log.sweep`."""
        freed = self._writer.sweep(behind, max_age, max_bytes, now, needed)
        super().refresh()
        return freed

    def enter(self, incarnation: int) -> None:
        """See `Log.enter`."""
        try:
            self._alive.enter(incarnation)
        except OSError as error:
            raise Unavailable(f"the journal folder {self.folder} cannot be written: {error}") from error

    def lives(self, incarnation: int) -> bool:
        """See `Log.lives`."""
        return self._alive.has(incarnation)

    def leave(self, incarnation: int) -> None:
        """See `Log.leave`."""
        self._alive.leave()

    def refresh(self) -> None:
        """See `Log.refresh`."""
        super().refresh()
        self._writer.refresh()

    def close(self) -> None:
        """See `Log.close`."""
        super().close()
        self._writer.close()
