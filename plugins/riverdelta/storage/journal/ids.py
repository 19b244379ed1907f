"""Impression ids: 21 bytes that only this service can make, and the keys that they are made with."""

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
#: A former key and the time (Unix seconds) until which its ids are accepted.
_FORMER = struct.Struct(f"<{_KEY_BYTES}sd")
#: 40 bits of a request's number last 34 years at 1,000 requests a second.
_INCARNATION_BYTES, _REQUEST_BYTES, _MAC_BYTES = 8, 5, 8
#: An id's characters, and the bytes of its incarnation; ids of version 0.1 had 22 and 3.
_LENGTHS = {28: _INCARNATION_BYTES, 22: 3}
_RANDOM_BYTES = 5

#: A key, and the time until which its ids are accepted.
Former = tuple[bytes, float]
#: What tells one version of a file from the next: its inode and its time of change.
_Version = tuple[int, int] | None


def new_incarnation(count: int, entropy: Callable[[int], bytes] = os.urandom) -> int:
    """Return a number that names one process for good: its place among those that opened the journal, and 40 random bits.

    `count` (1 to 2²³ - 1) is the place; `entropy` returns as many random bytes as it is asked for.

    Notes: within one journal the place alone differs. A journal that was restored or copied counts the same places again;
    two processes of one place then have the same number with probability 2⁻⁴⁰, whatever their clocks say.

    >>> hex(new_incarnation(3, lambda size: bytes(range(size))))
    '0x30001020304'
    """
    return count << 8 * _RANDOM_BYTES | int.from_bytes(entropy(_RANDOM_BYTES), "big")


class Ids:
    """Issues and reads ids: worker incarnation (8 bytes), request (5), and a BLAKE2b MAC of both (8), in base64url.

    A row of the request is `<id>.<index>`. A forged id passes with probability 2⁻⁶⁴ (keyed BLAKE2, RFC 7693). Ids are issued
    with `key`, and read with that and the `former` ones. One that was loaded follows its file: an id of a key made meanwhile
    is read as soon as it comes, and `refresh` issues with it. Ids of version 0.1, whose incarnation has 3 bytes, are read too.
    Every method may be called from any thread.

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
        """Return the issuer that follows the key file at `path`, made on first start; `now` is in Unix seconds."""
        ids = cls(load_key(path))
        ids._path = path
        ids.refresh(now)
        return ids

    def refresh(self, now: float) -> None:
        """Take up a key made meanwhile, and forget those whose time is over at `now` (Unix seconds)."""
        self._follow()
        self._keys = tuple(former for former in self._keys if now < former[1])

    def issue(self, incarnation: int, request: int) -> str:
        """Return the 28 characters that name a request."""
        body = incarnation.to_bytes(_INCARNATION_BYTES, "big") + request.to_bytes(_REQUEST_BYTES, "big")
        return base64.urlsafe_b64encode(body + _mac(body, self._keys[0][0])).decode()

    def parse(self, text: str) -> tuple[int, int, int] | None:
        """Return (incarnation, request, index) of `<id>.<index>`, or None where this service did not issue it."""
        name, dot, index = text.partition(".")
        if not dot or not index.isascii() or not index.isdigit() or len(index) > 9:
            return None
        # The rows of one request come together: its MAC is checked once.
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
        # Another worker may issue with a key that this one has not seen yet.
        if not self._made(body, mac) and not (self._follow() and self._made(body, mac)):
            return None
        return int.from_bytes(body[:split], "big"), int.from_bytes(body[split:], "big")

    def _made(self, body: bytes, mac: bytes) -> bool:
        return any(hmac.compare_digest(mac, _mac(body, key)) for key, _ in self._keys)

    def _follow(self) -> bool:
        """Read the keys again where their file is another one; return whether it was."""
        if self._path is None or (version := _version(self._path)) in (None, self._version):
            return False
        # The key first: a rotation puts the old key among the former ones before it replaces it.
        key = load_key(self._path)
        self._keys = ((key, float("inf")), *(f for f in _former(self._path) if f[0] != key))
        self._version = version
        return True


def load_key(path: Path) -> bytes:
    """Return the key at `path`, made on first start with mode 0600; workers that start at once agree on one.

    Where others may read the file it is given mode 0600 again, with a warning: whoever has the key can make ids. Raises
    `ConfigurationError` where it is damaged, or others may read it and the mode is not ours to change.
    """
    if not path.exists():
        write(path, os.urandom(_KEY_BYTES), mode=_MODE, replace=False)  # where another worker was first, its key counts
    _close_to_others(path)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"{path} has {len(key)} bytes; a key has {_KEY_BYTES}: restore it, or delete it to make a new one"
        )
    return key


def rotate_key(path: Path, now: float, window_seconds: float) -> None:
    """Make a new key at `path`; ids of the one before are accepted until `now + window_seconds` (Unix seconds).

    Former keys lie in `<path>.previous`, written first: a crash between the two leaves the key as it was. Each file appears
    in full or not at all, and is on disk when this returns. Raises `ConfigurationError` where a file is damaged.
    """
    with alone(path.with_name(f".{path.name}.turn"), wait=True):
        key = load_key(path)
        former = [(k, until) for k, until in _former(path) if k != key and now < until]
        write(_previous(path), *(_FORMER.pack(*f) for f in [(key, now + window_seconds), *former]), mode=_MODE)
        write(path, os.urandom(_KEY_BYTES), mode=_MODE)


def copy_keys(path: Path, destination: Path) -> None:
    """Copy the keys at `path` to `destination`, with mode 0600; ids of each are read with the copy as with the original."""
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
        raise ConfigurationError(f"{path} has mode {mode:04o} ({error}); others must not read it: chmod 600 {path}") from None
    _log.warning("%s had mode %04o and has 0600 now; where others could read it, run riverdelta rotate-key", path, mode)


def _version(path: Path) -> _Version:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _mac(body: bytes, key: bytes) -> bytes:
    return digest(body, size=_MAC_BYTES, key=key)
