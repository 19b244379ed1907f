"""Request bodies, read no further than allowed."""

from __future__ import annotations

from starlette.requests import Request

from riverdelta.errors import InvalidInput, TooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raises `TooLarge` as soon as it is known to pass `limit` bytes."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit():
        raise InvalidInput(f"content-length is {declared!r}; expected a number of bytes")
    if int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken (RIVERDELTA_MAX_BYTES)")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has over {limit} bytes, which is the most that is taken (RIVERDELTA_MAX_BYTES)")
        chunks.append(chunk)
    return b"".join(chunks)
