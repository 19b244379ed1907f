"""Impression ids: 16 bytes that only this service can make."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import struct
from pathlib import Path
from tempfile import NamedTemporaryFile

from riverdelta.errors import ConfigurationError

_KEY_BYTES = 32
_BODY = struct.Struct(">Q")
#: 24 bits of incarnation and 40 of request: 16 million processes, and 34 years at 1,000 requests a second.
_REQUEST_BITS = 40
_MAC_BYTES = 8


class Ids:
    """Issues and reads ids: worker incarnation (3 bytes), request (5), and a BLAKE2b MAC of both (8), in base64url.

    A row of the request is `<id>.<index>`. A forged id passes with probability 2⁻⁶⁴ (keyed BLAKE2, RFC 7693).

    >>> ids = Ids(b"k" * 32)
    >>> ids.parse(ids.issue(7, 42) + ".3")
    (7, 42, 3)
    >>> ids.parse("AAAAAAAAAAAAAAAAAAAAAA.3") is None
    True
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._last: tuple[str, tuple[int, int]] = ("", (0, 0))

    def issue(self, incarnation: int, request: int) -> str:
        """Return the 22 characters that name a request."""
        body = _BODY.pack(incarnation << _REQUEST_BITS | request)
        return base64.urlsafe_b64encode(body + self._mac(body)).rstrip(b"=").decode()

    def parse(self, text: str) -> tuple[int, int, int] | None:
        """Return (incarnation, request, index) of `<id>.<index>`, or None where this service did not issue it."""
        name, dot, index = text.partition(".")
        if not dot or not index.isascii() or not index.isdigit() or len(index) > 9:
            return None
        # The rows of one request come together: its MAC is checked once.
        last = self._last
        request = last[1] if last[0] == name else self._request(name)
        if request is None:
            return None
        self._last = name, request
        return *request, int(index)

    def _request(self, name: str) -> tuple[int, int] | None:
        if len(name) != 22:
            return None
        try:
            raw = base64.b64decode(name + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        # Base64 has spare bits at its end: only the canonical spelling counts as the id.
        if not hmac.compare_digest(mac, self._mac(body)) or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != name:
            return None
        (packed,) = _BODY.unpack(body)
        return packed >> _REQUEST_BITS, packed & ((1 << _REQUEST_BITS) - 1)

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_MAC_BYTES, key=self._key).digest()


def load_key(path: Path) -> bytes:
    """Return the key at `path`, made on first start with mode 0600; workers that start at once agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:  # mode 0600
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another worker was first: its key counts
                os.link(file.name, path)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"{path} has {len(key)} bytes; a key has {_KEY_BYTES}: restore it, or delete it to make a new one"
        )
    return key
