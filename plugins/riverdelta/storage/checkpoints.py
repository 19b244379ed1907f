"""Checkpoint: a learner's state and its position, saved in one atomic step."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from riverdelta.core.arrays import Arrays, pack, unpack
from riverdelta.core.errors import Corrupt
from riverdelta.storage.registry import Registry

_log = logging.getLogger(__name__)
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: arrays by name, and the journal position that they contain."""

    position: int
    arrays: Arrays
    path: Path


class CheckpointStore:
    """Saves checkpoints as `checkpoints/<position>.checkpoint`; each appears complete or not at all, and two are kept.

    >>> import numpy as np
    >>> from tempfile import mkdtemp
    >>> from riverdelta.storage.registry import FolderRegistry
    >>> store = CheckpointStore(FolderRegistry(Path(mkdtemp())))
    >>> _ = store.save(7, {"weights": np.ones(2)})
    >>> store.load().position, store.load().arrays["weights"].tolist()
    (7, [1.0, 1.0])
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def save(self, position: int, arrays: Arrays) -> Path:
        """Save the state at `position` and delete all but the last two, and any damaged one beyond `position`."""
        name = f"checkpoints/{position:015d}.checkpoint"
        self.registry.write(name, *pack(arrays))
        names = self._names()
        newest = names.index(name)
        for gone in (*names[: max(newest + 1 - _KEPT, 0)], *names[newest + 1 :]):
            self.registry.delete(gone)
        return self.registry.path(name)

    def load(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, or None; damaged ones are logged and skipped."""
        for name in reversed(self._names()):
            path = self.registry.path(name)
            try:
                return Checkpoint(_position(name), unpack(self.registry.read(name), path), path)
            except (OSError, Corrupt) as error:
                _log.error("%s; the checkpoint before it is used", error)
        return None

    def delete_before(self, position: int) -> None:
        """Delete the checkpoints before a position, if there is one at or after it."""
        names = self._names()
        if names and _position(names[-1]) >= position:
            for name in names:
                if _position(name) < position:
                    self.registry.delete(name)

    def oldest(self) -> int:
        """Return the position of the oldest checkpoint, 0 without any: the journal must keep all records after it."""
        names = self._names()
        return _position(names[0]) if len(names) == _KEPT else 0

    def _names(self) -> list[str]:
        # Other names, such as a manual copy's, are ignored.
        return [name for name in self.registry.names("checkpoints") if re.fullmatch(r".*/\d+\.checkpoint", name)]


def _position(name: str) -> int:
    return int(Path(name).stem)
