"""Registry: the interface that a backend implements, and `riverdelta.checks` tests: files by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Registry(Protocol):
    """Where one scorer's releases, live tables and checkpoints lie, as files named `<part>/<name>`.

    One process at a time writes a part, and any number read it. Errors are `OSError`: `FileNotFoundError` where there is no
    such file, another where it cannot be had or written now.
    """

    def write(self, name: str, *pieces: bytes, durable: bool = True) -> None:
        """Make `pieces`, one after the other, the contents of a file; readers see the old or the new, and never a part of it.

        A failed write leaves what was there. A power cut may take away or cut short what is not `durable`.
        """

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    def names(self, part: str) -> list[str]:
        """Return the names of a part's files, sorted; [] where there are none."""

    def size(self, name: str) -> int:
        """Return a file's bytes on disk, 0 where there is none."""

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    def path(self, name: str) -> Path:
        """Return where a file lies on this machine, for what is too large for `read`: models are written and read there."""
