"""Impression ids: 21 bytes that only this service can issue, and the keys that sign them."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from riverdelta.core.durable import write
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import digest
from riverdelta.core.locks import alone

_log = logging.getLogger(__name__)
_KEY_BYTES, _MODE = 32, 0o600
#: A former key, and the time (Unix seconds) until which its ids are accepted.
_FORMER = struct.Struct(f"<{_KEY_BYTES}sd")
#: 40 bits of a request's number last 34 years at 1,000 requests a second.
_INCARNATION_BYTES, _REQUEST_BYTES, _MAC_BYTES = 8, 5, 8
#: An id's characters, and the bytes of its incarnation; ids of version 0.1 had 22 and 3.
_LENGTHS = {28: _INCARNATION_BYTES, 22: 3}
_RANDOM_BYTES = 5

#: A key, and the time until which its ids are accepted.
Former = tuple[bytes, float]
#: The incarnation and number of a request, and the index of one of its rows.
Row = tuple[int, int, int]
#: A version of a file: its inode and its time of change.
_Version = tuple[int, int] | None


def new_incarnation(count: int, entropy: Callable[[int], bytes] = os.urandom) -> int:
    """Return a permanent, unique number of a process: its place among those that opened the journal, and 40 random bits.

    `count` (1 to 2²³ - 1) is the place; `entropy` returns the requested number of random bytes.

    Notes: within one journal the place is unique. A restored or copied journal counts the same places again; two processes
    with one place then have the same number with probability 2⁻⁴⁰, whatever their clocks.

    >>> hex(new_incarnation(3, lambda size: bytes(range(size))))
    '0x30001020304'
    """
    return count << 8 * _RANDOM_BYTES | int.from_bytes(entropy(_RANDOM_BYTES), "big")


class Ids:
    """Issues and reads ids: worker incarnation (8 bytes), request (5), and a BLAKE2b MAC of both (8), in base64url.

    A row of the request is `<id>.<index>`. A forged id passes with probability 2⁻⁶⁴ (keyed BLAKE2, RFC 7693). Ids are issued
    with `key`, and accepted with it and the `former` keys. After `load` it follows its file: ids of a newer key are accepted
    at once, and `refresh` issues with it. Ids of version 0.1, whose incarnation has 3 bytes, are accepted too. Every method
    may be called from any thread.

    >>> ids = Ids(b"k" * 32)
    >>> ids.parse(ids.issue(7, 42) + ".3")
    (7, 42, 3)
    >>> ids.parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAA.3") is None
    True
    """

    def __init__(self, key: bytes, former: Sequence[Former] = ()) -> None:
        self._keys: tuple[Former, ...] = ((key, float("inf")), *former)
        self._path: Path | None = None
        self._version: _Version = None
        self._last: tuple[tuple[Former, ...], str, tuple[int, int]] = ((), "", (0, 0))

    @classmethod
    def load(cls, path: Path, now: float) -> Ids:
        """Return an issuer that follows the key file at `path`, created if missing; `now` is in Unix seconds."""
        ids = cls(load_key(path))
        ids._path = path
        ids.refresh(now)
        return ids

    def refresh(self, now: float) -> None:
        """Switch to a newer key, if any, and drop those that have expired at `now` (Unix seconds)."""
        self._follow()
        self._keys = tuple(former for former in self._keys if now < former[1])

    def issue(self, incarnation: int, request: int) -> str:
        """Return the id of a request, 28 characters."""
        body = incarnation.to_bytes(_INCARNATION_BYTES, "big") + request.to_bytes(_REQUEST_BYTES, "big")
        return base64.urlsafe_b64encode(body + _mac(body, self._keys[0][0])).decode()

    def parse(self, text: str) -> Row | None:
        """Return (incarnation, request, index) of `<id>.<index>`, or None if this service did not issue it."""
        return self.parse_all([text])[0]

    def parse_all(self, texts: Sequence[str]) -> list[Row | None]:
        """Return what `parse` returns for each text; the key file is read at most once."""
        found = [self._parse(text) for text in texts]
        # Another worker may issue with a key that this one has not read yet.
        if None in found and self._follow():
            found = [self._parse(text) if row is None else row for text, row in zip(texts, found, strict=True)]
        return found

    def _parse(self, text: str) -> Row | None:
        name, dot, index = text.partition(".")
        if not dot or not index.isascii() or not index.isdigit() or len(index) > 9:
            return None
        if index[0] == "0" and index != "0":  # as of the id, only the canonical spelling of an index counts
            return None
        # Rows of one request come together, so its MAC is checked once.
        keys = self._keys
        of, last, request = self._last
        if of is not keys or last != name:
            found = self._request(name)
            if found is None:
                return None
            self._last, request = (keys, name, found), found
        return *request, int(index)

    def _request(self, name: str) -> tuple[int, int] | None:
        split = _LENGTHS.get(len(name))
        if split is None:
            return None
        try:
            raw = base64.b64decode(name + "=" * (-len(name) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        # Base64 has spare bits at its end: only the canonical spelling counts as the id.
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != name:
            return None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not self._made(body, mac):
            return None
        return int.from_bytes(body[:split], "big"), int.from_bytes(body[split:], "big")

    def _made(self, body: bytes, mac: bytes) -> bool:
        return any(hmac.compare_digest(mac, _mac(body, key)) for key, _ in self._keys)

    def _follow(self) -> bool:
        """Read the keys again if their file has changed; return whether it has."""
        if self._path is None or (version := _version(self._path)) in (None, self._version):
            return False
        # The key first: a rotation puts the old key among the former ones before it replaces it.
        key = load_key(self._path)
        self._keys = ((key, float("inf")), *(f for f in _former(self._path) if f[0] != key))
        self._version = version
        return True


def load_key(path: Path) -> bytes:
    """Return the key at `path`, created with mode 0600 if missing; workers that start concurrently agree on one.

    If others may read the file, its mode is set to 0600, with a warning: anyone with the key can forge ids. Raises
    `ConfigurationError` if it is damaged, or if others may read it and its mode cannot be changed.
    """
    if not path.exists():
        write(path, os.urandom(_KEY_BYTES), mode=_MODE, replace=False)  # if another worker was first, its key counts
    _close_to_others(path)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"{path} has {len(key)} bytes; a key has {_KEY_BYTES}: restore it, or delete it to make a new one"
        )
    return key


def rotate_key(path: Path, now: float, window_seconds: float) -> None:
    """Create a new key at `path`; ids of the previous one are accepted until `now + window_seconds` (Unix seconds).

    Former keys are in `<path>.previous`, written first: a crash between the two leaves the key as it was. Each file appears in
    full or not at all, and is durable when this returns. Raises `ConfigurationError` if a file is damaged.
    """
    with alone(path.with_name(f".{path.name}.turn"), wait=True):
        key = load_key(path)
        former = [(key, now + window_seconds), *(f for f in _former(path) if f[0] != key)]
        # No key that has expired is kept: a clock that is set back later would make it valid again.
        write(_previous(path), *(_FORMER.pack(*f) for f in former if now < f[1]), mode=_MODE)
        write(path, os.urandom(_KEY_BYTES), mode=_MODE)


def copy_keys(path: Path, destination: Path) -> None:
    """Copy the keys at `path` to `destination`, with mode 0600; the copy accepts the same ids."""
    # The key first: a rotation puts the old key among the former ones before it replaces it.
    for source, target in ((path, destination), (_previous(path), _previous(destination))):
        if source.exists():
            write(target, source.read_bytes(), mode=_MODE)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _former(path: Path) -> list[Former]:
    previous = _previous(path)
    if not previous.exists():
        return []
    _close_to_others(previous)
    data = previous.read_bytes()
    if len(data) % _FORMER.size:
        raise ConfigurationError(
            f"{previous} has {len(data)} bytes; expected {_FORMER.size} a key: restore it, or delete it to refuse the ids of "
            f"former keys"
        )
    return [(key, until) for key, until in _FORMER.iter_unpack(data)]


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode & 0o777
    if not mode & 0o077:
        return
    try:
        path.chmod(_MODE)
    except OSError as error:
        raise ConfigurationError(
            f"{path} has mode {mode:04o} ({error}); it must not be readable by others: chmod 600 {path}"
        ) from None
    _log.warning("%s had mode %04o and now has 0600; if others may have read it, run riverdelta rotate-key", path, mode)


def _version(path: Path) -> _Version:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _mac(body: bytes, key: bytes) -> bytes:
    return digest(body, size=_MAC_BYTES, key=key)
