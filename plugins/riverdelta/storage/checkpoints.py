"""Checkpoint: a learner's state and its position, saved in one atomic step."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from riverdelta.core.arrays import Arrays, read_arrays, write_arrays
from riverdelta.core.errors import Corrupt

_log = logging.getLogger(__name__)
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: arrays by name, and the journal position that they contain."""

    position: int
    arrays: Arrays
    path: Path


class CheckpointStore:
    """A folder of `<position>.checkpoint` files.

    Written, synced, renamed, and the folder synced: a reader sees a whole checkpoint or none. The last two are kept.

    >>> import numpy as np
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
