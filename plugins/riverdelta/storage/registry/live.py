"""LiveStore: the newest tables as a chain of files, each proportional to the rows that changed."""

from __future__ import annotations

import logging
import re
import struct
from contextlib import suppress

from riverdelta.core.errors import Corrupt
from riverdelta.core.hashing import digest
from riverdelta.storage.registry.base import Registry
from riverdelta.storage.registry.state import Delta, State

_log = logging.getLogger(__name__)
_HEAD = struct.Struct("<4q")
_DELTAS_PER_FULL = 256


class LiveStore:
    """Numbered deltas of the live tables, from one writer to any number of readers.

    `live/<swap>.live` is one delta and `live/head` names the newest (int64 release, swap, position, swap of the newest full
    delta, and a digest of the four). Nothing is synced: after a power failure the digests show what is damaged, and the
    learner publishes a full delta at its start. A full delta deletes the files before the previous full one.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._since_full = self._bytes_since_full = self._full_bytes = 0
        self._complained = ""
        self._stuck: tuple[State | None, State] | None = None
        self._lost: tuple[list[int], tuple[State, int] | None] = [], None

    def head(self) -> State | None:
        """Return the newest state, or None before the first; if `head` is damaged, that of the newest intact file."""
        read = self._read_head() or self._recover()
        return read[0] if read else None

    def needs_whole(self) -> bool:
        """Return whether the next delta should be full, so that a new reader has few files to read."""
        return self._since_full >= _DELTAS_PER_FULL or self._bytes_since_full > self._full_bytes

    def publish(self, delta: Delta) -> None:
        """Publish `delta` as the newest; its swap number must follow the head's."""
        read = self._read_head() or self._recover()
        expected = read[0].swap + 1 if read else 1
        if delta.state.swap != expected:
            raise ValueError(f"swap {delta.state.swap} is published after {expected - 1}; expected {expected}")
        if delta.base is not None and (read is None or delta.base != read[0]):
            raise ValueError(
                f"a delta to {delta.base} is published after {read[0] if read else 'nothing'}; expected a full delta"
            )
        data = delta.encode()
        swap = delta.state.swap
        self.registry.write(_name(swap), data, durable=False)
        full = swap if delta.base is None or read is None else read[1]
        head = _HEAD.pack(delta.state.release, swap, delta.state.position, full)
        self.registry.write("live/head", _seal(head), durable=False)
        if full == swap:
            self._since_full, self._bytes_since_full, self._full_bytes = 0, 0, len(data)
            with suppress(OSError):  # the tables are already in service; the next full delta deletes what is left
                for old in self._swaps():
                    if old < (read[1] if read else swap):
                        self.registry.delete(_name(old))
        else:
            self._since_full += 1
            self._bytes_since_full += len(data)

    def delete_before(self, swap: int) -> None:
        """Delete the deltas before a full one."""
        for old in self._swaps():
            if old < swap:
                self.registry.delete(_name(old))

    def follow(self, after: State | None) -> list[Delta]:
        """Return the deltas that lead from `after` to the head, in order; [] when there is nothing new.

        If the chain is broken, or without `after`, it starts with the newest full delta. A damaged file is logged and ends the
        list: readers wait for the next full delta. A head that is missing or damaged is replaced by that of the newest
        intact files, which are read for it once.
        """
        read = self._read_head() or self._recovered()
        if read is None or read[0] == after or (after, read[0]) == self._stuck:
            return []
        head, full = read
        if after is not None and after.swap < head.swap:
            chain = self._chain(after.swap + 1, head.swap)
            if chain and chain[0].base in (None, after):
                return chain
        chain = self._chain(full, head.swap)
        if not chain or (after is not None and chain[-1].state.swap <= after.swap <= head.swap):
            # Nothing leads further than `after`: look again when there is a newer head.
            self._stuck = after, head
            return []
        return chain

    def _chain(self, first: int, last: int) -> list[Delta]:
        chain: list[Delta] = []
        for swap in range(first, last + 1):
            try:
                delta = self._load(swap)
                if chain and delta.base not in (None, chain[-1].state):
                    raise Corrupt(f"live state {swap} applies to {delta.base} but follows {chain[-1].state}; it is left out")
                chain.append(delta)
            except (OSError, Corrupt) as error:
                # A missing file was deleted in the meantime: the next head leads past it.
                if isinstance(error, Corrupt):
                    self._complain(str(error))
                break
        return chain

    def _load(self, swap: int) -> Delta:
        source = f"live state {swap:012d}.live"
        delta = Delta.decode(self.registry.read(_name(swap)), source)
        if delta.state.swap != swap:
            raise Corrupt(f"{source} contains swap {delta.state.swap}; it is left out")
        return delta

    def _read_head(self) -> tuple[State, int] | None:
        try:
            data = self.registry.read("live/head")
        except FileNotFoundError:
            return None
        if data != _seal(data[: _HEAD.size]):
            self._complain(f"{self.registry.path('live/head')} ({len(data)} bytes) does not match its digest; it is ignored")
            return None
        release, swap, position, full = _HEAD.unpack(data[: _HEAD.size])
        return State(release, swap, position), full

    def _recover(self) -> tuple[State, int] | None:
        """Return the newest state and the newest full delta by the files only, so that swap numbers keep rising."""
        newest: State | None = None
        for swap in sorted(self._swaps(), reverse=True):
            try:
                delta = self._load(swap)
            except (OSError, Corrupt):
                continue
            newest = newest or delta.state
            if delta.base is None:
                return newest, swap
        return (newest, newest.swap) if newest else None

    def _recovered(self) -> tuple[State, int] | None:
        """Return what `_recover` found for the current files, which change only when the writer publishes."""
        swaps = self._swaps()
        if swaps != self._lost[0]:
            self._lost = swaps, self._recover()
        return self._lost[1]

    def _complain(self, message: str) -> None:
        if message != self._complained:
            self._complained = message
            _log.error("%s", message)

    def _swaps(self) -> list[int]:
        found = (re.fullmatch(r"live/(\d+)\.live", name) for name in self.registry.names("live"))
        return [int(match[1]) for match in found if match]


def _name(swap: int) -> str:
    return f"live/{swap:012d}.live"


def _seal(body: bytes) -> bytes:
    return body + digest(body)
