"""Alive: which of the processes that write to a journal still live."""

from __future__ import annotations

from pathlib import Path

from riverdelta.core.locks import Lock, alone


class Alive:
    """A lock on `<folder>/<incarnation>` for each process that lives; the kernel frees it when the process ends in any way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mine: tuple[Path, Lock] | None = None

    def enter(self, incarnation: int) -> None:
        """Let others know that this process lives, and clear away what dead ones left.

        One process at a time may do so: whoever clears takes a file without a lock for a dead one's.
        """
        self._folder.mkdir(exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.isdecimal():
                self.has(int(path.name))
        path = self._folder / str(incarnation)
        self._mine = path, Lock(path, f"incarnation {incarnation}")

    def has(self, incarnation: int) -> bool:
        """Whether the process of an incarnation lives and has not left."""
        path = self._folder / str(incarnation)
        if not path.exists():
            return False
        with alone(path) as dead:
            if dead:
                path.unlink(missing_ok=True)
        return not dead

    def leave(self) -> None:
        """Let others know that nothing more comes from this process."""
        if self._mine is not None:
            path, lock = self._mine
            path.unlink(missing_ok=True)
            lock.release()
            self._mine = None
