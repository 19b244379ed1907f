"""Durable: files that appear in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO


@contextmanager
def atomic(path: Path, mode: int = 0o644, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that becomes `path` when the block ends without an error.

    By then its bytes and its name are on the disk; after an error nothing is left behind. With `replace=False` a file that
    is already at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            if replace:
                os.replace(file.name, path)
            else:
                with suppress(FileExistsError):
                    os.link(file.name, path)
                os.unlink(file.name)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    sync(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """Make `data` the contents of `path`, at one moment for its readers; nothing is synced, and one process at a time may.

    After an error nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Bring a file's bytes, or the names in a folder, onto the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
