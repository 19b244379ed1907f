"""Digests: file digests, with large files read again only after they have changed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from riverdelta.core import hashing
from riverdelta.core.durable import write

#: A file's device, inode, size, and the times of its last change and last write in ns. Every write updates the time of change
#: (ctime), which no program can reset.
Identity = tuple[int, ...]
#: A smaller file is read in about a millisecond.
_LEAST_BYTES = 1 << 20
#: A second change within one tick of the file system's clock is not visible; some file systems count full seconds.
_TICK_NS, _LONG_TICK_NS = 50_000_000, 2_000_000_000

_known: dict[tuple[str, ...], tuple[tuple[Identity, ...], str]] = {}


def identify(*paths: Path) -> tuple[Identity, ...]:
    """Return an identity of files that changes whenever they do, without reading them."""
    return tuple((s.st_dev, s.st_ino, s.st_size, s.st_ctime_ns, s.st_mtime_ns) for s in map(os.stat, paths))


def file_digest(*paths: Path) -> str:
    """Return BLAKE2b of the files' bytes, one file after another, in 32 hexadecimal digits.

    Files of 1 MiB or more are not read again if unchanged since this process, or one that called `keep`, read them.
    """
    names, found = tuple(str(path.absolute()) for path in paths), identify(*paths)
    if (known := _known.get(names)) and known[0] == found:
        return known[1]
    started, digest = time.time_ns(), hashing.file_digest(*paths)
    settled = all(started - changed > (_TICK_NS if changed % 10**9 else _LONG_TICK_NS) for *_, changed, _ in found)
    if settled and sum(size for _, _, size, *_ in found) >= _LEAST_BYTES and identify(*paths) == found:
        _known[names] = found, digest
    return digest


def remember(path: Path) -> None:
    """Load the digests that an earlier process saved at `path`; a missing or damaged file has none."""
    try:
        for entry in json.loads(path.read_bytes()):
            names, found, digest = entry["files"], entry["identities"], entry["digest"]
            _known.setdefault(tuple(map(str, names)), (tuple(tuple(map(int, one)) for one in found), str(digest)))
    except (OSError, ArithmeticError, ValueError, TypeError, KeyError, RecursionError):
        return


def keep(path: Path) -> None:
    """Save the digests of unchanged files at `path`, for later processes."""
    entries = []
    for names, (found, digest) in sorted(_known.items()):
        try:
            if identify(*map(Path, names)) == found:
                entries.append({"files": names, "identities": found, "digest": digest})
        except (OSError, ValueError):  # deleted in the meantime, or not a path
            continue
    data = json.dumps(entries, indent=1).encode()
    if (path.read_bytes() if path.exists() else b"[]") != data:
        write(path, data)
