"""Locks: file locks, which the kernel frees however their process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from riverdelta.core.errors import Locked


class Lock:
    """A lock that is held until `release`, on a file with its owner's process id."""

    def __init__(self, path: Path, what: str) -> None:
        """Acquire the lock; raises `Locked` naming `what` and the owner's process id if another process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open(path)
        if not _take(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            pid = os.read(self._file, 32).decode().strip() or "unknown"
            os.close(self._file)
            raise Locked(
                f"{what} is in use by process {pid} ({path}); stop that process, or set RIVERDELTA_HOME to another folder"
            )
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Release the lock."""
        os.close(self._file)


class Turn:
    """A queue of processes at a file: a waiting process sleeps in the kernel and wakes as soon as the file is free."""

    def __init__(self, path: Path) -> None:
        self._file = _open(path)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for the turn, and release it at the end of the block."""
        _take(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            _take(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def alone(path: Path, wait: bool = False) -> AbstractContextManager[bool]:
    """Yield whether the exclusive lock on the file at `path` was free; if so, it is held until the end of the block.

    With `wait` the block begins once it is free.
    """
    return _held(path, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def shared(path: Path) -> AbstractContextManager[bool]:
    """Hold a shared lock on the file at `path`, once no process holds the exclusive one."""
    return _held(path, fcntl.LOCK_SH)


@contextmanager
def _held(path: Path, how: int) -> Iterator[bool]:
    file = _open(path)
    try:
        yield _take(file, how)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _take(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True
