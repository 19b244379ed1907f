"""A scorer of three classes and one of values: what /score, /feedback, the protocol and the documents say of them."""

import asyncio
import json
import re
import time
from contextlib import closing
from pathlib import Path

import httpx
import jsonschema_rs
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from prometheus_client import CollectorRegistry
from tritonclient.utils import InferenceServerException

from riverdelta import Calibration, Entity, Linear, Ranking, Seasons
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.openapi import document
from riverdelta.bento.runtime import Runtime
from riverdelta.core.losses import loss_of
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.answer import ScoreAnswer
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.registry import State

KINDS = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
kinds (float[N, 2] x) => (string[N] label, float[N, 3] p) { label, p = ai.onnx.ml.LinearClassifier<intercepts = [0.0, 0.0, 0.0],
 coefficients = [2.0, 0.0, 0.0, 2.0, -2.0, -2.0], classlabels_strings = ["bird", "cat", "dog"], post_transform = "SOFTMAX">(x) }
"""
SHOP = """<ir_version: 8, opset_import: ["" : 17]>
shop (int64[N] user_id, int64[N] item_id) => (float[N] y) {
 zero = Constant<value = float {0}>() x = Cast<to = 1>(item_id) y = Mul(x, zero) }"""
VALUE = """<ir_version: 8, opset_import: ["" : 17]>
value (float[N] x) => (float[N] y) { k = Constant<value = float {1000000}>() y = Mul(x, k) }"""
ROWS = np.float32([[3, 0], [0, 3], [-3, -3]])


class Served:
    """A data plane, its HTTP routes and its gRPC server."""

    def __init__(self, folder, text, task, *corrections, **more):
        onnx.save(onnx.parser.parse_model(text), folder / "base.onnx")
        self.definition = Definition("scorer", folder / "base.onnx", task=task, corrections=corrections, **more)
        self.runtime = Runtime(self.definition)
        window = {"window_seconds": 60.0} if self.definition.loss.lists else {}
        self.settings = Settings.load(home=folder / "home", grpc_port=0, **window)
        self.runtime.start(DataPlane(self.definition, self.settings, registry=CollectorRegistry()))
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
    made = Served(tmp_path_factory.mktemp("kinds"), KINDS, "multiclass", Calibration())
    yield made
    made.runtime.stop()


@pytest.fixture(scope="module")
def value(tmp_path_factory):
    made = Served(tmp_path_factory.mktemp("value"), VALUE, "regression", Calibration())
    yield made
    made.runtime.stop()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    corrections = Entity("item_id", slots=64), Linear("user_id", "item_id", slots=64)
    made = Served(tmp_path_factory.mktemp("shop"), SHOP, Ranking(positions=4), *corrections, output="y", link="identity")
    yield made
    made.runtime.stop()


def learned(served):
    """Learn what was sent; return what the status says of lists."""
    with closing(Trainer(served.definition, served.settings)) as trainer:
        while trainer.step():
            pass
        return trainer.status()["lists"]


def bodies(document):
    """The path and the body of each request with curl in a document."""
    text = (Path(__file__).parents[2] / "docs" / document).read_text()
    return re.findall(r"curl -s localhost:3000(/\S+) -d '([^']*)'", text)


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


@pytest.mark.parametrize("wrong", ["cow", 3, -1, 0.5, "Dog", "", True])
def test_another_label_is_refused_with_its_item_and_the_classes(kinds, wrong):
    refused = kinds.teach(ROWS.tolist(), ["dog", wrong, "cat"])
    message = refused.json()["error"]["message"]
    assert refused.status_code == 400
    assert "item 1" in message
    assert all(name in message for name in ("bird", "cat", "dog", "a place from 0 to 2"))


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
    for wrong in ("much", True):
        refused = value.teach([1.0, 2.0], [4, wrong])
        assert (refused.status_code, f"item 1 has the label {wrong!r}" in refused.json()["error"]["message"]) == (400, True)
    made, metadata = value.by_grpc("scorer", ("x", "FP32", x))
    assert {one["name"] for one in metadata["outputs"]} == {"score", "base_value", "impressions", "state"}
    assert made.as_numpy("base_value").tobytes() == (x * np.float32(1e6)).tobytes()
    jsonschema_rs.validate(value.schema("ScoreResponse"), scored)


def test_a_request_of_the_protocol_without_the_time_column_has_the_servers_time_over_both_transports(tmp_path):
    timed = Served(tmp_path, VALUE, "regression", Linear(Seasons("at", "day")))
    try:
        x, at = np.float32([1.0, 2.0]), np.array([1_800_000_000.0, 1_800_003_600.5])
        before = time.time()
        _, metadata = timed.by_grpc("scorer", ("x", "FP32", x))
        timed.by_grpc("scorer", ("x", "FP32", x), ("at", "FP64", at))
        inputs = [{"name": "x", "shape": [2], "datatype": "FP32", "data": x.tolist()}]
        sent = {"name": "at", "shape": [2], "datatype": "FP64", "data": at.tolist()}
        for content in (inputs, [*inputs, sent]):
            assert timed.send("/v2/models/scorer/infer", {"inputs": content}).status_code == 200
        refused = timed.send("/v2/models/scorer/infer", {"inputs": [sent]})
        assert (refused.status_code, "x" in refused.json()["error"]) == (400, True)
        assert [one["name"] for one in metadata["inputs"]] == ["x"]  # what a client must send
        with closing(Trainer(timed.definition, timed.settings)) as trainer:
            while trainer.step():
                pass
            records = [record for _, record in trainer.journal.read(0, 100) if isinstance(record, Impressions)]
        times = np.concatenate([record.columns["at"] for record in records]).reshape(-1, 2)
        assert (times[[1, 3]] == at).all()
        assert ((before <= times[[0, 2]]) & (times[[0, 2]] <= time.time())).all()
    finally:
        timed.runtime.stop()


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


def test_the_requests_in_the_document_about_ranking_teach_one_list_of_the_rows_that_were_shown(shop):
    (path, score), *feedback = bodies("ranking.md")
    scored = shop.send(path, json.loads(score)).json()
    assert sum(scored["scores"]) == pytest.approx(1, abs=1e-6)
    outcomes = []
    for path, body in feedback:
        asked = json.loads(body.replace("<impressions>", scored["impressions"]))
        jsonschema_rs.validate(shop.schema("FeedbackRequest"), asked)
        outcomes += shop.send(path, asked).json()["outcomes"]
    assert outcomes == ["accepted"] * 5
    lists = learned(shop)
    assert (lists["lists"], lists["items"], lists["examination"]["lists"]) == (1, 0, 1)


def test_a_list_is_fed_back_over_the_protocol_and_each_of_its_tensors_is_checked(shop):
    item = np.arange(3)
    before = learned(shop)["lists"]
    made, _ = shop.by_grpc("scorer", ("user_id", "INT64", item), ("item_id", "INT64", item))
    ids = np.array([f"{made.as_numpy('impressions')[0].decode()}.{at}".encode() for at in item], object)
    label, propensity, position = np.float32([np.nan, 1, np.nan]), np.float32([1, 0.5, np.nan]), np.array([1, 0, 2])
    rows = ("id", "BYTES", ids), ("label", "FP32", label)
    for wrong, message in (
        (("propensity", "FP32", np.float32([1, 0, 1])), "item 1 has the propensity 0"),
        (("position", "INT64", np.array([0, 1, -1])), "item 2 has the position -1"),
        (("complete", "BOOL", np.array([True, False])), r"'complete' (is|has shape).*\[2\]|expected BOOL\[1\]"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            shop.by_grpc("scorer-feedback", *rows, wrong)
    extra = ("propensity", "FP32", propensity), ("position", "INT64", position), ("complete", "BOOL", np.array([True]))
    fed, metadata = shop.by_grpc("scorer-feedback", *rows, *extra)
    assert fed.as_numpy("outcome").tolist() == [b"accepted"] * 3
    assert {"propensity", "position", "complete"} <= {tensor["name"] for tensor in metadata["inputs"]}
    assert learned(shop)["lists"] == before + 1


def test_a_request_with_several_lists_is_refused_and_what_to_send_is_said(shop):
    item = np.arange(4)
    columns = ("user_id", "INT64", item), ("item_id", "INT64", item)
    with pytest.raises(InferenceServerException, match="a request is one list: send one request for each list"):
        shop.by_grpc("scorer", *columns, ("group", "INT64", np.array([0, 0, 1, 1])))


def test_what_belongs_to_lists_is_refused_by_a_scorer_without_them(value):
    scored = value.send("/score", {"columns": {"x": [1.0]}}).json()["impressions"]
    for more in ({"propensity": 0.5}, {"position": 0}):
        refused = value.send("/feedback", [{"id": f"{scored}.0", "label": 1.0, **more}])
        assert (refused.status_code, "ranks no lists" in refused.text) == (400, True)
