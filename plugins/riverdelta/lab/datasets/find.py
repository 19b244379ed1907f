"""Find data sets: given, below RIVERDELTA_DATA, and MovieLens latest-small also cached or downloaded."""

from __future__ import annotations

import hashlib
import importlib
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
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.lab.datasets.dataset import DataSet

_log = logging.getLogger(__name__)
_NAME = "ml-latest-small"
_URL = f"https://files.grouplens.org/datasets/movielens/{_NAME}.zip"
_MARKERS = ("ratings.csv", "ratings.dat", "u.data")
_SECONDS = 10.0

#: The data sets of `riverdelta replay --dataset`; each has a file in this folder.
NAMES = ("cranfield", "electricity", "medquad", "mq2008", "skab", "spoken-digits", "traffic-i94")

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
    cache = cache or _cache(environment)
    for why, around in {"RIVERDELTA_DATA": environment.get("RIVERDELTA_DATA"), "cached": str(cache / _NAME)}.items():
        if around and (folder := _release(Path(around))):
            return Found(folder, f"{folder.name} ({why})")
    try:
        return Found(_download(cache, fetch), f"{_NAME} (downloaded from grouplens.org)")
    except (OSError, Corrupt) as error:
        _log.info("MovieLens cannot be downloaded: %s", error)
        return Found(None, f"the built-in simulator (MovieLens cannot be downloaded: {error})")


def data_set(name: str) -> DataSet:
    """Return the data set of that name, one of `NAMES`."""
    found: DataSet = importlib.import_module(f"riverdelta.lab.datasets.{name.replace('-', '_')}").DATASET
    return found


def folder_of(name: str, given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a data set: `given`, or the one of its name below RIVERDELTA_DATA.

    Raises `ConfigurationError` naming the folder if there is none.
    """
    around = environment.get("RIVERDELTA_DATA")
    if given is None and not around:
        raise ConfigurationError(f"no folder of {name} is known; give it: riverdelta replay --dataset {name} --data FOLDER")
    folder = given or Path(around or ".") / name
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; give another: riverdelta replay --dataset {name} --data FOLDER")
    return folder


def cache_of(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in the user's cache that keeps what was made of a data set."""
    return _cache(environment) / name


def _cache(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "riverdelta"


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
