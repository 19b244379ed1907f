"""Request bodies, read no further than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request

from riverdelta.core.errors import InvalidInput, TooLarge

_MOST_DIGITS = 18


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raises `TooLarge` as soon as it is known to pass `limit` bytes."""
    declared = parse_length("content-length", request.headers.get("content-length", "0"))
    if declared > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are taken (RIVERDELTA_MAX_BYTES)")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has over {limit} bytes, which is the most that is taken (RIVERDELTA_MAX_BYTES)")
        chunks.append(chunk)
    return b"".join(chunks)


def parse_length(header: str, text: str) -> int:
    """Return the number of bytes that a header declares.

    >>> parse_length("content-length", "12")
    12
    """
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise InvalidInput(f"{header} is {text!r}; expected a number of bytes")
    return int(text)


def parse_json(body: bytes) -> Any:
    """Return what a JSON body holds."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the body ({len(body)} bytes) is not JSON: {error}") from None


def json_object(parsed: Any, allowed: Sequence[str]) -> dict[str, Any]:
    """Return `parsed` as an object; raises `InvalidInput` where it is none, or has another key than those allowed.

    >>> json_object({"label": 1}, ("id", "label"))
    {'label': 1}
    """
    if not isinstance(parsed, dict):
        raise InvalidInput(f"the body is a {type(parsed).__name__}; expected an object with {', '.join(allowed)}")
    for name in parsed:
        if name not in allowed:
            raise InvalidInput(f"the body has {name!r}; expected {', '.join(allowed)}")
    return parsed
