"""Admin: the routes for operators, below /admin; they need the admin role.

A command must have the content type JSON: a browser sends that for another site only after a preflight, which no route
answers. Without tokens every process on this machine has the admin role; `Hosts` then admits only requests for this machine.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.download import Download, packed
from riverdelta.bento.endpoints import TABLE, Endpoint
from riverdelta.bento.guard import visit
from riverdelta.bento.http import MOST_OPTIONS, Handler, json, mounted, query, read_body
from riverdelta.bento.parsing import parse_json
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.schemas import DiffQuery, ExportQuery
from riverdelta.core.errors import Refused, WrongContentType
from riverdelta.core.ids import parse_ids
from riverdelta.core.strict import validated
from riverdelta.learning.commands import COMMANDS
from riverdelta.sidecar.diff import diff
from riverdelta.sidecar.operator import Operator, exportable

_log = logging.getLogger(__name__)


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes below /admin."""
    reading = asyncio.Lock()  # States and models are large: one request at a time loads them.

    async def releases(request: Request) -> Response:
        return json({"releases": await asyncio.to_thread(_operator(runtime).releases)})

    async def changes(request: Request) -> Response:
        asked, plane = query(DiffQuery, request), runtime.plane
        store, ids = plane.home.releases(), parse_ids(asked.id, plane.definition.schema)
        async with reading:
            texts = plane.journal.log.texts(list((ids or {}).values()))
            return json(await asyncio.to_thread(diff, plane.definition, store, asked.a, asked.b, asked.top, ids, texts))

    async def export(request: Request) -> Response:
        number = query(ExportQuery, request).release
        async with reading:
            found = await asyncio.to_thread(exportable, runtime.plane.home, number)
            file = await packed(found.path)
        return Download(file, f"merged-{found.number:06d}.onnx")

    def command(row: Endpoint) -> Handler:
        async def run(request: Request) -> Response:
            operator = _operator(runtime)
            _refuse_other_kinds(request)
            body = await read_body(request, runtime, MOST_OPTIONS)
            given = validated(row.takes, parse_json(body, "the body"), "the body").model_dump()
            seconds, asked = given.pop("wait"), COMMANDS[row.name](**given)
            sequence = await asyncio.to_thread(operator.ask, asked)
            _log.info("%s by HTTP (caller %s) is record %d", row.name, visit().caller, sequence)
            answer = await operator.answer(asked, sequence, seconds)
            if answer.refused is not None:
                raise Refused(answer.refused)
            return json(answer, 202 if answer.waits else 200)

        return run

    commands = {row.name: command(row) for row in TABLE if row.name in COMMANDS}
    return mounted({"releases": releases, "diff": changes, "export": export, **commands})


def _operator(runtime: Runtime) -> Operator:
    plane = runtime.plane
    return Operator(plane.home, plane.journal, plane.clock)


def _refuse_other_kinds(request: Request) -> None:
    kind, json_type = request.headers.get("content-type", ""), "Content-Type: application/json"
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise WrongContentType(
            f"the request has {f'Content-Type: {kind}' if kind else 'no Content-Type'}; expected {json_type}; "
            f"with curl, add -H '{json_type}' -d '{{}}'"
        )
