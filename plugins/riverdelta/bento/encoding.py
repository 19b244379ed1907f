"""Encoding: inflates bodies with a Content-Encoding, piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from riverdelta.core.errors import InvalidInput, WrongEncoding

#: What a request's Content-Encoding may be besides `identity`, as the header Accept-Encoding has it.
ACCEPTED = "gzip, deflate"
#: zlib's window bits: 16 more for the format of gzip. `deflate` is the format of zlib (RFC 9110, section 8.4.1.2).
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_PIECE_BYTES = 1 << 18


async def decoded(
    chunks: AsyncIterator[bytes], codings: Sequence[str], apart: Callable[..., Awaitable[Any]]
) -> AsyncIterator[bytes]:
    """Yield a body without the coding that its Content-Encoding headers declare, then in pieces of at most 256 KiB.

    A reader that stops at a limit never holds more than one piece beyond it. All pieces but the first are inflated by `apart`,
    as `Runtime.apart`. Raises `WrongEncoding` for a coding that is not accepted, or several, and `InvalidInput` for bytes that
    do not have its format.
    """
    coding = _coding(codings)
    if coding is None:
        async for chunk in chunks:
            yield chunk
        return
    stream, size = zlib.decompressobj(_WINDOWS[coding]), 0
    async for chunk in chunks:
        piece = b""
        while chunk or (len(piece) == _PIECE_BYTES and not stream.eof):
            if stream.eof:
                raise InvalidInput(f"the body has bytes after the end of its {coding} data; send one {coding} stream")
            try:
                inflate = stream.decompress
                piece = await apart(inflate, chunk, _PIECE_BYTES) if size else inflate(chunk, _PIECE_BYTES)
            except zlib.error as error:
                raise InvalidInput(f"the body is not {coding}, which its Content-Encoding says: {error}") from None
            yield piece
            size += len(piece)
            chunk = stream.unconsumed_tail or stream.unused_data
    if not stream.eof:
        raise InvalidInput(f"the body ends inside its {coding} data; send all of it")


def _coding(codings: Sequence[str]) -> str | None:
    named = [one.strip().lower() for one in ",".join(codings).split(",")]
    named = [one for one in named if one not in ("", "identity")]
    if not named:
        return None
    if len(named) > 1 or named[0] not in _WINDOWS:
        raise WrongEncoding(f"the request has Content-Encoding: {', '.join(codings)}; expected one of {ACCEPTED}, or none")
    return named[0]
