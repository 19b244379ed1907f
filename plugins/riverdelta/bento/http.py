"""HTTP: bodies in, read no further than allowed; JSON out, and every error as its status with a body that names it."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.core.errors import InvalidInput, RiverdeltaError, TooLarge, Unauthenticated

Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)
_MOST_DIGITS = 18
#: gRPC puts the message into a trailer of at most 8 KiB, percent-encoded: up to nine bytes a character.
_MOST_CHARACTERS = 800


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


async def read_json(request: Request, limit: int) -> Any:
    """Return what a JSON body of at most `limit` bytes holds; raises `InvalidInput` where it holds none."""
    return parse_json(await read_body(request, limit), "the body")


def parse_length(header: str, text: str) -> int:
    """Return the number of bytes that a header declares.

    >>> parse_length("content-length", "12")
    12
    """
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise InvalidInput(f"{header} is {text!r}; expected a number of bytes")
    return int(text)


def parse_json(data: bytes, what: str) -> Any:
    """Return what the JSON `data` holds; `what` names it in an error."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{what} ({len(data)} bytes) is not JSON: {error}") from None


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


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON; numpy arrays are written as they are."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def failure(error: Exception, endpoint: str) -> RiverdeltaError:
    """Return the error that a client is shown: ours with its message, cut where it quotes too much of the request.

    A fault of ours is named in the log, and to the client by its endpoint only.

    >>> failure(InvalidInput("a" * 10_000), "score").http_status
    400
    """
    if isinstance(error, RiverdeltaError):
        message = str(error)
        return error if len(message) <= _MOST_CHARACTERS else type(error)(f"{message[:_MOST_CHARACTERS]}…")
    if isinstance(error, RecursionError):  # only a request nests that deep, in its values or in the message about them
        return InvalidInput("the request is nested too deeply; a column is a list of values, or of lists of D numbers")
    _log.error("%s failed", endpoint, exc_info=error)
    return RiverdeltaError(f"{endpoint} failed inside the service; its log says why")


def refusal(error: RiverdeltaError, transport: str) -> Response:
    """Return the answer that an error is: as the Open Inference Protocol has it over `oip_rest`, with its type elsewhere."""
    said = str(error) if transport == "oip_rest" else {"type": type(error).__name__, "message": str(error)}
    return json({"error": said}, error.http_status, headers(error))


def headers(error: RiverdeltaError) -> dict[str, str]:
    """Return the HTTP headers that belong to an error's status.

    >>> headers(Unauthenticated("the request has no Authorization headers"))
    {'WWW-Authenticate': 'Bearer'}
    """
    if error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}


def route(transport: str, path: str, endpoint: str | Callable[[Request], str], handler: Handler, method: str = "GET") -> Route:
    """Return a route whose errors are answers; a fault of ours is named by its `endpoint`, which may depend on the request."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # a fault of ours is an answer too
            return refusal(failure(error, endpoint if isinstance(endpoint, str) else endpoint(request)), transport)

    return Route(path, answer, methods=[method])
