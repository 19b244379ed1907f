"""Responses: JSON out, and every error as its status with a body that names it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from riverdelta.bento.failure import failure, headers
from riverdelta.core.errors import RiverdeltaError

Handler = Callable[[Request], Awaitable[Response]]


def json(content: Any, status: int = 200, given: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON with the headers `given`; numpy arrays are written as they are."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, given, "application/json")


def answering(endpoint: str | Callable[[Request], str], body: Callable[[RiverdeltaError], Any], handler: Handler) -> Handler:
    """Turn an error into its HTTP status and `body` of it; a fault of ours is named by its `endpoint`."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # a fault of ours is an answer too
            shown = failure(error, endpoint if isinstance(endpoint, str) else endpoint(request))
            return json(body(shown), shown.http_status, headers(shown))

    return answer
