"""Door: tokens from a browser's password prompt, and the page that asks for one."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from riverdelta.bento.page.render import HEADERS, render
from riverdelta.core.errors import RiverdeltaError, Unauthenticated


def leads(method: str, path: str) -> bool:
    """Whether a request is for the status page."""
    return method in ("GET", "HEAD") and path == "/"


def as_bearer(authorization: Sequence[str]) -> list[str]:
    """Return `Authorization` headers with that of a browser's password prompt as `Bearer <password>`; others as they are.

    A browser sends that header (Basic, RFC 7617) also with requests made by other sites, so it is accepted only for the page,
    which changes nothing.

    >>> as_bearer(["Basic " + base64.b64encode(b"anybody:score-token-of-the-shop").decode(), "Bearer x", "Basic ?"])
    ['Bearer score-token-of-the-shop', 'Bearer x', 'Basic ?']
    """
    return [_bearer(given) for given in authorization]


def refusal(error: RiverdeltaError, headers: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """Return the headers, including `headers`, and the body of a page that says why access is refused and how to get it."""
    missing = isinstance(error, Unauthenticated)
    asks = {"WWW-Authenticate": 'Basic realm="riverdelta: any name, and a token as the password", Bearer'} if missing else {}
    return {**HEADERS, **headers, **asks}, render(refused=str(error), missing=missing).encode()


def _bearer(given: str) -> str:
    scheme, _, rest = given.strip().partition(" ")
    try:
        _, colon, password = base64.b64decode(rest.strip(), validate=True).decode("ascii").partition(":")
    except ValueError:  # not base64, or not ASCII
        return given
    return f"Bearer {password}" if colon and scheme.lower() == "basic" else given
