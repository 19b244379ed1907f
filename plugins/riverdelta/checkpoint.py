"""Checkpoint: a learner's state and its position, saved in one atomic step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from riverdelta.durable import atomic
from riverdelta.errors import Corrupt
from riverdelta.events import digest

_log = logging.getLogger(__name__)
_DIGEST_BYTES = 16
_KEPT = 2
Arrays = Mapping[str, npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays by name as a digest (16 bytes of BLAKE2b) and a safetensors file, whole and durable or not at all."""
    body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with atomic(path) as file:
        file.write(digest(body))
        file.write(body)


def read_arrays(path: Path) -> Arrays:
    """Return what `write_arrays` wrote; raises `Corrupt` naming the file where it is missing or not what it was."""
    try:
        data = path.read_bytes()
        body = data[_DIGEST_BYTES:]
        if digest(body) != data[:_DIGEST_BYTES]:
            raise ValueError(f"its {len(data)} bytes do not match the digest")
        return load(body)
    except (OSError, SafetensorError, ValueError, KeyError) as error:  # a dtype that numpy lacks is a KeyError
        raise Corrupt(f"{path} cannot be used: {error}") from error


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: arrays by name, and the journal position that they contain."""

    position: int
    arrays: Arrays
    path: Path


class CheckpointStore:
    """A folder of `<position>.checkpoint` files.

    Written, synced, renamed, and the folder synced: a reader sees a whole checkpoint or none. The last two are kept.

    >>> from tempfile import mkdtemp
    >>> store = CheckpointStore(Path(mkdtemp()))
    >>> _ = store.save(7, {"weights": np.ones(2)})
    >>> store.load().position, store.load().arrays["weights"].tolist()
    (7, [1.0, 1.0])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, position: int, arrays: Arrays) -> Path:
        """Save the state at `position` and drop all but the last two; any beyond `position` was damaged and goes too."""
        path = self.folder / f"{position:015d}.checkpoint"
        write_arrays(path, arrays)
        paths = self._paths()
        newest = paths.index(path)
        for gone in (*paths[: max(newest + 1 - _KEPT, 0)], *paths[newest + 1 :]):
            gone.unlink(missing_ok=True)
        return path

    def load(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, or None; damaged ones are logged and passed over."""
        for path in reversed(self._paths()):
            try:
                return Checkpoint(int(path.stem), read_arrays(path), path)
            except Corrupt as error:
                _log.error("%s; the checkpoint before it is used", error)
        return None

    def oldest(self) -> int:
        """Return the position of the oldest kept checkpoint, 0 without any: what the journal must still hold after it."""
        paths = self._paths()
        return int(paths[0].stem) if len(paths) == _KEPT else 0

    def _paths(self) -> list[Path]:
        # A copy that somebody made is none of ours.
        return sorted(path for path in self.folder.glob("*.checkpoint") if path.stem.isdecimal())
