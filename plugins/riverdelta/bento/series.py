"""Series: BentoML's own metrics, with a bounded number of labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from riverdelta.bento import internals
from riverdelta.bento.endpoints import template
from riverdelta.metrics.files import page

_Theirs: Any = internals.COUNTING.find()
_SCOPE = "riverdelta.scope"


def write_page_once() -> None:
    """Make a scrape of /metrics aggregate the files of all workers once; BentoML does it twice."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        client: Any = internals.METRICS.find().get()
        client.generate_latest = page


def label_by_route(app: Starlette) -> None:
    """Make BentoML label requests by route instead of by path, which would add a series for every path requested."""
    label, ours = _labels(app), cast(Any, _Counting)
    app.user_middleware = [Middleware(ours, label=label, **m.kwargs) if m.cls is _Theirs else m for m in app.user_middleware]


class _Counting:
    """BentoML's counting middleware, given the route as the path; the application gets the original request."""

    def __init__(self, app: ASGIApp, label: Callable[[str], str], **given: Any) -> None:
        async def unlabelled(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope.get(_SCOPE, scope), receive, send)

        self._inner: ASGIApp = _Theirs(unlabelled, **given)
        self._label = label

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request and pass it on."""
        if scope["type"] == "http":
            scope = {**scope, "path": self._label(scope["path"]), _SCOPE: scope}
        await self._inner(scope, receive, send)


def _labels(app: Starlette) -> Callable[[str], str]:
    exact, mounts = set[str](), list[str]()
    for route in _routes(app):
        if isinstance(route, Mount) and route.path:
            mounts.append(route.path)
        elif isinstance(route, Route) and not route.param_convertors:
            exact.add(route.path)

    def label(path: str) -> str:
        if path in exact:
            return path
        return next((mount for mount in mounts if path.startswith(f"{mount}/")), None) or template(path) or "other"

    return label


def _routes(app: Any) -> list[Any]:
    """Return the routes of an application and of those mounted at its root."""
    routes = list(getattr(app, "routes", None) or ())
    return routes + [inner for r in routes if isinstance(r, Mount) and not r.path for inner in _routes(r.app)]
