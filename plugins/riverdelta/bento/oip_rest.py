"""The REST routes of the Open Inference Protocol v2, with the binary tensor data extension."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.http import MOST_OPTIONS, Handler, json, mounted, parse_length, read_body
from riverdelta.bento.inference import IndexRequest, InferRequest
from riverdelta.bento.oip import Oip, Shaped
from riverdelta.bento.parsing import parse_json
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.sizes import Sizes
from riverdelta.core.errors import InvalidInput, Unavailable
from riverdelta.core.strict import validated
from riverdelta.serving.oip.tensors import Tensor, from_bytes, from_list, to_bytes, to_list

_HEADER = "inference-header-content-length"


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes below /v2."""
    oip = Oip(runtime)

    def ready() -> dict[str, Any]:
        if not runtime.ready:
            raise Unavailable("the scorer is starting or stopping")
        return {"ready": True}

    def model_ready(**named: str) -> dict[str, Any]:
        return {"name": oip.model(**named)["name"], "ready": True}

    async def infer(request: Request) -> Response:
        model = oip.permit(**request.path_params)
        body = await read_body(request, runtime)
        length, expect = request.headers.get(_HEADER), partial(oip.expect, model)
        asked, tensors = await runtime.read(len(body), _read, body, length, runtime.sizes, expect)
        wanted = [output.name for output in asked.outputs]
        made = await oip.infer("oip_rest", model, tensors, wanted, len(body))
        return _write(asked, model["name"], made)

    async def index(request: Request) -> Response:
        body = await read_body(request, runtime, MOST_OPTIONS) or b"{}"
        asked = validated(IndexRequest, parse_json(body, "the body"), "the body")
        return json(oip.index(only_ready=asked.ready is True))

    facts: dict[str, Callable[..., Any]] = {
        "server": oip.server,
        "live": lambda: {"live": True},
        "ready": ready,
        "model": oip.model,
        "model_ready": model_ready,
        "config": oip.config,
        "stats": oip.statistics,
        "all_stats": oip.statistics,
    }
    return mounted({"infer": infer, "index": index} | {name: _telling(fact) for name, fact in facts.items()})


def _telling(fact: Callable[..., Any]) -> Handler:
    """Return the handler that answers with a fact about the model that the path names, if any."""

    async def answer(request: Request) -> Response:
        return json(fact(**request.path_params))

    return answer


def _read(
    body: bytes, header_length: str | None, sizes: Sizes, expect: Callable[[list[Shaped]], None]
) -> tuple[InferRequest, list[Tensor]]:
    """Return a body's JSON header, and its tensors, whose data are in the JSON or in the bytes after it."""
    at = len(body)
    if header_length is not None:
        at = parse_length(_HEADER, header_length)
        if at > len(body):
            raise InvalidInput(f"{_HEADER} is {at}; expected at most the body's {len(body)} bytes")
    sizes.check(head := body[:at])
    asked = validated(InferRequest, parse_json(head, "the request's JSON"), "the request's JSON")
    expect([(entry.name, entry.datatype, entry.shape) for entry in asked.inputs])
    tensors = []
    for entry in asked.inputs:
        size = entry.parameters.binary_data_size
        if size is None:
            tensors.append(from_list(entry.name, entry.datatype, entry.shape, entry.data))
            continue
        if size > len(body) - at:
            raise InvalidInput(f"input {entry.name!r} has binary_data_size {size!r}; {len(body) - at} bytes are left")
        if entry.data is not None:
            raise InvalidInput(f"input {entry.name!r} has data and binary_data_size; expected one of the two")
        tensors.append(from_bytes(entry.name, entry.datatype, entry.shape, body[at : at + size]))
        at += size
    if at != len(body):
        raise InvalidInput(f"{len(body) - at} bytes remain after the last input; check binary_data_size and {_HEADER}")
    return asked, tensors


def _write(asked: InferRequest, name: str, made: list[Tensor]) -> Response:
    all_binary = asked.parameters.binary_data_output is True
    chosen = {output.name: output.parameters.binary_data for output in asked.outputs}
    entries, tail = [], []
    for tensor in made:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.data.shape)}
        binary = chosen.get(tensor.name)
        if all_binary if binary is None else binary:
            tail.append(to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = to_list(tensor)
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": entries}
    if asked.id is not None:
        answer["id"] = asked.id
    if not tail:
        return json(answer)
    head = orjson.dumps(answer)
    headers = {_HEADER: str(len(head))}
    return Response(b"".join([head, *tail]), headers=headers, media_type="application/octet-stream")
