"""Errors: one tree, each class with its HTTP and gRPC status.

A message names the thing, its value, what is allowed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from reprlib import Repr
from typing import Any, ClassVar

#: A longer name is compared with no other: the time of a comparison grows with the product of the lengths.
_MOST_CHARACTERS = 100


class RiverdeltaError(Exception):
    """The base class of every error that riverdelta raises on purpose."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    #: Seconds until the same request may succeed; None if a retry cannot help.
    retry_after: float | None = None


class InvalidInput(RiverdeltaError, ValueError):
    """A request that can never succeed: a wrong column, type, length or value."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class TooLarge(InvalidInput):
    """A request with more rows or bytes than the service accepts."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


def too_many_rows(what: str, most: int) -> TooLarge:
    """Return the error of a request with more rows than it may have: `what` says which part of it has how many.

    >>> print(too_many_rows("column 'x' has 9 rows", 8))
    column 'x' has 9 rows; at most 8 rows are accepted in one request (RIVERDELTA_MAX_ROWS): send it in parts
    """
    return TooLarge(f"{what}; at most {most} rows are accepted in one request (RIVERDELTA_MAX_ROWS): send it in parts")


class WrongContentType(InvalidInput):
    """A request whose declared content type is not accepted there."""

    http_status = 415


class NothingAccepted(InvalidInput):
    """Well-formed feedback of which every item is refused permanently."""

    http_status = 422


class Disconnected(InvalidInput):
    """A request whose client closed the connection before its end; the status is only counted."""

    http_status = 499
    grpc_status = "CANCELLED"


class WrongEncoding(WrongContentType):
    """A request whose body has a content coding that is not accepted."""


class Unauthenticated(RiverdeltaError):
    """A request without a valid token."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class Forbidden(RiverdeltaError):
    """A request whose token is valid but does not allow this."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class RateLimited(RiverdeltaError):
    """A request that exceeds the rate limit; it will be accepted after `retry_after` seconds."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(RiverdeltaError, LookupError):
    """A name that does not exist: a model, a tap, a release."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class WrongMethod(RiverdeltaError):
    """A path that exists, with a method that it does not have."""

    http_status = 405
    grpc_status = "UNIMPLEMENTED"


class AlreadyExists(RiverdeltaError):
    """A request whose id its client gave to another request before."""

    http_status = 409
    grpc_status = "ALREADY_EXISTS"


class Refused(RiverdeltaError):
    """A command that cannot be applied in the current state; nothing has changed, and the message says what to do."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Unavailable(RiverdeltaError):
    """A temporary failure that a retry may pass: a full disk, a closed journal."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    retry_after = 1.0


class NotFinite(RiverdeltaError):
    """A row whose score is NaN, if the service is configured to answer that with an error."""


class PrepareFailed(RiverdeltaError):
    """A failure of the service's own `prepare`: an exception, or a result that the base cannot take."""


class ConfigurationError(RiverdeltaError, ValueError):
    """A stack, base model or setting that is invalid or does not fit the others; raised before anything is served."""

    grpc_status = "FAILED_PRECONDITION"


class Unbound(ConfigurationError, AttributeError):
    """A correction that is used before `bind` has made its tables."""


class ModelError(ConfigurationError):
    """A base model that riverdelta cannot correct, with the reason."""


class Unsupported(ConfigurationError):
    """A valid request or model that riverdelta does not support."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class Corrupt(RiverdeltaError):
    """Stored bytes that do not match their digest or cannot be read."""

    grpc_status = "DATA_LOSS"


class ParityError(RiverdeltaError):
    """The merged model and the Python stack disagree by more than the tolerance."""


class Locked(ConfigurationError):
    """A data folder that another process has locked; the message names its process id."""


def near(name: str, names: Iterable[str]) -> str:
    """Return a hint that lists the names nearest to `name`, for the end of an error message.

    >>> near("user", ["user_id", "item_id"])
    'did you mean user_id?'
    >>> near("zzz", ["b", "a"])
    'there are: a, b'
    """
    known = sorted(names)
    close = get_close_matches(name, known, n=3, cutoff=0.6) if len(name) <= _MOST_CHARACTERS else []
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return f"there are: {shown}" if known else "there are none"


class _Short(Repr):
    """Shows the first entries of a mapping in their order: `Repr` would sort all of them."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x) if len(x) <= self.maxstring else f"{x[: self.maxstring]!r}..."


_SHORT = _Short()
_SHORT.maxstring = _MOST_CHARACTERS


def short(value: Any) -> str:
    """Return a client's value for an error message: its `repr`, or its beginning and end; the time does not depend on its size.

    >>> short("user"), len(short("a" * 1_000_000)), short([1] * 1_000_000)
    ("'user'", 100, '[1, 1, 1, 1, 1, 1, ...]')
    """
    if value is None:
        return "null"
    if isinstance(value, str) and len(value) < _MOST_CHARACTERS and len(text := repr(value)) <= _MOST_CHARACTERS:
        return text  # ten times as fast: names of requests pass here
    return _SHORT.repr(value)


def kind(value: Any) -> str:
    """Return what a client's value is, for an error message.

    >>> kind(None), kind("user")
    ('null', 'a str')
    """
    return "null" if value is None else f"a {type(value).__name__}"
