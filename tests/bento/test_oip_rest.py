"""Open Inference Protocol over HTTP: hostile tensors, and the answers in JSON and in bytes."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

INFER = "/v2/models/ranker/infer"
HEADER = "inference-header-content-length"
GOOD = [
    {"name": "user", "datatype": "BYTES", "shape": [2], "data": ["ann", "bob"]},
    {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [[0.5], [1]]},
    {"name": "shop", "datatype": "FP64", "shape": [2], "data": [0, 1]},
]


def test_json_in_and_out(send):
    body = send("POST", INFER, json={"id": "7", "inputs": GOOD}).json()
    assert (body["model_name"], body["id"]) == ("ranker", "7")
    assert {o["name"]: (o["datatype"], o["shape"]) for o in body["outputs"]} == {
        "score": ("FP32", [2]),
        "base_logit": ("FP32", [2]),
        "impressions": ("BYTES", [1]),
        "state": ("BYTES", [1]),
    }


def test_bytes_in_and_out_are_the_same_scores(send):
    arrays = {"user": np.array([1, 2]), "x": np.array([0.5, 1], np.float32), "shop": np.zeros(2, np.float32)}
    kinds = {"user": "INT64", "x": "FP32", "shop": "FP32"}
    inputs = [
        {"name": n, "datatype": kinds[n], "shape": [2], "parameters": {"binary_data_size": a.nbytes}} for n, a in arrays.items()
    ]
    outputs = [{"name": "score"}, {"name": "state", "parameters": {"binary_data": False}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(a.tobytes() for a in arrays.values())
    answer = send("POST", INFER, content=body, headers={HEADER: str(len(head))})
    split = int(answer.headers[HEADER])
    described = json.loads(answer.content[:split])["outputs"]
    assert described[0]["parameters"] == {"binary_data_size": 8}
    assert described[1]["data"] == ["0+0"]
    plain = send("POST", "/score", json={"columns": {n: a.tolist() for n, a in arrays.items()}}).json()
    assert np.allclose(np.frombuffer(answer.content[split:], "<f4"), plain["scores"])


def test_the_model_that_takes_feedback(send, registry):
    impressions = send("POST", INFER, json={"inputs": GOOD, "outputs": [{"name": "impressions"}]}).json()["outputs"][0]["data"]
    inputs = [
        {"name": "id", "datatype": "BYTES", "shape": [1], "data": [f"{impressions[0]}.1"]},
        {"name": "label", "datatype": "FP32", "shape": [1], "data": [1]},
    ]
    answer = send("POST", "/v2/models/ranker-feedback/versions/1/infer", json={"inputs": inputs})
    assert answer.json()["outputs"][0]["data"] == ["accepted"]
    refused = "riverdelta_feedback_refused_total", {"model": "ranker", "reason": "invalid"}
    before = registry.get_sample_value(*refused)
    assert send("POST", "/v2/models/ranker-feedback/infer", json={"inputs": inputs[:1]}).status_code == 400
    assert registry.get_sample_value(*refused) == before + 1


@pytest.mark.parametrize(
    "more", [{"parameters": {}}, {"parameters": None}, {"outputs": None}, {"parameters": {"priority": 1, "timeout": 5}}]
)
def test_null_counts_as_absent_and_hints_change_nothing(send, more):
    plain = send("POST", INFER, json={"inputs": GOOD}).json()["outputs"]
    answer = send("POST", INFER, json={"inputs": [{**tensor, "parameters": None} for tensor in GOOD], **more})
    assert answer.json()["outputs"][0] == plain[0]
    assert len(answer.json()["outputs"]) == len(plain)


LABELS = st.sampled_from(["BOOL", "INT8", "INT32", "INT64", "UINT8", "UINT64", "FP16", "FP32", "FP64"])


def fed(send, **changed):
    tensors = {
        "id": {"datatype": "BYTES", "shape": [1], "data": ["a.0"]},
        "label": {"datatype": "FP32", "shape": [1], "data": [1]},
        **changed,
    }
    inputs = [{"name": name, **tensor} for name, tensor in tensors.items() if tensor]
    return send("POST", "/v2/models/ranker-feedback/infer", json={"inputs": inputs})


@settings(max_examples=30, deadline=None)
@given(LABELS, st.integers(0, 1), st.booleans())
def test_a_label_of_any_numeric_datatype_is_taken(send, datatype, label, wide):
    data = bool(label) if datatype == "BOOL" else label
    answer = fed(send, label={"datatype": datatype, "shape": [1, 1] if wide else [1], "data": [data]})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("no item is accepted, and nothing is stored: 1 bad_id;")


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "INT32"])
@pytest.mark.parametrize("wide", [False, True])
def test_weights_and_times_are_taken_as_named_tensors(send, datatype, wide):
    shape = [1, 1] if wide else [1]
    weight = {"datatype": datatype, "shape": shape, "data": [2]}
    answer = fed(send, weight=weight, time={"datatype": "FP64", "shape": shape, "data": [1.7e9 + 0.25]})
    assert answer.status_code == 422, "as for any id that is not one"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"label": {"datatype": "BYTES", "shape": [1], "data": ["1"]}}, "input 'label' is BYTES; expected id BYTES[M] and"),
        ({"id": {"datatype": "INT64", "shape": [1], "data": [1]}}, "input 'id' is INT64; expected id BYTES[M] and"),
        ({"label": {"datatype": "INT64", "shape": [1], "data": [2**24 + 1]}}, "'label' has 16777217, which FP32 cannot hold"),
        ({"label": {"datatype": "INT64", "shape": [1], "data": [2]}}, "item 0 has the label 2; expected 0 or 1"),
        ({"label": {"datatype": "BOOL", "shape": [1, 2], "data": [True, True]}}, "shapes [1] and [1, 2]; expected [M] each"),
        (
            {name: {"datatype": kind, "shape": [0], "data": []} for name, kind in (("id", "BYTES"), ("label", "FP32"))},
            "id and label have no values; expected id BYTES[M] and label FP32[M]",
        ),
        ({"label": None}, "input 'label' is missing; expected id BYTES[M] and"),
        ({"weight": {"datatype": "FP64", "shape": [1], "data": [100.1]}}, "has the weight 100.1; expected 0 to 100: divide"),
        ({"weight": {"datatype": "BYTES", "shape": [1], "data": ["1"]}}, "input 'weight' is BYTES; expected id BYTES[M]"),
        ({"weight": {"datatype": "BOOL", "shape": [1], "data": [True]}}, "weight is bool[1]; expected 1 numbers, one an item"),
        ({"weight": {"datatype": "FP32", "shape": [2], "data": [1, 1]}}, "weight is float32[2]; expected 1 numbers"),
        ({"time": {"datatype": "FP32", "shape": [1], "data": [1.7e9]}}, "'time' is FP32, which cannot hold Unix seconds"),
        ({"time": {"datatype": "FP64", "shape": [1], "data": [1.7e12]}}, "in milliseconds: write t / 1000"),
        ({"time": {"datatype": "INT64", "shape": [1], "data": [-5]}}, "item 0 has the time -5; expected Unix seconds from"),
        (
            {"label": None, "lable": {"datatype": "INT64", "shape": [1], "data": [1]}},
            "(inputs) has 'lable': did you mean label?",
        ),
    ],
)
def test_feedback_that_is_not_ids_and_numbers_is_refused_by_its_input(send, changed, said):
    answer = fed(send, **changed)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


HOSTILE = {
    "a tensor without axes": ({"datatype": "INT64", "shape": [], "data": [5]}, "is missing|shape"),
    "a number as BYTES": ({"datatype": "BYTES", "shape": [1], "data": [4_000_000_000]}, "int as element 0; BYTES are strings"),
    "data nested 900 deep": ({"datatype": "FP32", "shape": [1], "data": "DEEP"}, "not FP32|nested"),
    "lists beside values": ({"datatype": "FP32", "shape": [2], "data": [[1], 1]}, "mixes lists and values"),
    "text as FP32": ({"datatype": "FP32", "shape": [1], "data": ["1.5"]}, "expected FP32"),
    "null as FP32": ({"datatype": "FP32", "shape": [1], "data": [None]}, "null among its values; expected FP32"),
    "null as BYTES": ({"datatype": "BYTES", "shape": [1], "data": [None]}, "has null as element 0"),
    "true as INT64": ({"datatype": "INT64", "shape": [1], "data": [True]}, "expected INT64"),
    "a fraction as INT64": ({"datatype": "INT64", "shape": [1], "data": [1.5]}, "expected INT64"),
    "300 as UINT8": ({"datatype": "UINT8", "shape": [1], "data": [300]}, "expected UINT8"),
    "data beyond an empty shape": ({"datatype": "FP32", "shape": [0], "data": [1]}, "1 values; its shape"),
    "a shape of 2,000 axes": ({"datatype": "FP32", "shape": [1] * 2_000, "data": [1]}, "has 2000 axes; expected at most 8"),
    "a shape of truth": ({"datatype": "FP32", "shape": [True], "data": [1]}, "shape[0] is True; expected an integer"),
    "no data": ({"datatype": "FP32", "shape": [1]}, "has data that is null; expected a list"),
    "a size that is true": (
        {"datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": True}},
        "binary_data_size is True; expected an integer",
    ),
    "parameters that are a list": (
        {"datatype": "FP32", "shape": [1], "data": [1], "parameters": []},
        "parameters is []; expected an object with binary_data_size",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tensor_is_refused_in_few_words(send, name):
    entry, message = HOSTILE[name]
    body = json.dumps({"inputs": [{"name": "user", **entry}]}).replace('"DEEP"', "[" * 900 + "1" + "]" * 900)
    answer = send("POST", INFER, content=body)
    assert answer.status_code == 400, answer.text
    assert any(part in answer.json()["error"] for part in message.split("|")), answer.text
    assert len(answer.text) < 1_000


def test_a_header_length_of_5000_digits_is_refused(send):
    answer = send("POST", INFER, content=b"{}", headers={HEADER: "9" * 5_000})
    assert answer.status_code == 400
    assert HEADER in answer.json()["error"]


def test_strings_that_are_not_utf8_are_refused_by_their_tensor(send):
    raw = struct.pack("<I", 1) + b"\xff"
    inputs = [{"name": "user", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}]
    head = json.dumps({"inputs": inputs}).encode()
    answer = send("POST", INFER, content=head + raw, headers={HEADER: str(len(head))})
    assert answer.status_code == 400
    assert "'user' contains bytes that are not UTF-8" in answer.json()["error"]


values = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
data = st.recursive(values, lambda c: st.lists(c, max_size=4), max_leaves=12)
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(["user", "x", "shop"]), "datatype": st.sampled_from(["INT64", "FP32", "BYTES", "BOOL", "FP16"])},
    optional={"shape": data, "data": data, "parameters": st.dictionaries(st.just("binary_data_size"), values)},
)


@settings(max_examples=200)
@given(st.lists(entries, max_size=3), st.binary(max_size=20), st.integers(-3, 3))
def test_no_request_brings_the_scorer_down(send, inputs, tail, off):
    head = json.dumps({"inputs": inputs}).encode()
    answer = send("POST", INFER, content=head + tail, headers={HEADER: str(len(head) + off)})
    assert answer.status_code in (200, 400, 413), answer.text
