"""Impression ids: 16 bytes that only this service can make."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from pathlib import Path

from riverdelta.errors import ConfigurationError

_KEY_BYTES = 32
_BODY = struct.Struct(">II")
_MAC_BYTES = 8


class Ids:
    """Issues and reads ids: worker incarnation (4 bytes), request (4), and a BLAKE2b MAC of both (8), in base64url.

    A row of the request is `<id>.<index>`. A forged id passes with probability 2⁻⁶⁴ (keyed BLAKE2, RFC 7693).

    >>> ids = Ids(b"k" * 32)
    >>> ids.parse(ids.issue(7, 42) + ".3")
    (7, 42, 3)
    >>> ids.parse("AAAAAAAAAAAAAAAAAAAAAA.3") is None
    True
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, incarnation: int, request: int) -> str:
        """Return the 22 characters that name a request."""
        body = _BODY.pack(incarnation, request)
        return base64.urlsafe_b64encode(body + self._mac(body)).rstrip(b"=").decode()

    def parse(self, text: str) -> tuple[int, int, int] | None:
        """Return (incarnation, request, index) of `<id>.<index>`, or None where this service did not issue it."""
        name, dot, index = text.partition(".")
        if len(name) != 22 or not dot or not index.isascii() or not index.isdigit() or len(index) > 9:
            return None
        try:
            raw = base64.b64decode(name + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        # Base64 has spare bits at its end: only the canonical spelling counts as the id.
        if not hmac.compare_digest(mac, self._mac(body)) or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != name:
            return None
        incarnation, request = _BODY.unpack(body)
        return incarnation, request, int(index)

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_MAC_BYTES, key=self._key).digest()


def load_key(path: Path) -> bytes:
    """Return the key at `path`, made on first start with mode 0600; workers that start at once agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another worker was first: its key counts
        finally:
            temporary.unlink()
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"{path} has {len(key)} bytes; a key has {_KEY_BYTES}: restore it, or delete it to make a new one"
        )
    return key
