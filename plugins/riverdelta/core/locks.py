"""Lock: one holder of a folder at a time, named by its process id; Turn: writers that queue; shared and alone: many, or one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riverdelta.core.errors import Locked


class Lock:
    """An advisory lock on a file that holds its owner's pid; the kernel releases it when the process ends, however it ends."""

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock; raises `Locked` naming `what` and the holder's pid when another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._file, 32).decode().strip() or "unknown"
            os.close(self._file)
            raise Locked(
                f"{what} is in use by process {pid} ({path}); stop it, or set RIVERDELTA_HOME to another folder"
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let go."""
        os.close(self._file)


class Turn:
    """A queue of processes at a file: who waits sleeps in the kernel and is woken the moment it is free."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, and give it up at the end of the block."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock on the file at `path` together with others who share it, as soon as nobody has it alone."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Yield whether nobody else has the lock on the file at `path`; if so, it is held until the end of the block."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(file)
