"""Failure: what a client is answered when a request fails."""

from __future__ import annotations

import logging

from riverdelta.core.errors import InvalidInput, RiverdeltaError

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
