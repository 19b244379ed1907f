"""Inputs of other types and shapes, named parts and strings, over every transport, in the journal and after a rebase."""

import asyncio
import json

import grpc
import jsonschema_rs
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from riverdelta.bento import openapi
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.oip import Oip
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.oip.messages import MESSAGES, SERVICE
from typed_inputs import PARTS, REST, X, typed


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    return typed(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def runtime(definition, tmp_path_factory):
    made = Runtime(definition)
    settings = Settings.load(home=tmp_path_factory.mktemp("home"), max_rows=500)
    made.start(DataPlane(definition, settings, registry=CollectorRegistry()))
    yield made
    made.stop()


def tensor(name, datatype, array, data=None):
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data or array.ravel().tolist()}


def tensors(parts, axis):
    """The same rows as tensors, with or without the axis of length 1."""

    def one(name, datatype, values, dtype=None):
        return tensor(name, datatype, np.array(values, dtype).reshape((2, 1) if axis else (2,)))

    found = [
        one("city", "BYTES", REST["city"]), one("code", "UINT64", REST["code"], np.uint64), one("age", "INT64", REST["age"]),
        one("new", "BOOL", REST["new"]), one("rate", "FP16", REST["rate"]),
    ]  # fmt: skip
    named = [
        one("income", "FP64", PARTS["income"]),
        one("region", "INT32", PARTS["region"]),
        one("debt", "FP32", PARTS["debt"]),
    ]
    return found + (named if parts else [tensor("X", "FP64", np.array(X))])


def test_every_spelling_of_a_request_has_the_same_score(send, definition):
    nested = {name: [[value] for value in values] for name, values in REST.items()}
    bodies = [REST | {"X": X}, REST | PARTS, nested | PARTS, nested | {"X": X}]
    answers = [send("POST", "/score", json={"columns": body}).json()["scores"] for body in bodies]
    for parts in (False, True):
        for axis in (False, True):
            answer = send("POST", "/v2/models/ranker/infer", json={"inputs": tensors(parts, axis)}).json()
            answers.append(answer["outputs"][0]["data"])
    assert all(scores == answers[0] for scores in answers)
    raw = np.array([500 - 0.75 + 1, 1250.25 + 1 + 0.125])
    assert np.allclose(answers[0], 1 / (1 + np.exp(-raw)))


def test_grpc_takes_strings_and_parts_in_contents_and_in_bytes(send, runtime):
    def infer(request):
        async def one():
            server = GrpcServer(runtime, "127.0.0.1", 0, 100_000)
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                try:
                    return await channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString())
                finally:
                    await server.stop()

        return MESSAGES["ModelInferResponse"].FromString(asyncio.run(one()))

    def text(value):
        return len(value).to_bytes(4, "little") + value.encode()

    def contents(t):
        kinds = {
            "BYTES": "bytes",
            "UINT64": "uint64",
            "INT64": "int64",
            "INT32": "int",
            "BOOL": "bool",
            "FP32": "fp32",
            "FP64": "fp64",
        }
        data = [value.encode() for value in t["data"]] if t["datatype"] == "BYTES" else t["data"]
        return MESSAGES["InferTensorContents"](**{f"{kinds[t['datatype']]}_contents": data})

    shaped = [(t["name"], t["datatype"], t["shape"]) for t in tensors(True, axis=True)]
    inputs = [MESSAGES["InferInputTensor"](name=n, datatype=d, shape=s) for n, d, s in shaped]
    types = {"UINT64": "<u8", "INT64": "<i8", "INT32": "<i4", "BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
    raw = [
        b"".join(map(text, t["data"])) if t["datatype"] == "BYTES" else np.array(t["data"], types[t["datatype"]]).tobytes()
        for t in tensors(True, axis=True)
    ]
    in_bytes = MESSAGES["ModelInferRequest"](model_name="ranker", inputs=inputs, raw_input_contents=raw)
    inputs = [
        MESSAGES["InferInputTensor"](name=t["name"], datatype=t["datatype"], shape=t["shape"], contents=contents(t))
        for t in (t | {"datatype": t["datatype"].replace("FP16", "FP32")} for t in tensors(True, axis=True))
    ]
    in_contents = MESSAGES["ModelInferRequest"](model_name="ranker", inputs=inputs)
    scores = send("POST", "/score", json={"columns": REST | PARTS}).json()["scores"]
    for request in (in_bytes, in_contents):
        answer = infer(request)
        (score,) = [tensor for tensor in answer.outputs if tensor.name == "score"]
        found = score.contents.fp32_contents or np.frombuffer(answer.raw_output_contents[0], "<f4")
        assert np.allclose(found, scores)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"X": X}, "columns has 'X' and 'income', which is part of it; expected one of the two: X, or income, region, debt"),
        ({"region": [3.5, 1]}, "column 'region' holds 3.5 at row 0; corrections read it as int64[N], so expected integers"),
        ({"city": ["ann", None]}, "row 1 has null for 'city', which is string[N]; expected a string"),
        ({"age": ["x", "y"]}, "column 'age' has type str; expected int64[N]"),
        ({"code": [-1, 2]}, "'code'"),
        ({"income": [1e300, 1]}, "column 'income' holds 1e+300 at row 0; corrections read it as float32[N]"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_its_name(send, change, said):
    answer = send("POST", "/score", json={"columns": REST | PARTS | change})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_the_protocols_metadata_names_the_bases_own_types(runtime):
    inputs = {t["name"]: (t["datatype"], t["shape"]) for t in Oip(runtime).model("ranker")["inputs"]}
    assert inputs == {
        "X": ("FP64", [-1, 3]), "city": ("BYTES", [-1, 1]), "code": ("UINT64", [-1, 1]), "age": ("INT64", [-1]),
        "new": ("BOOL", [-1, 1]), "rate": ("FP16", [-1, 1]),
    }  # fmt: skip


def test_the_openapi_document_takes_what_the_service_takes(definition, send):
    schema = openapi.document(definition, Settings.load())["components"]["schemas"]["ScoreRequest"]["properties"]["columns"]
    bodies = [REST | {"X": X}, REST | PARTS, REST | PARTS | {"X": X}, REST, REST | {"X": X, "debt": [0, 1]}]
    bodies += [REST | PARTS | {"city": [["ann"], ["bob"]]}, REST | PARTS | {"city": ["ann", None]}]
    bodies += [REST | {name: values for name, values in PARTS.items() if name != "debt"}]
    for body in bodies:
        taken = send("POST", "/score", json={"columns": body}).status_code == 200
        assert jsonschema_rs.is_valid(schema, json.loads(json.dumps(body))) == taken, body
