"""Refusals: a request that is refused has changed nothing, whatever is wrong with it, and null counts as absent."""

import asyncio
import copy

import grpc
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from riverdelta.bento import admin, oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

INFER, FEED = "/v2/models/ranker/infer", "/v2/models/ranker-feedback/infer"
TENSORS = [
    {"name": "user", "datatype": "INT64", "shape": [1], "data": [1], "parameters": {}},
    {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5]},
    {"name": "shop", "datatype": "FP32", "shape": [1], "data": [1]},
]
OUTPUTS = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "state"}]
HINTS = {"priority": 1, "timeout": 2, "binary_data_output": False}


@pytest.fixture(scope="module")
def shop(definition, tmp_path_factory):
    made = Runtime(definition)
    given = Settings.load(home=tmp_path_factory.mktemp("refusals"), max_rows=4)
    made.start(DataPlane(definition, given, registry=CollectorRegistry()))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ask(shop):
    """ask(path, body): (status, body) of one POST, without a client between the test and the routes."""
    routes = [*rest.routes(shop), *admin.routes(shop), *oip_rest.routes(shop)]
    app = Guard(application(routes), Policy(shop).open(shop.plane.settings))

    def call(path, body):
        raw, said = orjson.dumps(body), []
        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(raw))]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
        }
        scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "http_version": "1.1"}

        async def receive():
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message):
            said.append(message)

        asyncio.run(app({**scope, "scheme": "http"}, receive, send))
        return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])

    return call


def effects(shop):
    """What a request may change: the journal, the requests that it will have, the tables, and the counts of rows and items."""
    plane = shop.plane
    rows, items = (plane.metrics.figures(endpoint).rows for endpoint in ("score", "feedback"))
    return plane.journal.last(), plane.journal._buffer._next, str(plane.session.state), rows, items


def bodies(shop):
    """A valid body for each route that takes one, with feedback for a row that was scored, and its effects."""
    impressions = shop.plane.score({"user": [1], "x": [0.5], "shop": [1.0]}).impressions
    # Feedback makes the row durable: no record comes later.
    asyncio.run(shop.plane.feedback([f"{impressions}.0"], np.ones(1)))
    ids = {"name": "id", "datatype": "BYTES", "shape": [1], "data": [f"{impressions}.0"]}
    fed = [ids, {"name": "label", "datatype": "FP32", "shape": [1], "data": [1]}]
    return {
        "/score": {"columns": {"user": [1], "x": [0.5], "shop": [1.0]}, "propensity": [0.5]},
        "/feedback": {"items": [{"id": f"{impressions}.0", "label": 1}, {"id": f"{impressions}.0", "shown": True}]},
        INFER: {"id": "r-1", "inputs": copy.deepcopy(TENSORS), "outputs": copy.deepcopy(OUTPUTS), "parameters": dict(HINTS)},
        FEED: {"id": "r-1", "inputs": fed, "outputs": [{"name": "outcome"}], "parameters": dict(HINTS)},
        "/admin/rollback": {"release": 0, "wait": 0},
        "/admin/promote": {"release": 0, "wait": 0},
        "/admin/freeze": {"wait": 0},
    }


def places(value, path=()):
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def put(value, path, new):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


ODD = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 2, 1.5, 2**53, 2**63, 2**64 - 1, 1e300, "", "x", "score", "INT64", "BF16", "fp32", [], {}, [[1]]])
    | st.sampled_from([[None], [1, 1], ["a.0"], {"binary_data": None}, {"binary_data_size": 4}, {"name": "score"}, [2**40, 0]])
)


@settings(max_examples=250)
@given(st.sampled_from(["/score", "/feedback", INFER, FEED, "/admin/rollback", "/admin/promote", "/admin/freeze"]), st.data())
def test_a_request_that_is_refused_has_changed_nothing(shop, ask, path, data):
    body = bodies(shop)[path]
    for _ in range(data.draw(st.integers(1, 2))):
        if data.draw(st.booleans()) and isinstance(body, dict):
            inner = data.draw(st.sampled_from([p for p in places(body) if isinstance(at(body, p), dict)]))
            at(body, inner)[data.draw(st.sampled_from(["x", "name", "data", "outputs", "parameters", "weight"]))] = (
                copy.deepcopy(data.draw(ODD))
            )
        elif where := [p for p in places(body) if p]:
            put(body, data.draw(st.sampled_from(where)), copy.deepcopy(data.draw(ODD)))
    before = effects(shop)
    status, answer = ask(path, body)
    assert status in (200, 202, 400, 404, 409, 413, 422), answer
    if status >= 400:
        assert effects(shop) == before, (body, answer)


def at(value, path):
    for key in path:
        value = value[key]
    return value


OPTIONAL = [
    ("id",), ("parameters",), ("inputs", 0, "parameters"), ("inputs", 0, "parameters", "binary_data_size"),
    ("outputs",), ("outputs", 0, "parameters"),
    *(("outputs", 0, "parameters", name) for name in ("binary_data", "classification")),
    *(("parameters", name) for name in (*HINTS, "sequence_id", "sequence_start", "delta")),
]  # fmt: skip


@settings(max_examples=40)
@given(st.sets(st.sampled_from(OPTIONAL), min_size=1))
def test_null_is_absent_for_every_optional_field_of_an_inference(ask, shop, paths):
    body, plain = bodies(shop)[INFER], bodies(shop)[INFER]
    for path in sorted(paths, key=len, reverse=True):  # an inner field before the one that holds it
        put(body, path, None)
        at(plain, path[:-1]).pop(path[-1], None)
    (status, answer), (_, expected) = ask(INFER, body), ask(INFER, plain)
    assert status == 200, answer
    given, wanted = orjson.loads(answer), orjson.loads(expected)
    assert given.get("id") == wanted.get("id")
    assert [output["name"] for output in given["outputs"]] == [output["name"] for output in wanted["outputs"]]
    assert given["outputs"][0]["data"] == wanted["outputs"][0]["data"]


def parameter(**value):
    return MESSAGES["InferParameter"](**value)


def message(**changed):
    """An inference over gRPC as bytes; `inputs` and `outputs` have the parameters that are given for their first."""
    inputs = [{"name": t["name"], "datatype": t["datatype"], "shape": t["shape"]} for t in TENSORS]
    inputs[0]["parameters"] = changed.pop("input", {})
    outputs = [{"name": "score", "parameters": changed.pop("output", {})}]
    raw = [np.int64(1).tobytes(), np.float32(1).tobytes(), np.float32(1).tobytes()]
    given = {"model_name": "ranker", "inputs": inputs, "outputs": outputs, "raw_input_contents": raw}
    return MESSAGES["ModelInferRequest"](**{**given, **changed}).SerializeToString()


REFUSED = {
    "an unknown output": message(outputs=[{"name": "scores"}]),
    "an output twice": message(outputs=[{"name": "score"}, {"name": "score"}]),
    "a parameter of an output": message(output={"classification": parameter(int64_param=1)}),
    "a parameter of an input": message(input={"binary_data_size": parameter(int64_param=8)}),
    "a sequence": message(parameters={"sequence_id": parameter(int64_param=1)}),
    "a negative priority": message(parameters={"priority": parameter(int64_param=-1)}),
    "another shape": message(inputs=[{"name": "user", "datatype": "INT64", "shape": [2]}]),
    "another version": message(model_version="2"),
    "an unsigned id beyond int64": message(
        inputs=[{"name": t["name"], "datatype": t["datatype"].replace("INT64", "UINT64"), "shape": [1]} for t in TENSORS],
        raw_input_contents=[np.uint64(2**63).tobytes(), np.float32(1).tobytes(), np.float32(1).tobytes()],
    ),
}
NULLS = {name: parameter() for name in ("sequence_id", "priority", "delta")}


def over_grpc(shop, *datas):
    """The answer to each call, or its error."""

    async def all_of_them():
        server = GrpcServer(shop, "127.0.0.1", 0, 1_000_000)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            made = await asyncio.gather(*(infer(data) for data in datas), return_exceptions=True)
        await server.stop()
        return made

    return asyncio.run(all_of_them())


def test_over_grpc_too_a_refused_call_has_changed_nothing_and_a_parameter_without_a_value_is_absent(shop):
    bodies(shop)
    before = effects(shop)
    errors = over_grpc(shop, *REFUSED.values())
    assert [error.code().name for error in errors] == [
        "NOT_FOUND" if "version" in name else "INVALID_ARGUMENT" for name in REFUSED
    ]
    assert "row 0 has 9223372036854775808" in errors[-1].details()
    assert effects(shop) == before
    (scored,) = over_grpc(shop, message(parameters=NULLS, input=NULLS, output=NULLS))
    assert [o.name for o in MESSAGES["ModelInferResponse"].FromString(scored).outputs] == ["score"]
