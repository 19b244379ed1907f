"""Failure: what a client is answered when a request fails, over HTTP and gRPC."""

from __future__ import annotations

import logging
import math
from typing import Any

import grpc

from riverdelta.core.errors import InvalidInput, RiverdeltaError, Unauthenticated

_log = logging.getLogger(__name__)
#: gRPC puts the message into a trailer of at most 8 KiB, percent-encoded: up to nine bytes a character.
_MOST_CHARACTERS = 800


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


def headers(error: RiverdeltaError) -> dict[str, str]:
    """Return the HTTP headers that belong to an error's status.

    >>> headers(Unauthenticated("the request has no token"))
    {'WWW-Authenticate': 'Bearer'}
    """
    if error.retry_after is not None:
        return {"Retry-After": str(math.ceil(error.retry_after))}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}


async def abort(context: Any, error: RiverdeltaError) -> None:
    """End a gRPC call with an error's status; where a later try may pass, the trailer says when (gRFC A6)."""
    wait = error.retry_after
    trailer = () if wait is None else (("grpc-retry-pushback-ms", str(math.ceil(1e3 * wait))),)
    await context.abort(getattr(grpc.StatusCode, error.grpc_status), str(error), trailer)
