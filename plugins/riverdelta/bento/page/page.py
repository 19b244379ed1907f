"""Page: GET / of a service, drawn at most once a second from what every worker knows anyway."""

from __future__ import annotations

import asyncio
import re
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.http import mounted
from riverdelta.bento.page.render import HEADERS, page
from riverdelta.bento.page.view import view
from riverdelta.bento.runtime import Runtime
from riverdelta.sidecar.operator import Operator

_LEAST_SECONDS = 1.0
_SHARES = (0.5, 0.95)
#: Stands in a drawn page for the address by which a reader came; the rest is the same for all of them.
ADDRESS = "http://address-of-the-service"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


class Page:
    """One worker's page of the service `target` (module:Class).

    It is drawn in a thread and kept for a second: however many look, scoring goes on beside one drawing a second at the most.
    """

    def __init__(self, runtime: Runtime, target: str) -> None:
        self._runtime, self._target = runtime, target
        self._drawn, self._at = "", -_LEAST_SECONDS
        self._drawing: asyncio.Lock | None = None

    async def answer(self, request: Request) -> Response:
        """Answer a request for the page."""
        self._runtime.plane  # noqa: B018 - raises `Unavailable` while there is none, however fresh the last drawing is
        self._drawing = self._drawing or asyncio.Lock()
        async with self._drawing:
            if time.monotonic() - self._at >= _LEAST_SECONDS:
                self._drawn = await asyncio.to_thread(self.draw)
                self._at = time.monotonic()
        return Response(self._drawn.replace(ADDRESS, _address(request)), headers=HEADERS)

    def draw(self) -> str:
        """Return the page as it is now."""
        plane = self._runtime.plane
        operator = Operator(plane.home, plane.journal, plane.clock)
        fresh = [(share, plane.metrics.freshness(share)) for share in _SHARES]
        shown = view(plane.status(), operator.releases(), operator.target(), fresh, self._target, plane.clock())
        return page(shown | {"address": ADDRESS})


def routes(runtime: Runtime, target: str) -> list[Route]:
    """Return the route of the page."""
    return mounted({"page": Page(runtime, target).answer})


def _address(request: Request) -> str:
    """The address by which the page was asked for, where its header is one."""
    host, scheme = request.headers.get("host", ""), request.url.scheme
    known = _HOST.fullmatch(host) is not None and scheme in ("http", "https")
    return f"{scheme}://{host}" if known else "http://127.0.0.1:3000"
