"""Door: how a browser brings a token to the status page, and what it is shown without one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

from riverdelta.bento.page.render import refused
from riverdelta.core.errors import RiverdeltaError, Unauthenticated

PAGE = "/"


def leads(method: str, path: str) -> bool:
    """Whether a request is for the page."""
    return method in ("GET", "HEAD") and path == PAGE


def as_bearer(authorization: Sequence[str]) -> list[str]:
    """Return `Authorization` headers with that of a browser's password prompt as `Bearer <password>`; others as they are.

    A browser cannot send a bearer token by itself, but asks for a name and a password where a server says Basic (RFC 7617), and
    sends them with each request from then on, also with one that another site makes it send. So this holds for the page alone,
    which changes nothing and which another site cannot read.

    >>> as_bearer(["Basic " + base64.b64encode(b"anybody:score-token-of-the-shop").decode()])
    ['Bearer score-token-of-the-shop']
    >>> as_bearer(["Bearer x"]), as_bearer(["Basic ?"])
    (['Bearer x'], ['Basic ?'])
    """
    return [_bearer(given) for given in authorization]


def refusal(error: RiverdeltaError, headers: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a small page that says what is missing, and how to bring it; `headers` belong to the error."""
    given, body = refused(str(error), isinstance(error, Unauthenticated))
    given |= headers
    if isinstance(error, Unauthenticated):
        given["WWW-Authenticate"] = 'Basic realm="riverdelta: any name, and a token as the password", Bearer'
    return given, body


def _bearer(given: str) -> str:
    scheme, _, rest = given.strip().partition(" ")
    if scheme.lower() != "basic":
        return given
    try:
        decoded = base64.b64decode(rest.strip(), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return given
    _, colon, password = decoded.partition(":")
    return f"Bearer {password}" if colon else given
