"""HTTP: reads bodies up to a limit, and turns results and errors into responses."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from riverdelta.bento.encoding import ACCEPTED, decoded
from riverdelta.bento.endpoints import TABLE, Endpoint
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.schemas import Nothing
from riverdelta.core.errors import (
    Disconnected,
    InvalidInput,
    NotFound,
    RiverdeltaError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WrongEncoding,
    WrongMethod,
    short,
)
from riverdelta.core.strict import Model, validated

Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)
_MOST_DIGITS = 18
#: The maximum bytes of a body that has only options.
MOST_OPTIONS = 8 << 10
_MOST_QUERY = 4 << 10
#: gRPC puts the message into a trailer of at most 8 KiB, percent-encoded: up to nine bytes a character.
_MOST_CHARACTERS = 800


async def read_body(request: Request, runtime: Runtime, most: int | None = None) -> bytes:
    """Return the body without its content coding, of at most `most` bytes, by default those that the settings allow.

    Raises `TooLarge` as soon as it has more, with the coding or without, and `Unavailable` as `Runtime.hold`.
    """
    limit, by = (runtime.plane.settings.max_bytes, " (RIVERDELTA_MAX_BYTES)") if most is None else (most, "")
    declared = parse_length("content-length", request.headers.get("content-length", "0"))
    if declared > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are accepted{by}")
    chunks, size, held = [], 0, 0

    async def bounded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        total = 0
        async for piece in pieces:
            total += len(piece)
            if total > limit:
                raise TooLarge(f"the body has more than {limit} bytes, the maximum{by}")
            yield piece

    stream = bounded(request.stream())
    if codings := request.headers.getlist("content-encoding"):
        stream = bounded(decoded(stream, codings, runtime.apart))
    try:
        async for chunk in stream:
            size += len(chunk)
            held += runtime.hold(len(chunk), size)
            chunks.append(chunk)
    finally:
        runtime.release(held)
    return b"".join(chunks)


def parse_length(header: str, text: str) -> int:
    """Return the number of bytes that a header declares.

    >>> parse_length("content-length", "12")
    12
    """
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise InvalidInput(f"{header} is {short(text)}; expected a number of bytes")
    return int(text)


def query(model: type[Model], request: Request) -> Model:
    """Return a request's query as a model; only the key of a list may occur twice."""
    if (size := len(request.scope["query_string"])) > _MOST_QUERY:
        raise InvalidInput(f"the query has {size} bytes; at most {_MOST_QUERY} are accepted")
    given: dict[str, Any] = {}
    lists = {name for name, field in model.model_fields.items() if field.annotation == list[str]}
    for key, value in request.query_params.multi_items():
        if key in lists:
            given.setdefault(key, []).append(value)
        elif key in given:
            raise InvalidInput(f"the query has {short(key)} twice")
        else:
            given[key] = value
    return validated(model, given, "the query", "the parameters")


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with `content`, which may contain numpy arrays, as JSON."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def failure(error: Exception, endpoint: str) -> RiverdeltaError:
    """Return the error that the client gets: a `RiverdeltaError` with its message, shortened if necessary.

    Any other error is a server error: it is logged, and the client gets only the name of the endpoint. One of a file or a disk
    is logged in one line.

    >>> failure(InvalidInput("a" * 10_000), "score").http_status
    400
    """
    if isinstance(error, RiverdeltaError):
        message = str(error)
        return error if len(message) <= _MOST_CHARACTERS else type(error)(f"{message[:_MOST_CHARACTERS]}…")
    if isinstance(error, RecursionError):  # only a request can be nested that deeply
        return InvalidInput("the request is nested too deeply; a column is a list of values, or of lists of D numbers")
    if isinstance(error, ClientDisconnect):
        return Disconnected("the client closed the connection before the end of its request")
    if isinstance(error, OSError):
        _log.error("%s failed: %s", endpoint, error)
        return Unavailable(f"{endpoint} failed in the service: {error.strerror or 'a file'}; its log names the file")
    _log.error("%s failed", endpoint, exc_info=error)
    return RiverdeltaError(f"{endpoint} failed in the service; see its log")


def refusal(error: RiverdeltaError, transport: str) -> Response:
    """Return the response to an error; over `oip_rest` in the format of the Open Inference Protocol, without its type."""
    said = str(error) if transport == "oip_rest" else {"type": type(error).__name__, "message": str(error)}
    return json({"error": said}, error.http_status, headers(error))


def headers(error: RiverdeltaError) -> dict[str, str]:
    """Return the HTTP headers of an error's response.

    >>> headers(Unauthenticated("the request has no Authorization headers"))
    {'WWW-Authenticate': 'Bearer'}
    """
    if error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, WrongEncoding):
        return {"Accept-Encoding": ACCEPTED}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}


def application(routes: list[BaseRoute]) -> Starlette:
    """Return the application of these routes, whose errors are in JSON."""
    app = Starlette(routes=routes)
    answer_unknown(app)
    return app


def answer_unknown(app: Starlette) -> None:
    """Let an application answer a path or method that it does not have with an error in the format of the transport."""
    app.exception_handlers |= {404: _no_route, 405: _no_route}
    # Most clients do not follow a redirect to the path without its last slash with their body.
    app.router.redirect_slashes = False


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path
    transport = "oip_rest" if path.startswith("/v2") else "rest"
    allowed = dict(error.headers or {})
    if error.status_code == 404:
        return refusal(failure(NotFound(f"{method} {path} does not exist; GET /openapi.json lists what does"), ""), transport)
    answer = refusal(failure(WrongMethod(f"{method} {path} does not exist; expected {allowed['Allow']}"), ""), transport)
    answer.headers.update(allowed)
    return answer


def mounted(handlers: Mapping[str, Handler]) -> list[Route]:
    """Return the routes of these handlers, by `Endpoint.name`, from `endpoints.TABLE`."""
    rows = [row for row in TABLE if row.name in handlers and row.transport != "grpc"]
    assert {row.name for row in rows} == handlers.keys(), "a handler without a row in endpoints.TABLE"
    return [Route(row.path, _answering(row, handlers[row.name]), methods=[row.method]) for row in rows]


def _answering(row: Endpoint, handler: Handler) -> Handler:
    """Return a handler that checks the query first and answers errors."""

    async def answer(request: Request) -> Response:
        try:
            if row.query is None and request.scope["query_string"]:
                query(Nothing, request)
            return await handler(request)
        except Exception as error:
            return refusal(failure(error, row.name), row.transport)

    return answer
