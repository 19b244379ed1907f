"""Strings as ids: in a column [N, 1], as a named part of one, and as what `prepare` makes; shown, forgotten and rebased."""

import asyncio
from dataclasses import replace

import numpy as np
import onnx
import pytest

from riverdelta import Calibration, Linear
from riverdelta.core.errors import AlreadyExists
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.records import Impressions
from riverdelta.learning.commands import COMMANDS
from riverdelta.learning.definition import Definition
from riverdelta.serving.profile import measure
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.rebase import LogRows, rebase
from riverdelta.storage.home import Home
from riverdelta.storage.impression import find

SHOPS = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
shops (string[N, 1] city, string[N, 2] X, float[N, 2] F, int32[N, 1] shop) => (float[N] logit) <int64[1] one = {1}> {
  cities = ai.onnx.ml.LabelEncoder<keys_strings = ["rome", "oslo"], values_floats = [0.5, 1.0]>(city)
  kinds = ai.onnx.ml.LabelEncoder<keys_strings = ["red"], values_floats = [0.25]>(X)
  shops = Cast<to = 1>(shop)
  a = ReduceSum<keepdims = 0>(cities, one)
  b = ReduceSum<keepdims = 0>(kinds, one)
  c = ReduceSum<keepdims = 0>(F, one)
  d = ReduceSum<keepdims = 0>(shops, one)
  logit = Sum(a, b, c, d)
}"""
NAMES = {"X": ["kind", "brand"], "F": ["age", "income"]}
SENT = {"city": [["paris"], ["rome"], ["10115"]], "X": [["red", "acme"], ["blue", "bolt"], ["red", "core"]]}
SENT |= {"F": [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5]], "shop": [[3], [4], [5]], "user": [7, 8, 9]}
PARTS = {"city": ["paris", "rome", "10115"], "kind": ["red", "blue", "red"], "brand": ["acme", "bolt", "core"]}
PARTS |= {"age": [1, 2, 3], "income": [0.5, 0.5, 0.5], "shop": [3, 4, 5], "user": [7, 8, 9]}
BROUGHT = {name: PARTS[name] for name in ("kind", "brand", "shop", "user")}


def where(columns):
    return {"city": np.where(columns["user"] % 2 == 0, "rome", "oslo").astype(object), "F": [[1, 2]] * len(columns["user"])}


def elsewhere(columns):
    return {"city": np.where(columns["user"] % 2 == 0, "oslo", "paris").astype(object), "F": [[3, 2]] * len(columns["user"])}


@pytest.fixture
def shops(tmp_path):
    onnx.save(onnx.parser.parse_model(SHOPS), tmp_path / "shops.onnx")

    def make(*reads, **more):
        columns = Schema.of({"user": "int64"} | ({"kind": "int64", "shop": "int64"} if "prepare" in more else {}))
        corrections = [Calibration(), Linear(*reads)]
        return Definition(
            "shops", tmp_path / "shops.onnx", "logit", names=NAMES, columns=columns, corrections=corrections, **more
        )

    return make


def teach(rig, columns):
    answer = rig.plane.score(columns)
    asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(3)], np.array([1, 0, 0], np.float32)))
    rig.step()
    return answer


def test_an_impression_shows_strings_however_they_were_sent_and_what_was_prepared(shops, make_rig, tmp_path):
    for at, (given, more) in enumerate(((SENT, {}), (PARTS, {}), (BROUGHT, {"prepare": where}))):
        rig = make_rig(shops("city", "brand", "kind", "user", **more), tmp_path / str(at))
        answer = teach(rig, given)
        found = find(rig.trainer.home, f"{answer.impressions}.1")["columns"]
        assert found == {"city": "rome", "brand": "bolt", "kind": "blue", "user": 8}


def test_the_content_of_a_named_request_is_what_it_brought(shops, make_rig, tmp_path):
    rig = make_rig(shops("city", "age", prepare=where, keep_inputs=True), tmp_path / "home")
    whole = {**{n: v for n, v in BROUGHT.items() if n in ("user", "shop")}, "X": SENT["X"]}
    first, again = rig.plane.score(BROUGHT, request_id="order"), rig.plane.score(whole, request_id="order")
    assert first.impressions == again.impressions
    with pytest.raises(AlreadyExists):
        rig.plane.score({**BROUGHT, "brand": ["other"] * 3}, request_id="order")


@pytest.mark.parametrize("what", ["city=10115", "brand=core", "shop=5"])
@pytest.mark.parametrize("reads", ["user", "same"])
def test_what_was_kept_as_it_was_sent_is_forgotten_by_the_id_that_it_would_be(shops, make_rig, tmp_path, what, reads):
    reads = what.partition("=")[0] if reads == "same" else reads
    rig = make_rig(shops(reads, keep_inputs=True), tmp_path / "home")
    operator = Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now)
    for sent in (SENT, PARTS):
        teach(rig, sent)
    sequence = operator.ask(COMMANDS["forget"](what=what))
    rig.step()
    rig.step()
    assert rig.trainer.learner.outcomes.of(sequence).removed["rows"] == 2
    kept = [path.name for path in tmp_path.joinpath("home").rglob("*") if path.is_file() and b"10115" in path.read_bytes()]
    assert kept == []


def test_a_profile_and_a_rebase_make_again_what_was_prepared(shops, make_rig, tmp_path):
    definition = shops("city", "age", "kind", prepare=where, keep_inputs=True)
    labels = np.tile(np.array([1, 0, 0], np.float32), 400)
    many = {name: values * 400 for name, values in BROUGHT.items()}
    assert measure(definition, many, labels) is not None
    rig = make_rig(definition, tmp_path / "home")
    teach(rig, BROUGHT)
    rig.close()
    log = [LogRows(many, labels, np.arange(1_200.0))]
    for at, new in enumerate((replace(definition, prepare=elsewhere), shops("income", prepare=where, keep_inputs=True))):
        settings = rig.settings.model_copy(update={"home": tmp_path / f"new{at}"})
        assert rebase(new, settings, tmp_path / "home" / "shops").learned == 3
        reader = Home(new, settings).reader()
        (record,) = (record for _, record in reader.read(0, 100) if isinstance(record, Impressions))
        reader.close()
        if at:
            assert record.columns["income"].tolist() == [2, 2, 2]
        else:
            assert record.columns["city"].tolist() == [*map(id64, ("paris", "oslo", "paris"))]
            assert record.columns["age"].tolist() == [3, 3, 3]
        assert rebase(
            new, settings.model_copy(update={"home": tmp_path / f"log{at}"}), tmp_path / "home" / "shops", log
        ).log_rows
    rig.close = lambda: None
