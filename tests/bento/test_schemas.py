"""Schemas: what the service parses by itself is what they say, and an unknown key is refused wherever it stands."""

import copy
import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from riverdelta.bento.openapi import document
from riverdelta.bento.schemas import FeedbackRequest, ScoreRequest
from riverdelta.core.errors import InvalidInput
from riverdelta.serving.oip.messages import MESSAGES, parse

INFER = "/v2/models/ranker/infer"
SCORE = {"columns": {"user": [1, 2], "x": [0.5, 1], "shop": [0, 1]}}
ITEM = {"id": "a.0", "label": 1}
TENSOR = {"name": "user", "datatype": "INT64", "shape": [1], "data": [1]}
INPUTS = {"inputs": [TENSOR]}

PROPENSITY = st.sampled_from([None, [0.5, 1], [0, 1], [], 1, "1"])
UNKNOWN = {
    "/score": ("/score", {**SCORE, "propensty": [1, 1]}, "'propensty': did you mean propensity? Allowed: columns"),
    "/feedback": ("/feedback", {"items": [ITEM], "item": []}, "'item': did you mean items? Allowed: items"),
    "an item's weight": (
        "/feedback",
        [ITEM, {**ITEM, "wieght": 2}],
        "the body (items[1]) has 'wieght': did you mean weight? Allowed: id, label, shown, request_id",
    ),
    "an item's time": ("/feedback", {"items": [{**ITEM, "when": 1.5}]}, "(items[0]) has 'when'; allowed: id, label, shown"),
    "an item's slip": ("/feedback", [{"id": "a.0", "lable": 1}], "(items[0]) has 'lable': did you mean label?"),
    "the query of a body": ("/score?propensity=1", SCORE, "the query has 'propensity'; allowed: nothing"),
    "the query of feedback": ("/feedback?weight=2", [ITEM], "the query has 'weight'; allowed: nothing"),
    "the query of an inference": (f"{INFER}?timeout=2", INPUTS, "the query has 'timeout'; allowed: nothing"),
    "an inference": (
        INFER,
        {**INPUTS, "output": []},
        "'output': did you mean outputs? Allowed: id, parameters",
    ),
    "an inference without inputs": (INFER, {"inptus": []}, "the request's JSON has 'inptus': did you mean inputs?"),
    "a parameter": (
        INFER,
        {**INPUTS, "parameters": {"delta": 1}},
        "(parameters) has 'delta'; allowed: priority, timeout, binary_data_output",
    ),
    "a sequence": (
        INFER,
        {**INPUTS, "parameters": {"sequence_id": 1, "sequence_start": True}},
        "expected no 'sequence_id', because no request depends on an earlier one",
    ),
    "a tensor": (INFER, {"inputs": [{**TENSOR, "dtype": "x"}]}, "(inputs[0]) has 'dtype': did you mean datatype"),
    "a tensor's parameter": (
        INFER,
        {"inputs": [{**TENSOR, "parameters": {"binary_size": 1}}]},
        "(inputs[0].parameters) has 'binary_size': did you mean binary_data_size? Allowed: binary_data_size",
    ),
    "classification": (
        INFER,
        {**INPUTS, "outputs": [{"name": "score", "parameters": {"classification": 3}}]},
        "(outputs[0].parameters) has 'classification'; allowed: binary_data",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_key_is_refused_by_its_name_with_the_near_one_and_those_allowed(send, name):
    path, body, said = UNKNOWN[name]
    answer = send("POST", path, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in (error if isinstance(error, str) else error["message"])


NUMBERS = {
    "an item's id": ("/feedback", [{"id": 5, "label": 1}], "id"),
    "the id of an inference": (INFER, {**INPUTS, "id": 5}, "id"),
    "ids of feedback that are integers": (
        "/v2/models/ranker-feedback/infer",
        {
            "inputs": [
                {"name": "id", "datatype": "INT64", "shape": [1], "data": [5]},
                {"name": "label", "datatype": "FP32", "shape": [1], "data": [1]},
            ]
        },
        "BYTES",
    ),
    "class_count": (INFER, {**INPUTS, "outputs": [{"name": "score", "class_count": 3}]}, "has 'class_count'"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_an_id_that_is_a_number_and_a_class_count_are_refused_by_name(send, name):
    path, body, said = NUMBERS[name]
    answer = send("POST", path, json=body)
    assert answer.status_code == 400
    assert said in str(answer.json()["error"])


@pytest.mark.parametrize("path", ["/status", "/openapi.json", "/v2", "/v2/models/ranker", "/v2/health/live"])
def test_what_takes_no_query_refuses_one(send, path):
    assert send("GET", path).status_code == 200
    assert send("GET", f"{path}?verbose=1").status_code == 400


def test_a_label_is_not_shown_in_another_way_than_true(send):
    for shown, said in (
        (False, 'expected a label, or "shown": true'),
        ("yes", "shown is 'yes'; expected true"),
        (1, "shown is 1"),
    ):
        answer = send("POST", "/feedback", json=[{**ITEM, "shown": shown}])
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
    assert send("POST", "/feedback", json=[{**ITEM, "shown": True}]).json()["outcomes"] == ["bad_id"]


def test_a_message_with_a_field_that_the_protocol_lacks_is_refused_at_any_depth():
    tensor = MESSAGES["InferInputTensor"](name="x").SerializeToString()
    strange = b"\xf8\x07\x01"  # field 127
    for data in (strange, b"\x2a" + bytes([len(tensor + strange)]) + tensor + strange):
        with pytest.raises(InvalidInput, match=r"inference\.ModelInferRequest has 3 bytes of fields"):
            parse(MESSAGES["ModelInferRequest"], data)


SCALARS = st.none() | st.booleans() | st.integers(-1, 2) | st.just(0.5) | st.sampled_from(["a.0", "", "1"])
ODD = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.sampled_from(["id", "x"]), SCALARS, max_size=2)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.just("a.0") | ODD,
            "label": st.sampled_from([0, 1, None]) | ODD,
            "shown": st.just(True) | ODD,
            "weight": ODD,
            "time": st.none(),
        },
    )
    | ODD,
    max_size=3,
)  # fmt: skip
BODIES = ITEMS | st.fixed_dictionaries({}, optional={"items": ITEMS | ODD, "item": ODD}) | ODD


@settings(max_examples=300)
@given(BODIES)
def test_feedback_is_taken_where_its_model_takes_it(send, definition, body):
    try:
        asked = FeedbackRequest.model_validate(body).root
        items = asked if isinstance(asked, list) else asked.items
        fits = all(item.label in (None, *definition.loss.labels) for item in items)
        fits &= all(item.weight in (None, 1) if item.label is None else (item.weight or 0) >= 0 for item in items)
    except ValidationError:
        fits = False
    answer = send("POST", "/feedback", content=json.dumps(body))
    assert answer.status_code == (422 if fits else 400), answer.text
    if fits:
        assert set(answer.json()["outcomes"]) == {"bad_id"}


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(["user", "x", "shop", "y"]), st.just([1, 2]) | st.lists(st.integers(0, 2) | st.booleans(), max_size=2)
    ),
    st.fixed_dictionaries({}, optional={"propensity": PROPENSITY, "columns": ODD, "x": ODD}),
)
def test_rows_are_scored_where_the_schema_of_the_scorer_takes_them(send, runtime, columns, more):
    body = {"columns": columns, **more}
    described = document(runtime.definition, runtime.plane.settings)["components"]
    fits = jsonschema_rs.is_valid({**described["schemas"]["ScoreRequest"], "components": described}, body)
    lengths = {len(rows) for rows in body["columns"].values()} if fits else set()
    lengths |= {len(body["propensity"])} if fits and body.get("propensity") else set()
    # That all columns are of one length is beyond a JSON schema.
    answer = send("POST", "/score", content=json.dumps(body))
    assert answer.status_code == (200 if fits and len(lengths) == 1 else 400), answer.text
    if answer.status_code == 200:
        ScoreRequest.model_validate(copy.deepcopy(body))
