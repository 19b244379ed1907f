"""Hashing: the digests that detect damaged bytes, and the hashes of ids."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

#: 2⁶⁴ / φ, odd: multiplied by it, consecutive ids are far apart.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
#: The maximum length of a string id, in characters or bytes.
MOST_ID_LENGTH = 4_096
_CHUNK = 1 << 22


def digest(*parts: bytes | memoryview, size: int = 16, key: bytes = b"") -> bytes:
    """Return the BLAKE2b digest of the concatenated `parts` in `size` bytes; with `key`, a MAC (RFC 7693).

    >>> digest(b"ab", b"c") == digest(b"abc"), digest(b"abc", size=4).hex()
    (True, '63906248')
    """
    state = blake2b(digest_size=size, key=key)
    for part in parts:
        state.update(part)
    return state.digest()


def file_digest(*paths: Path) -> str:
    """Return the digest of concatenated files, in 32 hexadecimal digits; they may be larger than the memory."""
    state = blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                state.update(chunk)
    return state.hexdigest()


def id64(key: str | bytes) -> int:
    """Return the int64 of a string id: BLAKE2b of its UTF-8 bytes with an 8-byte digest, little-endian, signed (RFC 7693).

    >>> id64("user-42")
    -6417657526719176593
    """
    return int.from_bytes(digest(key.encode() if isinstance(key, str) else key, size=8), "little", signed=True)


def id_of(value: Any) -> int | None:
    """Return the int64 of an id: an integer of 64 bits is itself, a string of at most 4,096 characters has `id64`.

    None for everything else, such as True, or half of a surrogate pair, which has no UTF-8.

    >>> id_of(7), id_of("user-42"), id_of(True), id_of(7.0), id_of(2**63), id_of(chr(0xD800))
    (7, -6417657526719176593, None, None, None, None)
    """
    if isinstance(value, str | bytes):
        try:
            return id64(value) if len(value) <= MOST_ID_LENGTH else None
        except UnicodeEncodeError:
            return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return int(value)
    return None


def mixed(x: Any) -> Any:
    """Return the mixed bits of `x` as uint64, each depending on every bit: for an array or, by `numba.njit`, for a number.

    It is the finalizer of splitmix64 (Steele, Lea, Flood 2014).

    >>> mixed(np.array([0, 1, -1])).tolist()
    [0, 6238072747940578789, 13029008266876403067]
    """
    x = np.uint64(x)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
