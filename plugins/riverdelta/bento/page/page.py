"""Page: the status page at GET /, from the state that every worker has."""

from __future__ import annotations

import asyncio
import shlex
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.http import mounted
from riverdelta.bento.page.render import HEADERS, draw
from riverdelta.bento.runtime import Runtime
from riverdelta.sidecar.operator import Operator

_LEAST_SECONDS = 1.0


class Page:
    """The status page of the service `target` (module:Class), rendered by a worker at most once a second."""

    def __init__(self, runtime: Runtime, target: str) -> None:
        self._runtime, self._target = runtime, shlex.quote(target)
        self._drawn, self._at, self._drawing = "", -_LEAST_SECONDS, asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer a request for the page."""
        self._runtime.plane  # noqa: B018 - raises `Unavailable` if there is none
        async with self._drawing:
            if time.monotonic() - self._at >= _LEAST_SECONDS:
                self._drawn, self._at = await asyncio.to_thread(self.draw), time.monotonic()
        return Response(self._drawn, headers=HEADERS)

    def draw(self) -> str:
        """Return the current page."""
        plane = self._runtime.plane
        operator = Operator(plane.home, plane.journal, plane.clock)
        fresh = [plane.metrics.freshness(share) for share in (0.5, 0.95)]
        given = {"releases": operator.releases(), "back": operator.target(), "fresh": fresh, "target": self._target}
        return draw(plane.status(), plane.clock(), plane.definition.loss, **given)


def routes(runtime: Runtime, target: str) -> list[Route]:
    """Return the route of the page."""
    return mounted({"page": Page(runtime, target).answer})
