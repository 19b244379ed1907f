"""SqliteLog: the embedded log, a folder of SQLite files that any number of processes write to."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from riverdelta.core.errors import Unavailable
from riverdelta.core.locks import Lock, alone
from riverdelta.storage.log.base import Entry, Needed, Request, Row, Transaction
from riverdelta.storage.log.segments import Segments

#: How often a waiting reader polls for records of other processes, in seconds.
_LOOK_SECONDS = 0.01


class SqliteLog(Segments):
    """The default log: a folder of segment files.

    It reads through one connection and writes through another, so that readers see only committed records and never wait for a
    writer. Raises `Unavailable` or `Corrupt`, naming the file, if the folder cannot be used.

    Parameters
    ----------
    folder
        Where the segments are; created if missing.
    segment_bytes
        Approximate size of a segment (default 256 MiB), the unit of deletion. Lower it to delete in smaller steps.
    """

    def __init__(self, folder: Path, segment_bytes: int = 256 << 20) -> None:
        self._writer = Segments(folder, segment_bytes)
        super().__init__(folder, segment_bytes)
        #: Locked files of live processes; the kernel frees a lock however its process ends.
        self._alive = folder / "alive"
        self._locks: dict[int, Lock] = {}
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

    def erase(
        self,
        entries: Mapping[int, Entry],
        rows: Collection[Row] = (),
        requests: Collection[Request] = (),
        ids: Collection[int] = (),
    ) -> None:
        """See `Log.erase`."""
        self._writer.erase(entries, rows, requests, ids)

    def scrub(self) -> None:
        """See `Log.scrub`."""
        with self._lock:  # this hold's own readers end first
            self._writer.scrub()

    def enter(self, incarnation: int) -> None:
        """See `Log.enter`; files of dead processes are removed.

        One process at a time may do so, because a file without a lock counts as a dead process's.
        """
        try:
            self._alive.mkdir(exist_ok=True)
            for path in self._alive.iterdir():
                if path.name.isdecimal():
                    self.lives(int(path.name))
            self._locks[incarnation] = Lock(self._alive / str(incarnation), f"incarnation {incarnation}")
        except OSError as error:
            raise Unavailable(f"the journal folder {self.folder} cannot be written: {error}") from error

    def lives(self, incarnation: int) -> bool:
        """See `Log.lives`."""
        path = self._alive / str(incarnation)
        if not path.exists():
            return False
        with alone(path) as dead:
            if dead:
                path.unlink(missing_ok=True)
        return not dead

    def leave(self, incarnation: int) -> None:
        """See `Log.leave`."""
        (self._alive / str(incarnation)).unlink(missing_ok=True)
        if lock := self._locks.pop(incarnation, None):
            lock.release()

    def refresh(self) -> None:
        """See `Log.refresh`."""
        super().refresh()
        self._writer.refresh()

    def close(self) -> None:
        """See `Log.close`."""
        super().close()
        self._writer.close()
