"""Durable: files that appear complete or not at all, and bytes that are verified when read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from riverdelta.core.errors import Corrupt
from riverdelta.core.hashing import digest

_DIGEST_BYTES = 16


@contextmanager
def atomic(path: Path, mode: int = 0o644, replace: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that `place` moves to `path` if the block ends without an error.

    After an error nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            place(Path(file.name), path, replace)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def write(path: Path, *parts: bytes, mode: int = 0o644, replace: bool = True) -> None:
    """Write the concatenated `parts` to a file that appears complete and durable, or not at all; see `atomic`."""
    with atomic(path, mode, replace) as file:
        file.writelines(parts)


def place(made: Path, path: Path, replace: bool = True) -> None:
    """Move the finished file or folder at `made`, on the same disk, to `path`; its bytes and its name are then durable.

    With `replace=False` an existing file at `path` stays, and the one at `made` is deleted.
    """
    for each in (made, *made.rglob("*")):
        sync(each)
    if replace:
        os.replace(made, path)
    else:
        with suppress(FileExistsError):
            os.link(made, path)
        os.unlink(made)
    sync(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """Replace the contents of `path` by `data` atomically, without syncing; one process at a time may call it.

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
    """Make a file's bytes, or the names in a folder, durable."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def seal(body: bytes) -> tuple[bytes, bytes]:
    """Return the two parts that `unseal` reads: the digest of `body`, and `body`.

    >>> unseal(b"".join(seal(b"state")), "state.bin")
    b'state'
    """
    return digest(body, size=_DIGEST_BYTES), body


def unseal(data: bytes, source: Path | str) -> bytes:
    """Return the body of sealed bytes; raises `Corrupt`, naming `source`, if they do not match their digest."""
    body = data[_DIGEST_BYTES:]
    if data[:_DIGEST_BYTES] != digest(body, size=_DIGEST_BYTES):
        raise Corrupt(f"{source} cannot be used: its {len(data)} bytes do not match the digest")
    return body
