"""The binary extension over REST: whatever a request claims of its bytes, it is scored as it stands or refused."""

import asyncio
import json
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

FUZZ = settings.get_profile("fuzz")
HEADER = "inference-header-content-length"
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 12), st.integers(0, 255)), max_size=3)
#: Two rows of each input as (datatype, shape, bytes, JSON).
GOOD = {
    "user": ("BYTES", [2], b"\3\0\0\0ann\5\0\0\0zo\xc3\xab!", ["ann", "zoë!"]),
    "x": ("FP32", [2], np.array([0.5, -2], "<f4").tobytes(), [0.5, -2]),
    "vec": ("FP64", [2, 2], np.ones(4, "<f8").tobytes(), [[1, 1], [1, 1]]),
    "on": ("BOOL", [2, 1], b"\1\0", [True, False]),
    "small": ("INT8", [2], b"\1\xff", [1, -1]),
    "shop": ("FP16", [2], np.ones(2, "<f2").tobytes(), [1, 1]),
}
DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]
SIZES = st.integers(-3, 40) | st.sampled_from([2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30])
ODD = st.none() | st.booleans() | SIZES | st.floats() | st.text(max_size=4) | st.lists(SIZES, max_size=4) | st.just({})
SHAPES = st.lists(SIZES, max_size=9) | ODD
LEAVES = st.none() | st.booleans() | SIZES | st.floats() | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda values: st.lists(values, max_size=3), max_leaves=6)
CHANGES = st.one_of(
    st.tuples(st.just("name"), st.sampled_from([*GOOD, "y", ""]) | ODD),
    st.tuples(st.just("datatype"), st.sampled_from([*DATATYPES, "BF16", "fp32"]) | ODD),
    st.tuples(st.just("shape"), SHAPES),
    st.tuples(st.just("parameters"), st.builds(lambda value: {"binary_data_size": value}, ODD) | ODD),
    st.tuples(st.just("data"), VALUES),
    st.tuples(st.just("bytes"), st.binary(max_size=24)),
    st.tuples(st.sampled_from(["drop", "twice", "json", "both"]), st.none()),
)
OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["score", "state", "impressions", "z"])},
        optional={"parameters": st.builds(lambda value: {"binary_data": value}, ODD) | ODD},
    ),
    max_size=3,
)
PREFIXED = st.lists(st.tuples(st.integers(-9, 2**32 - 1), st.binary(max_size=9)), max_size=4)


def request(changes, extra):
    """A request of six tensors after changes (tensor, what, value), as its JSON and the bytes behind it."""
    entries, tail = [], []
    for place, (name, (datatype, shape, raw, data)) in enumerate(GOOD.items()):
        mine = dict(change for at, change in changes if at == place)
        raw = mine.pop("bytes", raw)
        entry = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        if "json" in mine:
            entry, raw = {**entry, "parameters": {}, "data": data}, b""
        if "both" in mine:
            entry["data"] = data
        entry |= {key: value for key, value in mine.items() if key in ("name", "datatype", "shape", "parameters", "data")}
        for _ in range(0 if "drop" in mine else 2 if "twice" in mine else 1):
            entries.append(entry)
            tail.append(raw)
    return json.dumps({"inputs": entries, **extra}).encode(), b"".join(tail)


@pytest.fixture(scope="session")
def answered(client, loop, bounded):
    """answered(body, headers, model): the answer, once it is proper."""

    def call(body, headers, model="ranker"):
        sent = client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
        with bounded():
            answer = asyncio.run_coroutine_threadsafe(sent, loop).result()
        assert answer.status_code in (200, 400, 413), answer.text
        if answer.status_code != 200:
            assert set(answer.json()) == {"error"}
            assert len(answer.json()["error"]) <= 801
        return answer

    return call


def outputs_of(answer):
    """Each output's array as the answer's JSON or the bytes behind it hold it."""
    split = int(answer.headers.get(HEADER, len(answer.content)))
    at, found = split, {}
    for entry in json.loads(answer.content[:split])["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size", 0)
        raw, at = answer.content[at : at + size], at + size
        found[entry["name"]] = raw if size else np.array(entry["data"])
        assert size or list(found[entry["name"]].shape) == entry["shape"]
    assert at == len(answer.content)
    return found


@settings(FUZZ)
@given(st.lists(st.tuples(st.integers(0, 5), CHANGES), max_size=3), EDITS, st.integers(-2, 2) | SIZES, OUTPUTS, ODD)
@example([], [], 0, [], None)
@example([(0, ("json", None)), (3, ("json", None))], [], 0, [{"name": "score"}], True)
def test_a_request_whose_parts_contradict_each_other_is_scored_or_refused(answered, damage, changes, edits, off, wanted, all_):
    head, tail = request(changes, {"outputs": wanted, "parameters": {"binary_data_output": all_}})
    answer = answered(head + damage(tail, edits), {HEADER: str(len(head) + off)})
    if not (changes or edits or off or wanted):
        assert answer.status_code == (200 if all_ is None or isinstance(all_, bool) else 400), answer.text
    if [what for _, (what, _) in changes] == ["both"]:
        assert answer.status_code == 400
    if answer.status_code == 200:
        assert set(outputs_of(answer)) == ({o["name"] for o in wanted} or {"score", "base_logit", "impressions", "state"})


@settings(FUZZ)
@given(EDITS, st.booleans())
def test_a_body_damaged_anywhere_is_scored_or_refused(answered, damage, edits, declared):
    head, tail = request([], {})
    answered(damage(head + tail, edits), {HEADER: str(len(head))} if declared else {})


@settings(FUZZ)
@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30))
def test_any_text_as_the_length_of_the_json_is_a_number_within_the_body_or_refused(answered, text):
    head, tail = request([], {})
    answer = answered(head + tail, [(HEADER.encode(), text.encode("latin-1"))])
    assert answer.status_code == (200 if text.isascii() and text.isdigit() and int(text) == len(head) else 400)


@settings(FUZZ)
@given(
    st.lists(st.tuples(st.integers(-9, 2**32 - 1), st.binary(max_size=9)), max_size=4), st.integers(0, 5), st.binary(max_size=5)
)
def test_length_prefixes_that_lie_are_refused_and_others_are_feedback(answered, strings, rows, rest):
    prefixed = [(len(text) if size < 0 else size, text) for size, text in strings]
    raw = b"".join(struct.pack("<I", size) + text for size, text in prefixed) + rest
    entry = {"name": "id", "datatype": "BYTES", "shape": [rows], "parameters": {"binary_data_size": len(raw)}}
    labels = {"name": "label", "datatype": "FP32", "shape": [rows], "data": [1.0] * rows}
    head = json.dumps({"inputs": [entry, labels]}).encode()
    answer = answered(head + raw, {HEADER: str(len(head))}, "ranker-feedback")
    honest = all(size == len(text) for size, text in prefixed) and not rest and len(prefixed) == rows
    if answer.status_code == 422:
        assert honest
        assert f"{rows} bad_id" in answer.json()["error"]
    else:
        assert not honest or "UTF-8" in answer.text or rows == 0
