"""Responses: JSON out, and every error as its status with a body that names it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from riverdelta.bento.runtime import Runtime
from riverdelta.errors import RiverdeltaError

Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger(__name__)


def json(content: Any, status: int = 200) -> Response:
    """Return `content` as JSON; numpy arrays are written as they are."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def answering(
    runtime: Runtime, transport: str, endpoint: str, body: Callable[[RiverdeltaError], Any], handler: Handler
) -> Handler:
    """Turn an error into its HTTP status and `body` of it; count it."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # a fault of ours is an answer too: named in the log, not to the client
            if isinstance(error, RiverdeltaError):
                shown = error
            else:
                _log.exception("%s %s failed", request.method, endpoint)
                shown = RiverdeltaError(f"{endpoint} failed inside the service; its log says why")
            if runtime.ready:
                runtime.plane.metrics.answered(transport, endpoint, 0.0, error)
            return json(body(shown), shown.http_status)

    return answer
