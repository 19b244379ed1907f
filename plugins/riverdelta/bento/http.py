"""HTTP: reads bodies up to a limit, validates JSON, and turns results and errors into responses."""

from __future__ import annotations

import logging
import math
import reprlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.endpoints import TABLE, Endpoint
from riverdelta.core.errors import InvalidInput, RiverdeltaError, TooLarge, Unauthenticated, near
from riverdelta.core.settings import in_words

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)
_MOST_DIGITS = 18
#: gRPC puts the message into a trailer of at most 8 KiB, percent-encoded: up to nine bytes a character.
_MOST_CHARACTERS = 800


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raises `TooLarge` as soon as it exceeds `limit` bytes."""
    declared = parse_length("content-length", request.headers.get("content-length", "0"))
    if declared > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are accepted (RIVERDELTA_MAX_BYTES)")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes, the maximum (RIVERDELTA_MAX_BYTES)")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_json(request: Request, limit: int) -> Any:
    """Return the value of a JSON body of at most `limit` bytes; raises `InvalidInput` if it is not valid JSON."""
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
    """Return the value of the JSON `data`; errors call it `what`."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{what} ({len(data)} bytes) is not JSON: {error}") from None


def json_object(parsed: Any, allowed: Collection[str]) -> dict[str, Any]:
    """Return `parsed` if it is an object; raises `InvalidInput` otherwise, or if a key is not in `allowed`.

    >>> json_object({"label": 1}, ("id", "label"))
    {'label': 1}
    """
    if not isinstance(parsed, dict):
        raise InvalidInput(f"the body is a {type(parsed).__name__}; expected an object with {', '.join(allowed)}")
    refuse_unknown(parsed, allowed, "the body")
    return parsed


def refuse_unknown(given: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Raise `InvalidInput` naming the first key of `what` that is not allowed, the nearest allowed key, and all of them.

    >>> refuse_unknown({"wieght": 1}, ("label", "weight"), "item 0")
    Traceback (most recent call last):
    riverdelta.core.errors.InvalidInput: item 0 has 'wieght': did you mean weight? Allowed: label, weight
    """
    for key in given:
        if key not in allowed:
            raise _unknown(key, allowed, what)


def _unknown(key: str, allowed: Collection[str], what: str) -> InvalidInput:
    close = near(key, allowed)
    hint = f": {close} A" if "?" in close else "; a"
    return InvalidInput(f"{what} has {reprlib.repr(key)}{hint}llowed: {', '.join(allowed) or 'nothing'}")


def validated(model: type[Model], given: Any, what: str) -> Model:
    """Return `given` as a model; raises `InvalidInput` naming the first error in `what`."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _invalid(model, error.errors(include_url=False, include_context=False)[0], what) from None


def query(model: type[Model], request: Request) -> Model:
    """Return a request's query as a model; only the key of a list may occur twice."""
    given: dict[str, Any] = {}
    for key, value in request.query_params.multi_items():
        if model.model_fields[key].annotation == list[str]:
            given.setdefault(key, []).append(value)
        elif key in given:
            raise InvalidInput(f"the query has {key!r} twice")
        else:
            given[key] = value
    return validated(model, given, "the query")


def _invalid(model: type[BaseModel], error: ErrorDetails, what: str) -> InvalidInput:
    location, given = error["loc"], error["input"]
    *parents, last = location or ("",)
    place = f"{what} ({_path(parents)})" if parents else what
    within = _schema_at(model, parents)
    if error["type"] == "extra_forbidden":
        return _unknown(str(last), within["properties"], place)
    if error["type"] == "missing":
        return InvalidInput(f"{place} has no {last!r}; expected {in_words(within)}{_example(within)}")
    here = in_words(_schema_at(model, location))
    if not location:
        return InvalidInput(f"{what} is a {type(given).__name__}; expected {here}")
    return InvalidInput(f"{what}: {_path(location)} is {reprlib.repr(given)}; expected {here}{_example(within, last)}")


def _example(schema: Mapping[str, Any], last: int | str | None = None) -> str:
    """Return an example with the required fields and `last`, for the end of a message; empty without examples."""
    fields, required = schema.get("properties", {}), schema.get("required", ())
    shown = {name: f["examples"][0] for name, f in fields.items() if "examples" in f and (name in required or name == last)}
    return f", as in {orjson.dumps(shown).decode()}" if shown else ""


def _schema_at(model: type[BaseModel], location: Iterable[int | str]) -> Mapping[str, Any]:
    """Return the JSON schema of a place in a model."""
    at = schema = _schema(model)
    for part in location:
        at = at["items"] if isinstance(part, int) else at["properties"][part]
        at = at.get("anyOf", [at])[0]
        if "$ref" in at:
            at = schema["$defs"][at["$ref"].rpartition("/")[2]]
    return at


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _path(location: Iterable[int | str]) -> str:
    """Return a place in JSON as text: `inputs[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with `content`, which may contain numpy arrays, as JSON."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def failure(error: Exception, endpoint: str) -> RiverdeltaError:
    """Return the error that the client gets: a `RiverdeltaError` with its message, shortened if necessary.

    Any other error is a server error: it is logged, and the client gets only the name of the endpoint.

    >>> failure(InvalidInput("a" * 10_000), "score").http_status
    400
    """
    if isinstance(error, RiverdeltaError):
        message = str(error)
        return error if len(message) <= _MOST_CHARACTERS else type(error)(f"{message[:_MOST_CHARACTERS]}…")
    if isinstance(error, RecursionError):  # only a request can be nested that deeply
        return InvalidInput("the request is nested too deeply; a column is a list of values, or of lists of D numbers")
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
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}


def mounted(handlers: Mapping[str, Handler]) -> list[Route]:
    """Return the routes of these handlers, by `Endpoint.name`, from `endpoints.TABLE`."""
    rows = [row for row in TABLE if row.name in handlers and row.transport != "grpc"]
    assert {row.name for row in rows} == handlers.keys(), "a handler without a row in endpoints.TABLE"
    return [Route(row.path, _answering(row, handlers[row.name]), methods=[row.method]) for row in rows]


def _answering(row: Endpoint, handler: Handler) -> Handler:
    """Return a handler that checks the query first and answers errors."""
    keys = tuple(row.query.model_fields if row.query else ())

    async def answer(request: Request) -> Response:
        try:
            if request.scope["query_string"]:
                refuse_unknown(request.query_params, keys, "the query")
            return await handler(request)
        except Exception as error:
            return refusal(failure(error, row.name), row.transport)

    return answer
