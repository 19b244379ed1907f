"""A scorer of three classes and one of values: what /score, /feedback, the protocol and the documents say of them."""

import asyncio

import httpx
import jsonschema_rs
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from prometheus_client import CollectorRegistry

from riverdelta import Calibration
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.openapi import document
from riverdelta.bento.runtime import Runtime
from riverdelta.core.losses import loss_of
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.answer import ScoreAnswer
from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.registry import State

KINDS = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
kinds (float[N, 2] x) => (string[N] label, float[N, 3] p) { label, p = ai.onnx.ml.LinearClassifier<intercepts = [0.0, 0.0, 0.0],
 coefficients = [2.0, 0.0, 0.0, 2.0, -2.0, -2.0], classlabels_strings = ["bird", "cat", "dog"], post_transform = "SOFTMAX">(x) }
"""
VALUE = """<ir_version: 8, opset_import: ["" : 17]>
value (float[N] x) => (float[N] y) { k = Constant<value = float {1000000}>() y = Mul(x, k) }"""
ROWS = np.float32([[3, 0], [0, 3], [-3, -3]])


class Served:
    """A data plane, its HTTP routes and its gRPC server."""

    def __init__(self, folder, text, task):
        onnx.save(onnx.parser.parse_model(text), folder / "base.onnx")
        self.definition = Definition("scorer", folder / "base.onnx", task=task, corrections=[Calibration()])
        self.runtime = Runtime(self.definition)
        settings = Settings.load(home=folder / "home", grpc_port=0)
        self.runtime.start(DataPlane(self.definition, settings, registry=CollectorRegistry()))
        self.policy = Policy(self.runtime).open(self.runtime.plane.settings)

    def send(self, path, content):
        app = Guard(application([*rest.routes(self.runtime), *oip_rest.routes(self.runtime)]), self.policy)

        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                return await (client.get(path) if content is None else client.post(path, json=content))

        return asyncio.run(one())

    def teach(self, x, labels):
        ids = self.send("/score", {"columns": {"x": x}}).json()["impressions"]
        return self.send("/feedback", [{"id": f"{ids}.{at}", "label": label} for at, label in enumerate(labels)])

    def by_grpc(self, model, *tensors):
        """Infer with Triton's client; tensors are (name, datatype, array)."""

        async def asked():
            server = GrpcServer(self.runtime, "127.0.0.1", 0, 100_000, self.policy)
            await server.start()
            client = triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}")
            try:
                inputs = []
                for name, datatype, array in tensors:
                    inputs.append(triton.InferInput(name, array.shape, datatype))
                    inputs[-1].set_data_from_numpy(array)
                return await client.infer(model, inputs), await client.get_model_metadata(model, as_json=True)
            finally:
                await client.close()
                await server.stop()

        return asyncio.run(asked())

    def schema(self, name):
        made = document(self.definition, self.runtime.plane.settings)
        return {"$ref": f"#/components/schemas/{name}", "components": made["components"]}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    made = Served(tmp_path_factory.mktemp("kinds"), KINDS, "multiclass")
    yield made
    made.runtime.stop()


@pytest.fixture(scope="module")
def value(tmp_path_factory):
    made = Served(tmp_path_factory.mktemp("value"), VALUE, "regression")
    yield made
    made.runtime.stop()


def test_scores_of_classes_have_the_classes_and_the_most_probable_one_of_each_row(kinds):
    scored = kinds.send("/score", {"columns": {"x": ROWS.tolist()}}).json()
    assert (scored["classes"], scored["labels"]) == (["bird", "cat", "dog"], ["bird", "cat", "dog"])
    assert np.shape(scored["scores"]) == (3, 3)
    np.testing.assert_allclose(np.sum(scored["scores"], axis=1), 1, atol=1e-6)
    jsonschema_rs.validate(kinds.schema("ScoreResponse"), scored)


def test_a_row_without_a_score_has_no_label(kinds):
    scores = np.float32([[np.nan, np.nan, np.nan], [0.1, 0.2, 0.7]])
    assert ScoreAnswer(scores, scores, "id", State(0, 0, 0), kinds.definition.loss).labels == [None, "dog"]


def test_a_label_is_the_name_of_a_class_or_its_place(kinds):
    taken = kinds.teach(ROWS.tolist(), ["dog", 0, "cat"])
    assert (taken.status_code, taken.json()["outcomes"]) == (200, ["accepted"] * 3)
    for label in ("dog", 0, 2):
        jsonschema_rs.validate(kinds.schema("FeedbackRequest"), [{"id": "x.0", "label": label}])
    for label in ("cow", 3):
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(kinds.schema("FeedbackRequest"), [{"id": "x.0", "label": label}])


@pytest.mark.parametrize("wrong", ["cow", 3, -1, 0.5, "Dog", ""])
def test_another_label_is_refused_with_its_item_and_the_classes(kinds, wrong):
    refused = kinds.teach(ROWS.tolist(), ["dog", wrong, "cat"])
    message = refused.json()["error"]["message"]
    assert refused.status_code == 400
    assert "item 1" in message
    assert all(name in message for name in ("bird", "cat", "dog"))


def test_the_protocol_has_labels_as_bytes_and_takes_them_so_or_as_numbers(kinds):
    made, metadata = kinds.by_grpc("scorer", ("x", "FP32", ROWS))
    shapes = {one["name"]: (one["datatype"], [int(n) for n in one["shape"]]) for one in metadata["outputs"]}
    assert (shapes["score"], shapes["label"]) == (("FP32", [-1, 3]), ("BYTES", [-1]))
    assert made.as_numpy("label").tolist() == [b"bird", b"cat", b"dog"]
    assert made.as_numpy("score").shape == (3, 3)
    ids = np.array([f"{made.as_numpy('impressions')[0].decode()}.{at}".encode() for at in range(3)], object)
    for kind, labels in (("BYTES", np.array([b"dog", b"cat", b"dog"], object)), ("INT64", np.array([2, 1, 2]))):
        fed, metadata = kinds.by_grpc("scorer-feedback", ("id", "BYTES", ids), ("label", kind, labels))
        assert metadata["inputs"][1]["datatype"] == "BYTES"
        assert set(fed.as_numpy("outcome").tolist()) <= {b"accepted", b"duplicate", b"conflict"}


def test_values_of_any_size_are_served_bit_for_bit_and_their_labels_are_numbers(value):
    x = np.float32([1.5, -2e-12, 3e3])
    scored = value.send("/score", {"columns": {"x": x.tolist()}}).json()
    assert np.float32(scored["scores"]).tobytes() == (x * np.float32(1e6)).tobytes()
    assert not {"labels", "classes"} & scored.keys()
    assert value.teach(x.tolist(), [1.5e6, -3, 0]).json()["outcomes"] == ["accepted"] * 3
    refused = value.teach([1.0], ["much"])
    assert (refused.status_code, "item 0 has the label 'much'" in refused.json()["error"]["message"]) == (400, True)
    made, metadata = value.by_grpc("scorer", ("x", "FP32", x))
    assert {one["name"] for one in metadata["outputs"]} == {"score", "base_value", "impressions", "state"}
    assert made.as_numpy("base_value").tobytes() == (x * np.float32(1e6)).tobytes()
    jsonschema_rs.validate(value.schema("ScoreResponse"), scored)


def test_a_range_of_labels_is_that_of_the_documents_and_of_feedback(tmp_path):
    loss = type(loss_of("regression"))(label_range=(0, 10))
    narrow = Served(tmp_path, VALUE, loss)
    try:
        assert narrow.teach([1.0], [10.0]).json()["outcomes"] == ["accepted"]
        assert narrow.teach([1.0], [10.5]).status_code == 400
        with pytest.raises(jsonschema_rs.ValidationError):
            jsonschema_rs.validate(narrow.schema("FeedbackRequest"), [{"id": "x.0", "label": 10.5}])
    finally:
        narrow.runtime.stop()
