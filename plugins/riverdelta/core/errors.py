"""One tree of errors: each class knows its HTTP and its gRPC status.

A message names the thing, its value, what was allowed, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class RiverdeltaError(Exception):
    """The root of every error that riverdelta raises on purpose."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    #: Seconds until the same request may succeed; None where a retry cannot help.
    retry_after: float | None = None


class InvalidInput(RiverdeltaError, ValueError):
    """A request that can never succeed as it stands: a wrong column, type, length or value."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class TooLarge(InvalidInput):
    """A request with more rows or bytes than the service takes."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class WrongContentType(InvalidInput):
    """A request whose body is said to be of another kind than the service takes there."""

    http_status = 415


class Unauthenticated(RiverdeltaError):
    """A request without a token that this service knows."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class Forbidden(RiverdeltaError):
    """A request whose token is known and does not allow this."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class RateLimited(RiverdeltaError):
    """A request too soon after those before it; the same one passes in `retry_after` seconds."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(RiverdeltaError, LookupError):
    """A name that does not exist: a model, a tap, a release."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class Refused(RiverdeltaError):
    """A command that cannot be carried out as things stand; nothing has changed, and the message says what can be done."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Unavailable(RiverdeltaError):
    """The service cannot do this now, and a later try may succeed: a full disk, a closed journal."""

    http_status = 503
    grpc_status = "UNAVAILABLE"
    retry_after = 1.0


class NotFinite(RiverdeltaError):
    """A row whose score is NaN, where the service is set to answer that with an error."""


class ConfigurationError(RiverdeltaError, ValueError):
    """A stack, base model or setting that does not fit together; raised before anything is served."""

    grpc_status = "FAILED_PRECONDITION"


class Unbound(ConfigurationError, AttributeError):
    """A correction that is used before `bind` has made its tables."""


class ModelError(ConfigurationError):
    """A base model that riverdelta cannot correct, with the reason."""


class Unsupported(ConfigurationError):
    """Something that is well formed and that riverdelta does not do."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class Corrupt(RiverdeltaError):
    """Stored bytes that do not match their digest, or that cannot be read."""

    grpc_status = "DATA_LOSS"


class ParityError(RiverdeltaError):
    """The merged model and the Python stack disagree by more than the tolerance."""


class Locked(ConfigurationError):
    """A data folder that another process holds; the message names its process id."""


def near(name: str, names: Iterable[str]) -> str:
    """Return a hint that lists the names nearest to `name`, for the end of an error message.

    >>> near("user", ["user_id", "item_id"])
    'did you mean user_id?'
    >>> near("zzz", ["b", "a"])
    'there are: a, b'
    """
    known = sorted(names)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return f"there are: {shown}" if known else "there are none"
