"""A scorer of texts in a data plane: a function makes the base's inputs, the journal keeps what requests brought."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from riverdelta import Linear
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.oip import Oip
from riverdelta.bento.openapi import document
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Schema
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.profile import measure
from riverdelta.sidecar.rebase import LogRows, rebase

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig

LETTERS = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask) => (float[batch] logit)
<int64[1] last = {1}, float hundred = {100}, float half = {0.5}>
{
  ids = Cast<to = 1>(input_ids)
  mask = Cast<to = 1>(attention_mask)
  kept = Mul(ids, mask)
  total = ReduceSum<keepdims = 0>(kept, last)
  count = ReduceSum<keepdims = 0>(mask, last)
  scaled = Div(total, hundred)
  logit = Sub(scaled, half)
}"""


def letters(columns):
    if any(len(text) > 20 for text in columns["text"]):
        raise ValueError("a text is longer than 20 letters")
    rows = [[ord(letter) for letter in text] for text in columns["text"]]
    if rows[0][:1] == [0]:
        raise KeyError("vocabulary")
    return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}


def doubled(columns):
    made = letters(columns)
    return {**made, "input_ids": [[2 * one for one in row] for row in made["input_ids"]]}


def expected(*texts):
    return [sum(map(ord, text)) / 100 - 0.5 for text in texts]


@pytest.fixture
def definition(tmp_path):
    onnx.save(onnx.parser.parse_model(LETTERS), tmp_path / "letters.onnx")
    return Definition(
        "letters", tmp_path / "letters.onnx", "logit", taps={"length": "count"}, columns=Schema.of({"text": "string"}),
        corrections=[Linear("length")], keep_inputs=True, prepare=letters,
    )  # fmt: skip


@pytest.fixture
def rig(definition, tmp_path):
    made = Rig(definition, tmp_path / "home", max_rows=100)
    yield made
    made.close()


def test_texts_are_scored_and_the_journal_keeps_them_and_not_what_was_made(rig):
    texts = ["ab", "", "abc"]
    answer = rig.plane.score({"text": texts})
    assert answer.base == pytest.approx(expected(*texts))
    asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(3)], np.ones(3, np.float32)))
    (record,) = [r for _, r in rig.trainer.journal.read(0, 100) if isinstance(r, Impressions)]
    assert set(record.columns) == {"length", "text"}
    assert record.columns["text"].tolist() == texts
    assert record.columns["length"].tolist() == [2.0, 0.0, 3.0]
    rig.step()
    assert rig.trainer.learner.learned == 3
    spent = rig.plane.metrics._stages.series()
    assert [spent["rest", stage].seen()[0] for stage in ("prepare", "score")] == [1, 1]


def test_the_base_s_inputs_are_no_columns_of_a_request_and_limits_come_before_prepare(rig):
    with pytest.raises(InvalidInput, match="'input_ids' is not declared"):
        rig.plane.score({"text": ["a"], "input_ids": [[1]]})
    with pytest.raises(InvalidInput, match="101 rows; at most 100 rows"):
        rig.plane.score({"text": ["a" * 30] * 101})


def call(runtime, columns):
    app = Guard(application(rest.routes(runtime)), Policy(runtime).open(runtime.plane.settings))

    async def one():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.post("/score", json={"columns": columns})

    return asyncio.run(one())


def test_over_http_a_refusal_is_400_and_a_failure_500_and_both_name_prepare(rig):
    runtime = Runtime(rig.definition)
    runtime.start(rig.plane)
    said = [call(runtime, {"text": [text]}) for text in ("ab", "a" * 21, "\0")]
    assert [answer.status_code for answer in said] == [200, 400, 500]
    assert "prepare (letters) refuses these columns: a text is longer" in said[1].json()["error"]["message"]
    assert said[2].json()["error"]["type"] == "PrepareFailed"
    assert "prepare (letters) failed with KeyError" in said[2].json()["error"]["message"]


def test_without_prepare_ragged_lists_are_padded_over_http_and_axes_must_agree(definition, tmp_path):
    plain = replace(definition, prepare=None, columns=Schema(), name="tokens")
    rig = Rig(plain, tmp_path / "tokens")
    runtime = Runtime(plain)
    runtime.start(rig.plane)
    ids = [list(map(ord, text)) for text in ("ab", "abc")]
    answer = call(runtime, {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    single = [call(runtime, {"input_ids": [row], "attention_mask": [[1] * len(row)]}).json()["scores"][0] for row in ids]
    assert answer.json()["scores"] == pytest.approx(single, abs=1e-6)
    refused = call(runtime, {"input_ids": ids, "attention_mask": [[1, 1], [1, 1]]})
    assert refused.status_code == 400
    assert "'attention_mask' has 2 values along 'sequence' and 'input_ids' has 3" in refused.text
    rig.close()


def test_the_openapi_document_asks_for_the_texts_alone(definition):
    score = document(definition, Settings())["components"]["schemas"]["ScoreRequest"]["properties"]["columns"]
    assert score["required"] == ["text"]
    assert [way["items"]["type"] for way in score["properties"]["text"]["anyOf"]] == ["string", "array"]


def test_a_reference_profile_and_a_rebase_prepare_texts_as_the_service_does(rig, definition, tmp_path):
    texts = [chr(97 + i % 26) * (1 + i % 5) for i in range(1_100)]
    labels = np.arange(1_100) % 2
    profile = measure(definition, {"text": texts}, labels.astype(np.float32))
    assert profile is not None
    for at in range(4):
        answer = rig.plane.score({"text": texts[at * 8 : at * 8 + 8]})
        asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(8)], np.ones(8, np.float32)))
    rig.step()
    rig.close()
    changed = replace(definition, prepare=doubled)
    settings = rig.settings.model_copy(update={"home": tmp_path / "new"})
    done = rebase(changed, settings, tmp_path / "home" / "letters")
    assert (done.new_base, done.learned, done.unusable) == (True, 32, 0)
    log = [LogRows({"text": texts}, labels.astype(np.float32), np.arange(1_100.0))]
    done = rebase(changed, settings.model_copy(update={"home": tmp_path / "log"}), tmp_path / "home" / "letters", log)
    assert done.log_rows == 1_100
    rig.close = lambda: None


def test_over_the_open_inference_protocol_texts_are_bytes_and_tokens_have_two_open_axes(rig, definition):
    runtime = Runtime(rig.definition)
    runtime.start(rig.plane)
    app = Guard(application([*rest.routes(runtime), *oip_rest.routes(runtime)]), Policy(runtime).open(rig.plane.settings))

    async def both():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["ab", "Zoë"]}
            scored = await client.post("/v2/models/letters/infer", json={"inputs": [text]})
            return (await client.get("/v2/models/letters")).json()["inputs"], scored.json()["outputs"]

    inputs, outputs = asyncio.run(both())
    assert inputs == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    base = next(tensor["data"] for tensor in outputs if tensor["name"] == "base_logit")
    assert base == pytest.approx(expected("ab", "Zoë"))
    plain = Runtime(replace(definition, prepare=None, columns=Schema()))
    assert [tensor["shape"] for tensor in Oip(plain).model("letters")["inputs"]] == [[-1, -1], [-1, -1]]
