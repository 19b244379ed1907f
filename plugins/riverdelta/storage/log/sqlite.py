"""SqliteLog: the embedded log, a folder of SQLite files that any number of processes write to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from riverdelta.core.errors import Unavailable
from riverdelta.core.locks import Lock, alone
from riverdelta.storage.log.base import ERASED, Entry, Needed, Request, Row, Transaction
from riverdelta.storage.log.segments import Segments

#: How often a waiting reader polls for records of other processes, in seconds.
_LOOK_SECONDS = 0.01
#: How long `scrub` waits for the readers of a segment, in seconds.
_SCRUB_SECONDS = 10.0


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
        #: When the segments that `erase` changed were last written to before.
        self._dates: dict[int, float] = {}

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
        """See `Log.erase`: first the newest segment marks the rows, so that they accept no more feedback."""
        writer = self._writer
        with writer._lock:
            marked = 0
            if rows:
                with writer.transaction() as transaction:
                    transaction.feed(dict.fromkeys(rows, ERASED))
                    marked = writer.newest.number  # another process may begin the next one at any moment
            with writer._now(refresh=True) as segments:
                for segment in segments:
                    mine = {at: entry for at, entry in entries.items() if segment.first <= at <= segment.last()}
                    older = rows if segment.number < marked else ()
                    if mine or older or requests or ids:
                        self._dates.setdefault(segment.number, segment.written())
                        with segment.transaction():
                            for at, entry in mine.items():
                                segment.replace(at, entry)
                            segment.erase(older, requests, ids)

    def scrub(self) -> None:
        """See `Log.scrub`: SQLite overwrites what it deletes, and the write-ahead logs, which have it too, are emptied."""
        # This hold's own readers end first.
        with self._lock, self._writer._now(refresh=True) as segments:
            for segment in segments:
                deadline = time.monotonic() + _SCRUB_SECONDS
                while not segment.settle():
                    if time.monotonic() > deadline:
                        raise Unavailable(f"{segment.where} is in use, so that what was erased is still in its write-ahead log")
                    time.sleep(_LOOK_SECONDS)
                if (written := self._dates.pop(segment.number, None)) is not None and segment is not segments[-1]:
                    os.utime(segment.path, (written, written))  # retention goes by it

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
