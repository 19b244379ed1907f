"""Registry: files by name, the interface that a backend implements and `riverdelta.checks` tests."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Registry(Protocol):
    """The releases, live tables and checkpoints of one scorer, as files named `<part>/<name>`.

    One process at a time writes a part, and any number read it. Errors are `OSError`: `FileNotFoundError` if there is no such
    file, another if it cannot be read or written now.
    """

    def write(self, name: str, *pieces: bytes, durable: bool = True) -> None:
        """Replace a file's contents by the concatenated `pieces`; readers see the old or the new contents, never a part.

        A failed write leaves the old contents. A power failure may lose or truncate a file that is not `durable`.
        """

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    def names(self, part: str) -> list[str]:
        """Return the sorted names of a part's files, [] without any."""

    def size(self, name: str) -> int:
        """Return a file's size in bytes, 0 if it does not exist."""

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

    def path(self, name: str) -> Path:
        """Return a file's path on this machine, for files too large for `read`: models are written and read there."""
