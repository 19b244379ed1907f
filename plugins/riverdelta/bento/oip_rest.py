"""Open Inference Protocol v2 over REST, with the binary tensor data extension."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from riverdelta.bento.http import json, parse_json, parse_length, read_body, route
from riverdelta.bento.oip import Oip
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import InvalidInput, Unavailable
from riverdelta.serving.oip.tensors import Tensor, from_bytes, from_list, to_bytes, to_list

_HEADER = "inference-header-content-length"
_KINDS: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}
T = TypeVar("T")


def routes(runtime: Runtime) -> list[Route]:
    """Return the routes below /v2."""
    oip = Oip(runtime)

    async def server(request: Request) -> Response:
        return json(oip.server())

    async def live(request: Request) -> Response:
        return json({"live": True})

    async def ready(request: Request) -> Response:
        if not runtime.ready:
            raise Unavailable("the scorer is starting or stopping")
        return json({"ready": True})

    async def model(request: Request) -> Response:
        return json(oip.model(**_named(request)))

    async def model_ready(request: Request) -> Response:
        found = oip.model(**_named(request))
        return json({"name": found["name"], "ready": True})

    async def infer(request: Request) -> Response:
        named = _named(request)
        oip.permit(named["name"])
        body = await read_body(request, runtime.plane.settings.max_bytes)
        header, tensors = _read(body, request.headers.get(_HEADER))
        outputs = _list(header, "outputs")
        made = await oip.infer("oip_rest", named["name"], named["number"], tensors, [_field(o, "name", str) for o in outputs])
        return _write(header, outputs, named["name"], made)

    def inferred(request: Request) -> str:
        return oip.endpoint(request.path_params["name"])

    made = [
        route("oip_rest", "/v2", "metadata", server),
        route("oip_rest", "/v2/health/live", "health", live),
        route("oip_rest", "/v2/health/ready", "health", ready),
    ]
    for stem in ("/v2/models/{name}", "/v2/models/{name}/versions/{number}"):
        made += [
            route("oip_rest", stem, "metadata", model),
            route("oip_rest", f"{stem}/ready", "health", model_ready),
            route("oip_rest", f"{stem}/infer", inferred, infer, "POST"),
        ]
    return made


def _named(request: Request) -> dict[str, str]:
    return {"name": request.path_params["name"], "number": request.path_params.get("number", "")}


def _read(body: bytes, header_length: str | None) -> tuple[dict[str, Any], list[Tensor]]:
    """Split a body into its JSON header and its tensors, each from the JSON or from the bytes behind it."""
    split = len(body)
    if header_length is not None:
        split = parse_length(_HEADER, header_length)
        if split > len(body):
            raise InvalidInput(f"{_HEADER} is {split}; expected at most the body's {len(body)} bytes")
    header = parse_json(body[:split], "the request's JSON")
    if not isinstance(header, dict):
        raise InvalidInput(f"the request's JSON is a {type(header).__name__}; expected an object with inputs")
    tensors = []
    at = split
    for entry in _list(header, "inputs"):
        name, datatype, shape = _field(entry, "name", str), _field(entry, "datatype", str), entry.get("shape")
        size = _field(entry, "parameters", dict, {}).get("binary_data_size")
        if size is None:
            tensors.append(from_list(name, datatype, shape, entry.get("data")))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(body) - at:
            raise InvalidInput(f"input {name!r} has binary_data_size {size!r}; {len(body) - at} bytes are left")
        if "data" in entry:
            raise InvalidInput(f"input {name!r} has data beside binary_data_size; expected one of the two")
        tensors.append(from_bytes(name, datatype, shape, body[at : at + size]))
        at += size
    if at != len(body):
        raise InvalidInput(f"{len(body) - at} bytes follow the last input; check binary_data_size and {_HEADER}")
    return header, tensors


def _write(header: dict[str, Any], outputs: list[Any], name: str, made: list[Tensor]) -> Response:
    all_binary = _field(header, "parameters", dict, {}).get("binary_data_output") is True
    binary = {_field(o, "name", str): _field(o, "parameters", dict, {}).get("binary_data", all_binary) is True for o in outputs}
    entries, tail = [], []
    for tensor in made:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.data.shape)}
        if binary.get(tensor.name, all_binary):
            tail.append(to_bytes(tensor))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = to_list(tensor)
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": name, "model_version": "1", "outputs": entries}
    if isinstance(header.get("id"), str):
        answer["id"] = header["id"]
    if not tail:
        return json(answer)
    head = orjson.dumps(answer)
    headers = {_HEADER: str(len(head))}
    return Response(b"".join([head, *tail]), headers=headers, media_type="application/octet-stream")


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = _field(entry, key, list, [])
    if not all(isinstance(one, dict) for one in value):
        raise InvalidInput(f"{key!r} is not a list of objects; see the Open Inference Protocol")
    return value


def _field(entry: dict[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    value = entry.get(key, default)
    if not isinstance(value, kind):
        raise InvalidInput(f"{key} is {value!r}; expected {_KINDS[kind]}")
    return value
