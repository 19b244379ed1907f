"""Requests and rows by their client's own ids: on every transport, whatever they contain."""

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

COLUMNS = {"user": [1, "ann"], "x": [0.5, 1], "shop": [0, 1]}
SEEN = iter(range(10**9))


@pytest.fixture
def fresh():
    """A request id that no other test has."""
    return f"order-{next(SEEN)}"


def score(send, **more):
    return send("POST", "/score", json={"columns": COLUMNS, **more})


def feed(send, *items):
    answer = send("POST", "/feedback", json=list(items))
    return answer.status_code, answer.json().get("outcomes") or answer.json()["error"]["message"]


def test_feedback_names_a_row_by_the_client_s_ids(send, fresh):
    first = score(send, request_id=fresh, row_ids=["sku-9", 7]).json()
    assert feed(send, {"request_id": fresh, "row_id": "sku-9", "label": 1}) == (200, ["accepted"])
    assert feed(send, {"id": f"{first['impressions']}.0", "label": 1}) == (200, ["duplicate"])
    assert feed(send, {"request_id": fresh, "row_id": "7", "label": 0}) == (200, ["accepted"])
    assert feed(send, {"request_id": fresh, "index": 1, "label": 0}) == (200, ["duplicate"])
    unknown = [
        {"request_id": fresh, "row_id": "sku"},
        {"request_id": fresh, "index": 2**40},
        {"request_id": fresh + "x", "row_id": 7},
    ]
    assert feed(send, *({**item, "label": 1} for item in unknown)) == (422, ["out_of_range", "out_of_range", "bad_id"])


def test_a_request_of_one_row_needs_no_row(send, fresh):
    send("POST", "/score", json={"columns": {"user": [1], "x": [1], "shop": [1]}, "request_id": fresh})
    assert feed(send, {"request_id": fresh, "label": 1}) == (200, ["accepted"])


@pytest.mark.parametrize(("row_ids", "how"), [(None, "index, from 0"), (["a", "b"], "row_id, as it was given in row_ids")])
def test_several_rows_need_one_that_is_meant(send, fresh, row_ids, how):
    score(send, request_id=fresh, row_ids=row_ids)
    status, said = feed(send, {"request_id": fresh, "label": 1})
    assert (status, said) == (400, f"the request '{fresh}' has 2 rows; say which one is meant: add its {how}")


def test_a_repeated_request_is_answered_as_the_first_and_another_one_is_a_conflict(send, fresh):
    first = score(send, request_id=fresh, row_ids=["a", "b"], propensity=[0.5, 1])
    again = score(send, request_id=fresh, row_ids=["a", "b"], propensity=[0.5, 1])
    assert (again.status_code, again.json()) == (200, first.json())
    others = {
        "columns": {**COLUMNS, "x": [0.5, 1.0000001]},
        "row_ids": ["b", "a"],
        "propensity": [0.5, 0.9],
    }
    for name, value in [*others.items(), ("row_ids", None), ("propensity", None)]:
        body = {"columns": COLUMNS, "request_id": fresh, "row_ids": ["a", "b"], "propensity": [0.5, 1]} | {name: value}
        answer = send("POST", "/score", json=body)
        assert answer.status_code == 409, name
        assert answer.json()["error"]["type"] == "AlreadyExists"
        assert f"the request_id '{fresh}' was given to other rows before" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"request_id": ""}, "request_id is ''; expected 1 to 128 bytes of UTF-8 without control characters"),
        ({"request_id": 7}, "request_id is a int"),
        ({"request_id": "a\0b"}, r"request_id is 'a\x00b'"),
        ({"request_id": "é" * 65}, "expected 1 to 128 bytes"),
        ({"request_id": "x" * 90_000}, "expected 1 to 128 bytes"),
        ({"row_ids": ["a", "b"]}, "row_ids are given without a request_id"),
        ({"request_id": "r", "row_ids": ["a"]}, "row_ids has 1 values; expected 2, one a row"),
        ({"request_id": "r", "row_ids": ["a", "a"]}, "row_ids has 'a' twice, at 0 and 1"),
        ({"request_id": "r", "row_ids": [7, "7"]}, "row_ids has '7' twice"),
        ({"request_id": "r", "row_ids": ["a", ""]}, "row_ids[1] is ''"),
        ({"request_id": "r", "row_ids": ["a", None]}, "row_ids[1] is null"),
        ({"request_id": "r", "row_ids": ["a", True]}, "row_ids[1] is a bool"),
        ({"request_id": "r", "row_ids": ["a", 1.5]}, "row_ids[1] is a float"),
        ({"request_id": "r", "row_ids": "ab"}, "row_ids is a str; expected a list of 2"),
    ],
)
def test_an_id_that_cannot_be_one_is_refused_by_its_name(send, more, said):
    answer = score(send, **more)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (400, True), answer.text


def test_an_impression_is_not_a_request_id(send):
    issued = score(send).json()["impressions"]
    assert "choose an id of your own" in score(send, request_id=issued).json()["error"]["message"]


def test_a_lone_surrogate_is_refused(send):
    body = b'{"columns": {"user": [1], "x": [1], "shop": [1]}, "request_id": "\\ud800"}'
    assert send("POST", "/score", content=body).status_code == 400


def test_ids_that_look_alike_are_different(send, fresh):
    alike = [fresh + text for text in ("café", "cafe\u0301", "саfé", "CAFÉ", "café ", "caf\u00e9\u200b")]
    issued = {score(send, request_id=name).json()["impressions"] for name in alike}
    assert len(issued) == len(alike)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"label": 1}, "expected an id, or a request_id"),
        ({"id": "a.0", "request_id": "a", "label": 1}, "expected an id, or a request_id"),
        ({"request_id": "a", "row_id": "b", "index": 0, "label": 1}, "expected one of row_id and index"),
        ({"id": "a.0", "row_id": "b", "label": 1}, "expected one of row_id and index, beside a request_id"),
        ({"request_id": "a", "index": -1, "label": 1}, "items[0].index"),
        ({"request_id": "a", "index": "0", "label": 1}, "items[0].index"),
        ({"request_id": "a\n", "label": 1}, "items[0].request_id is"),
        ({"request_id": "a", "row_id": "", "label": 1}, "items[0].row_id is"),
        ({"request_id": "a", "row_id": "x" * 129, "label": 1}, "items[0].row_id is"),
    ],
)
def test_an_item_that_does_not_name_a_row_is_refused_by_its_place(send, item, said):
    status, message = feed(send, item)
    assert (status, said in message) == (400, True), message


@settings(max_examples=25)
@given(
    st.text(max_size=140) | st.integers() | st.booleans() | st.none(), st.lists(st.text(max_size=4) | st.integers(), max_size=3)
)
def test_whatever_the_ids_are_the_fault_is_never_ours(send, name, rows):
    body = {"columns": {"user": [1], "x": [1], "shop": [1]}, "request_id": name, "row_ids": rows}
    try:
        sent = json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        sent = json.dumps(body).encode()
    assert send("POST", "/score", content=sent).status_code in (200, 400, 409)


def test_concurrent_requests_of_one_id_get_one_impression_or_a_conflict(runtime, fresh):
    async def race():
        columns = [
            {"user": np.array([n % 2]), "x": np.array([0.5], np.float32), "shop": np.array([1.0], np.float32)}
            for n in range(16)
        ]
        return await asyncio.gather(*(runtime.score(c, None, "rest", 0, fresh) for c in columns), return_exceptions=True)

    answers = asyncio.run(race())
    good = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len({answer.impressions for answer in good}) == 1
    assert len({answer.scores.tobytes() for answer in good}) == 1
    assert {type(answer).__name__ for answer in answers} == {"ScoreAnswer", "AlreadyExists"}
    assert len(good) == 8


def tensor(name, data, datatype="BYTES"):
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


TENSORS = [tensor("user", [1, 2], "INT64"), tensor("x", [0.5, 1], "FP32"), tensor("shop", [0, 1], "FP32")]


def infer(send, *more, model="ranker", inputs=TENSORS):
    answer = send("POST", f"/v2/models/{model}/infer", json={"inputs": [*inputs, *more]})
    outputs = {one["name"]: one["data"] for one in answer.json().get("outputs", ())}
    return answer.status_code, outputs or answer.json()["error"]


def test_the_tensors_of_a_request_name_it_and_its_rows(send, fresh):
    names = tensor("request_id", [fresh]), tensor("row_ids", [7, -8], "INT64")
    status, first = infer(send, *names)
    assert status == 200
    assert infer(send, *names) == (200, first)
    assert infer(send, names[0], tensor("row_ids", ["7", "-8"])) == (200, first)
    status, said = infer(send, names[0])
    assert (status, "was given to other rows" in said) == (409, True)
    items = tensor("request_id", [fresh] * 2), tensor("row_id", [7, 7], "INT64"), tensor("label", [1, 1], "INT64")
    assert infer(send, *items, model="ranker-feedback", inputs=())[1]["outcome"] == ["accepted", "duplicate"]
    items = tensor("request_id", [fresh] * 2), tensor("index", [0, 1], "INT64"), tensor("label", [1, 1], "INT64")
    assert infer(send, *items, model="ranker-feedback", inputs=())[1]["outcome"] == ["duplicate", "accepted"]


LABEL = tensor("label", [1], "INT64")


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("ranker", [*TENSORS, tensor("request_id", ["a", "b"])], "input 'request_id' has shape [2]; expected BYTES[1]"),
        ("ranker", [*TENSORS, tensor("request_id", [7], "INT64")], "request_id is a int"),
        ("ranker", [*TENSORS, tensor("request_id", ["a"]), tensor("row_ids", [0.5, 1], "FP32")], "row_ids[0] is a float"),
        ("ranker", [*TENSORS, tensor("request_id", ["a"]), tensor("row_ids", ["a"])], "row_ids has 1 values; expected 2"),
        ("ranker", [*TENSORS, tensor("row_ids", ["a", "b"])], "row_ids are given without a request_id"),
        (
            "ranker-feedback",
            [LABEL, tensor("request_id", [7], "INT64")],
            "input 'request_id' is INT64; expected request_id BYTES",
        ),
        ("ranker-feedback", [LABEL, tensor("row_id", ["a"])], "input 'id' is missing"),
        ("ranker-feedback", [LABEL, tensor("id", ["a.0"]), tensor("row_id", ["a"])], "the request has id and row_id"),
        (
            "ranker-feedback",
            [LABEL, tensor("request_id", ["a"]), tensor("row_id", ["a"]), tensor("index", [0], "INT64")],
            "the request has row_id and index; give one of them",
        ),
        ("ranker-feedback", [LABEL, tensor("request_id", ["a", "b"])], "request_id and label have shapes [2] and [1]"),
        ("ranker-feedback", [LABEL, tensor("request_id", ["a"]), tensor("index", [0.5], "FP32")], "index"),
        ("ranker-feedback", [LABEL, tensor("request_id", ["a"]), tensor("index", [-1], "INT64")], "index"),
    ],
)
def test_a_tensor_that_cannot_name_anything_is_refused_by_its_name(send, model, given, said):
    status, answer = infer(send, model=model, inputs=given)
    assert (status, said in answer) == (400, True), answer


def test_the_protocol_s_own_id_names_no_request(send):
    bodies = [{"id": "same", "inputs": TENSORS}] * 2
    issued = [send("POST", "/v2/models/ranker/infer", json=body).json() for body in bodies]
    assert [one["id"] for one in issued] == ["same", "same"]
    assert len({one["outputs"][2]["data"][0] for one in issued}) == 2
