"""Find MovieLens latest-small: given, local, cached, or downloaded."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from riverdelta.core.durable import place
from riverdelta.core.errors import Corrupt, InvalidInput

_log = logging.getLogger(__name__)
_NAME = "ml-latest-small"
_URL = f"https://files.grouplens.org/datasets/movielens/{_NAME}.zip"
_MARKERS = ("ratings.csv", "ratings.dat", "u.data")
_SECONDS = 10.0

Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class Found:
    """A folder with a MovieLens release, or None, and a description of its origin."""

    folder: Path | None
    source: str


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_SECONDS) as response:
        return response.read()


def find_movielens(
    given: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    cache: Path | None = None,
    fetch: Fetch = _fetch,
) -> Found:
    """Return the first release found in `given`, RIVERDELTA_DATA, the cache, or on GroupLens's site.

    Raises `InvalidInput` if `given` has no release; a network failure returns `Found(None, …)`.
    """
    if given is not None:
        if folder := _release(given):
            return Found(folder, f"{folder.name} (--data)")
        raise InvalidInput(f"--data {given} has no MovieLens release; expected one of {', '.join(_MARKERS)} in it")
    cache = cache or Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "riverdelta"
    for why, around in {"RIVERDELTA_DATA": environment.get("RIVERDELTA_DATA"), "cached": str(cache / _NAME)}.items():
        if around and (folder := _release(Path(around))):
            return Found(folder, f"{folder.name} ({why})")
    try:
        return Found(_download(cache, fetch), f"{_NAME} (downloaded from grouplens.org)")
    except (OSError, Corrupt) as error:
        _log.info("MovieLens cannot be downloaded: %s", error)
        return Found(None, f"the built-in simulator (MovieLens cannot be downloaded: {error})")


def _release(folder: Path) -> Path | None:
    candidates = (folder, folder / _NAME)
    return next((c for c in candidates if any((c / marker).is_file() for marker in _MARKERS)), None)


def _download(cache: Path, fetch: Fetch) -> Path:
    """Download, check against the publisher's checksum, unpack beside the cache and move the complete folder there."""
    data = fetch(_URL)
    expected = fetch(f"{_URL}.md5").decode().split()
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if got not in expected:
        raise Corrupt(f"{_URL} has the MD5 {got}; expected the publisher's {' '.join(expected)}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if not (Path(work) / name).resolve().is_relative_to(Path(work).resolve()):
                    raise Corrupt(f"{_URL} contains {name!r}, which is outside its folder; it is not unpacked")
            archive.extractall(work)
        place(Path(work) / _NAME, cache / _NAME)
    return cache / _NAME
