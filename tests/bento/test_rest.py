"""REST: what is answered, and that whatever is sent, the fault is never ours."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Unavailable

COLUMNS = {"user": [1, "ann"], "x": [0.5, 1], "shop": [0, 1]}


def test_a_score_names_its_impressions_and_its_state_and_takes_feedback(send):
    body = send("POST", "/score", json={"columns": COLUMNS, "propensity": [0.5, 1]}).json()
    assert set(body) == {"scores", "impressions", "state"}
    items = [{"id": f"{body['impressions']}.0", "label": True}, {"id": f"{body['impressions']}.1", "shown": True}]
    answer = send("POST", "/feedback", json={"items": items}).json()
    assert answer["outcomes"] == ["accepted", "accepted"]
    assert answer["position"] > 0
    assert send("POST", "/feedback", json=items).json()["outcomes"][0] == "duplicate"


def test_a_label_may_have_a_weight_and_the_time_of_its_event(send):
    name = send("POST", "/score", json={"columns": COLUMNS}).json()["impressions"]
    item = {"id": f"{name}.0", "label": 1}
    for wrong, said in (
        ({"weight": -0.1}, "item 1 has the weight -0.1; expected 0 to 100"),
        ({"weight": 1e39}, "item 1 has the weight 1e+39; expected 0 to 100"),
        ({"time": 1.7e12}, "item 1 has the time 1700000000000, in milliseconds: write t / 1000"),
        ({"time": 4e9}, "item 1 has the time 4000000000; expected Unix seconds from 946684800"),
        ({"weight": "2"}, "items[1].weight is '2'; expected a number"),
        ({"weight": True}, "items[1].weight is True; expected a number"),
        ({"time": "2026-01-01T00:00:00Z"}, "items[1].time is '2026-01-01T00:00:00Z'; expected a number"),
    ):
        answer = send("POST", "/feedback", json=[item, {**item, **wrong}])
        assert answer.status_code == 400, wrong
        assert said in answer.json()["error"]["message"]
    shown = {"id": f"{name}.1", "shown": True}
    answer = send("POST", "/feedback", json=[item, {**shown, "weight": 2}])
    assert "item 1 has the weight 2 and no label; only a label has one" in answer.json()["error"]["message"]
    taken = send("POST", "/feedback", json=[{**item, "weight": 1e-38, "time": 1.7e9}, {**shown, "time": None, "weight": 1}])
    assert taken.json()["outcomes"] == ["accepted", "accepted"], "nothing of a call that is refused is stored"


def test_feedback_of_which_every_item_is_refused_for_good_has_a_status_of_its_own(send):
    name = send("POST", "/score", json={"columns": COLUMNS}).json()["impressions"]
    bad, beyond = {"id": "nonsense", "label": 1}, {"id": f"{name}.99", "label": 1}
    for items in ([bad], [bad, beyond], {"items": [beyond]}):
        answer = send("POST", "/feedback", json=items)
        assert answer.status_code == 422
        assert set(answer.json()) == {"outcomes", "position"}
        assert set(answer.json()["outcomes"]) <= {"bad_id", "out_of_range"}
    for label, outcome in ((1, "accepted"), (1, "duplicate"), (0, "conflict")):
        answer = send("POST", "/feedback", json=[bad, {"id": f"{name}.0", "label": label}])
        assert (answer.status_code, answer.json()["outcomes"]) == (200, ["bad_id", outcome])


def test_an_error_has_its_type_and_a_message_that_names_the_column(send):
    answer = send("POST", "/score", json={"columns": {**COLUMNS, "x": [1, None]}})
    assert answer.status_code == 400
    found = "row 1 has null for 'x', which is float32[N]; expected a finite number"
    assert answer.json()["error"] == {"type": "InvalidInput", "message": found}


HOSTILE = {
    "a column that is nested 900 deep": b'{"columns":{"user":%s1%s,"x":[1],"shop":[1]}}' % (b"[" * 900, b"]" * 900),
    "an id in an object nested 900 deep": b'{"columns":{"user":[%s1%s],"x":[1],"shop":[1]}}' % (b'{"a":' * 900, b"}" * 900),
    "a propensity that is nested 900 deep": b'{"columns":{"user":[1],"x":[1],"shop":[1]},"propensity":%s1%s}'
    % (b"[" * 900, b"]" * 900),
    "a propensity of text": b'{"columns":{"user":[1],"x":[1],"shop":[1]},"propensity":["0.5"]}',
    "a propensity that is ragged": b'{"columns":{"user":[1],"x":[1],"shop":[1]},"propensity":[[1],1]}',
    "a column that is one value": b'{"columns":{"user":1,"x":1,"shop":1}}',
    "a bool among ids": b'{"columns":{"user":[7,true],"x":[1,1],"shop":[1,1]}}',
    "bools for ids": b'{"columns":{"user":[true,false],"x":[1,1],"shop":[1,1]}}',
    "a bool among numbers": b'{"columns":{"user":[7,7],"x":[1.0,true],"shop":[1,1]}}',
    "an id beyond 64 bits": b'{"columns":{"user":[18446744073709551615],"x":[1],"shop":[1]}}',
    "a float beyond 32 bits": b'{"columns":{"user":[1],"x":[1e39],"shop":[1]}}',
    "a column's name of 50,000 letters": b'{"columns":{"%s":[1]}}' % (b"u" * 50_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_score_is_refused_in_few_words(send, name):
    answer = send("POST", "/score", content=HOSTILE[name])
    assert answer.status_code == 400, answer.text
    assert len(answer.text) < 1_000


def test_an_item_nested_900_deep_is_refused(send):
    answer = send("POST", "/feedback", content=b'[{"id":%s1%s}]' % (b"[" * 900, b"]" * 900))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("size", [100_001, 10**6])
def test_a_body_over_the_limit_is_refused_whether_its_length_is_declared_or_not(send, size):
    async def chunks():
        for _ in range(size // 1_000 + 1):
            yield b" " * 1_000

    for content in (b" " * size, chunks()):
        answer = send("POST", "/score", content=content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "TooLarge")


@pytest.mark.parametrize("length", ["x", "-1", "9" * 5_000])
def test_a_length_that_is_none_is_refused(send, length):
    answer = send("POST", "/score", content=b"{}", headers={"content-length": length})
    assert answer.status_code == 400
    assert "content-length is" in answer.text


def test_too_many_rows_are_refused_with_the_limit(send):
    answer = send("POST", "/score", json={"columns": {"user": [1] * 501, "x": [1] * 501, "shop": [1] * 501}})
    assert answer.status_code == 413
    assert "501 rows; at most 500" in answer.text


def test_refusals_are_counted_by_endpoint_and_reason(send, registry):
    def count():
        labels = {"model": "ranker", "transport": "rest", "endpoint": "feedback", "outcome": "invalid"}
        return registry.get_sample_value("riverdelta_requests_total", labels) or 0

    before = count()
    send("POST", "/feedback", content=b"[]")
    assert count() == before + 1


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
jsons = st.recursive(scalars, lambda c: st.lists(c, max_size=4) | st.dictionaries(st.text(max_size=3), c, max_size=3))


@settings(max_examples=150)
@given(st.fixed_dictionaries({}, optional={"user": jsons, "x": jsons, "shop": jsons, "": jsons}), jsons)
def test_no_columns_bring_the_scorer_down(send, columns, propensity):
    assert send("POST", "/score", content=json.dumps({"columns": columns, "propensity": propensity})).status_code in (200, 400)


@settings(max_examples=150)
@given(jsons | st.lists(st.fixed_dictionaries({"id": jsons}, optional={"label": jsons, "shown": jsons}), max_size=3))
def test_no_feedback_brings_the_scorer_down(send, items):
    assert send("POST", "/feedback", content=json.dumps(items)).status_code in (200, 400, 422)


@pytest.mark.parametrize("path", ["/feedback", "/v2/models/ranker-feedback/infer"])
def test_feedback_that_is_put_off_says_when_to_come_again(send, runtime, monkeypatch, path):
    async def owed(*_):
        raise Unavailable("the process that scored these rows is alive and has not stored them")

    monkeypatch.setattr(runtime.plane, "store", owed)
    inputs = [
        {"name": "id", "datatype": "BYTES", "shape": [1], "data": ["a.0"]},
        {"name": "label", "datatype": "FP32", "shape": [1], "data": [1.0]},
    ]
    answer = send("POST", path, json={"inputs": inputs} if "v2" in path else {"items": [{"id": "a.0", "label": 1}]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_each_correction_is_one_line_of_the_status(send):
    shown = send("GET", "/status").json()["corrections"]
    assert shown[0].startswith("Calibration ( variance=")
    assert all(line == " ".join(line.split()) for line in shown)
