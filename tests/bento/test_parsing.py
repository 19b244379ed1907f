"""Parsing: a key that is given twice and a number that is not finite are named, wherever they stand."""

import json
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.bento.parsing import parse_json
from riverdelta.core.errors import InvalidInput

TEXT = st.sampled_from(["", "a", ":", '"', '":', "\\", "é", "user:42", '" :', "x\\", "NaN"]) | st.text(max_size=3)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4), max_leaves=20)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,", "\n :\t")])


@given(VALUES, SEPARATORS, st.booleans())
def test_json_without_a_key_given_twice_is_its_value(value, separators, ascii):
    text = json.dumps(value, separators=separators, ensure_ascii=ascii)
    if "\\ud" not in text:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            return
        assert parse_json(data, "the body") == orjson.loads(data)


class Twice(dict):
    """A dict that is written with its first key at its end again."""

    def items(self):
        return [*super().items(), next(iter(super().items()))]


def mark(value, draw):
    """The value with one of its objects replaced by a `Twice`; None without an object that is not empty."""
    places = []

    def walk(v, put):
        if isinstance(v, dict):
            if v:
                places.append((v, put))
            for key in v:
                walk(v[key], lambda new, v=v, key=key: v.__setitem__(key, new))
        elif isinstance(v, list):
            for i, one in enumerate(v):
                walk(one, lambda new, v=v, i=i: v.__setitem__(i, new))

    root = [value]
    walk(value, lambda new: root.__setitem__(0, new))
    if not places:
        return None
    found, put = draw(st.sampled_from(places))
    put(Twice(found))
    return root[0]


def dumped(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{dumped(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(dumped, value)) + "]" if isinstance(value, list) else json.dumps(value)


@given(VALUES, st.data())
def test_a_key_given_twice_is_refused_wherever_it_stands(value, data):
    marked = mark(value, data.draw)
    if marked is None:
        return
    text = dumped(marked)
    try:
        orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return
    with pytest.raises(InvalidInput, match="twice; give it once"):
        parse_json(text.encode(), "the body")


ODD = st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])


@given(st.integers(0, 30), ODD, st.booleans())
def test_a_number_that_is_not_finite_is_named_with_its_place(row, odd, wide):
    rows = [f"[0.5, {i}]" if wide else str(i) for i in range(31)]
    rows[row] = f"[1, {odd}]" if wide else odd
    body = '{"é": "NaN", "columns": {"user": [1], "x": [' + ", ".join(rows) + "]}}"
    place = f"columns.x[{row}]" + "[1]" * wide
    with pytest.raises(InvalidInput) as refused:
        parse_json(body.encode(), "the body")
    assert f"the body: {place} is {odd} (character {body.index(odd, 12)})" in str(refused.value)


def test_in_a_large_body_it_is_named_by_its_character_alone():
    body = b"[" + b"1, " * 100_000 + b"NaN]"
    with pytest.raises(InvalidInput, match="the body has NaN at character 300001; JSON has finite numbers only"):
        parse_json(body, "the body")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty; expected JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "byte 0 is not UTF-8"),
        ('{"a": "é"}'.encode("latin-1"), "byte 7 is not UTF-8; send UTF-8"),
        (b"[1, nan]", "[1] is nan|has nan at character 4"),
        (b"[01]", "not JSON"),
        (b"[1.]", "not JSON"),
        (b"NaN", "has NaN at character 0"),
        (b"[NaN, ", "has NaN at character 1"),
        (b"[" * 3_000, "not JSON"),
        (b'{"a": Nope}', "not JSON"),
        (b"[1e" + b"9" * 5_000 + b"]", "[0] is 1e999"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason_in_few_words(body, said):
    with pytest.raises(InvalidInput) as refused:
        parse_json(body, "the body")
    assert any(part in str(refused.value) for part in said.split("|")), str(refused.value)
    assert len(str(refused.value)) < 200


def test_the_largest_finite_number_is_taken():
    assert math.isfinite(parse_json(b"[1.7976931348623157e308]", "the body")[0])
