"""LiveStore: the newest tables as a chain of small files, each proportional to the rows that changed."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

from riverdelta.errors import Corrupt
from riverdelta.registry.state import Delta, State

_log = logging.getLogger(__name__)
_HEAD = struct.Struct("<4q")
_DELTAS_PER_WHOLE = 256


class LiveStore:
    """One writer publishes numbered deltas; any reader follows them.

    `<swap>.live` holds one delta and `head` (32 bytes: release, swap, position, swap of the newest whole) names the newest.
    Both appear by rename. Nothing is synced: after a power cut the digests tell what is damaged, and the learner publishes
    a whole again at its start. A whole drops the files before the whole that preceded it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._since_whole = self._bytes_since_whole = self._whole_bytes = 0

    def head(self) -> State | None:
        """Return the newest state, or None before the first."""
        read = self._read_head()
        return read[0] if read else None

    def needs_whole(self) -> bool:
        """Whether the next delta should be whole, so that a new reader has little to catch up on."""
        return self._since_whole >= _DELTAS_PER_WHOLE or self._bytes_since_whole > self._whole_bytes

    def publish(self, delta: Delta) -> None:
        """Make `delta` the newest; its swap number must follow the head's."""
        read = self._read_head()
        expected = read[0].swap + 1 if read else 1
        if delta.state.swap != expected:
            raise ValueError(f"swap {delta.state.swap} is published after {expected - 1}; expected {expected}")
        data = delta.encode()
        swap = delta.state.swap
        _replace(self._path(swap), data)
        if delta.base is None:
            whole = swap
            self._since_whole, self._bytes_since_whole, self._whole_bytes = 0, 0, len(data)
        else:
            assert read is not None
            whole = read[1]
            self._since_whole += 1
            self._bytes_since_whole += len(data)
        state = delta.state
        _replace(self.folder / "head", _HEAD.pack(state.release, state.swap, state.position, whole))
        if delta.base is None:
            self._drop_before(read[1] if read else swap)

    def follow(self, after: State | None) -> list[Delta]:
        """Return the deltas that lead from `after` to the head, in order; [] when there is nothing new.

        Where the chain is broken, or without `after`, it starts with the newest whole. A damaged file is logged and ends the
        list: what comes after it waits for the next whole.
        """
        read = self._read_head()
        if read is None or (after is not None and after.swap == read[0].swap):
            return []
        head, whole = read
        if after is not None and after.swap < head.swap:
            chain = self._chain(after.swap + 1, head.swap)
            if chain and (chain[0].base is None or chain[0].base.swap == after.swap):
                return chain
        return self._chain(whole, head.swap)

    def _chain(self, first: int, last: int) -> list[Delta]:
        chain: list[Delta] = []
        for swap in range(first, last + 1):
            try:
                chain.append(Delta.decode(self._path(swap).read_bytes(), f"live state {self._path(swap).name}"))
            except FileNotFoundError:
                break
            except Corrupt as error:
                _log.error("%s", error)
                break
        return chain

    def _read_head(self) -> tuple[State, int] | None:
        try:
            data = (self.folder / "head").read_bytes()
        except FileNotFoundError:
            return None
        if len(data) != _HEAD.size:
            _log.error("%s has %d bytes; expected %d: it is ignored", self.folder / "head", len(data), _HEAD.size)
            return None
        release, swap, position, whole = _HEAD.unpack(data)
        return State(release, swap, position), whole

    def _drop_before(self, swap: int) -> None:
        for path in self.folder.glob("*.live"):
            if path.stem.isdigit() and int(path.stem) < swap:
                path.unlink(missing_ok=True)

    def _path(self, swap: int) -> Path:
        return self.folder / f"{swap:012d}.live"


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
