"""Admin: the operator's steps back and forth over HTTP, for who has the admin role.

A command must say that its body is JSON: a browser sends no such request for another site, as that needs a preflight that no
route answers. Without tokens everybody on this machine may do this, as they may score and teach; then a request must also
name the service by a loopback name in its Host header. So neither a web page whose name was made to point here (DNS
rebinding) nor what a proxy brings from elsewhere gets in: whoever wants that sets tokens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Sequence
from time import monotonic
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from riverdelta.bento.access import Access, is_loopback
from riverdelta.bento.command import COMMANDS, MOST_CHANGES, MOST_RELEASE, parse_command
from riverdelta.bento.download import chunks, packed
from riverdelta.bento.guard import visit
from riverdelta.bento.http import Handler, json, read_json, route
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import Forbidden, InvalidInput, NotFound, Unavailable, WrongContentType
from riverdelta.core.settings import Settings
from riverdelta.sidecar.diff import TOP, diff, parse_ids
from riverdelta.sidecar.operator import Operator

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes below /admin."""
    reading = asyncio.Lock()  # states and models are large: one at a time is in memory

    async def releases(request: Request) -> Response:
        _query(request, ())
        return json({"releases": await asyncio.to_thread(_operator(runtime).releases)})

    async def changes(request: Request) -> Response:
        given, plane = _query(request, ("a", "b", "top", "id")), runtime.plane
        a, b = (_whole(name, given.get(name), MOST_RELEASE) for name in ("a", "b"))
        top = _whole("top", given["top"], MOST_CHANGES, least=1) if "top" in given else TOP
        ids = parse_ids(request.query_params.getlist("id"), plane.definition.schema)
        async with reading:
            return json(await asyncio.to_thread(diff, plane.definition, plane.home.releases(), a, b, top, ids))

    async def export(request: Request) -> Response:
        given, store = _query(request, ("release",)), runtime.plane.home.releases()
        number = _whole("release", given["release"], MOST_RELEASE) if "release" in given else None
        async with reading:
            found = store.get(number) if number is not None else await asyncio.to_thread(store.newest_good)
            if found is None:
                raise NotFound(f"no release of {runtime.definition.name} is whole")
            file = await packed(await asyncio.to_thread(found.verify))
        named = {
            "Content-Disposition": f'attachment; filename="merged-{found.number:06d}.onnx"',
            "Content-Length": str(os.fstat(file.fileno()).st_size),
        }
        return StreamingResponse(chunks(file), 200, named, "application/octet-stream")

    def command(name: str) -> Handler:
        async def run(request: Request) -> Response:
            settings, operator = runtime.plane.settings, _operator(runtime)
            _refuse_other_kinds(request)
            do, seconds = parse_command(name, await read_json(request, settings.max_bytes))
            sequence = await asyncio.to_thread(do, operator)
            _log.info("%s by HTTP (caller %016x) is record %d", name, visit().caller.source % 2**64, sequence)
            waits = await _obeyed(operator, sequence, seconds)
            return json(operator.outcome(sequence, waits), 202 if waits else 200)

        return run

    def behind(name: str, method: str, handler: Handler) -> Route:
        async def let_in(request: Request) -> Response:
            _refuse_strange_names(request, runtime.plane.settings)
            return await handler(request)

        return route("rest", f"/admin/{name}", "admin", let_in, method)

    reads = {"releases": releases, "diff": changes, "export": export}
    return [behind(name, "GET", handler) for name, handler in reads.items()] + [
        behind(name, "POST", command(name)) for name in COMMANDS
    ]


def _operator(runtime: Runtime) -> Operator:
    plane = runtime.plane
    return Operator(plane.home, plane.journal, plane.clock)


async def _obeyed(operator: Operator, sequence: int, seconds: float) -> Unavailable | None:
    """Wait until the learner has obeyed; return why it has not."""
    deadline = monotonic() + seconds
    try:
        while operator.look(sequence) is None:
            if monotonic() >= deadline:
                return operator.late(sequence, seconds)
            await asyncio.sleep(_LOOK_SECONDS)
    except Unavailable as error:
        return error
    return None


def _refuse_strange_names(request: Request, settings: Settings) -> None:
    if Access.of(settings).on:
        return
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        raise Forbidden(
            f"the request is for Host {host!r}; without tokens /admin answers to 127.0.0.1, [::1] and localhost alone: set "
            f"RIVERDELTA_SCORE_TOKENS, RIVERDELTA_FEEDBACK_TOKENS and RIVERDELTA_ADMIN_TOKENS"
        )


def _refuse_other_kinds(request: Request) -> None:
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise WrongContentType(f"the body is {kind or 'of no Content-Type'!r}; expected Content-Type: application/json")


def _query(request: Request, allowed: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in allowed:
            raise InvalidInput(f"the query has {name!r}; expected {', '.join(allowed) or 'none'}")
        if name in given and name != "id":
            raise InvalidInput(f"the query has {name!r} twice")
        given[name] = value
    return given


def _whole(name: str, text: str | None, most: int, least: int = 0) -> int:
    if text is None or not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise InvalidInput(f"{name} is {text!r}; expected a whole number of {least} to {most}, as in ?{name}=1")
    return int(text)
