"""Sizes: what a parser would make of a body is counted before it is parsed, and only outside of strings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.bento import sizes as module
from riverdelta.bento.sizes import Sizes
from riverdelta.core.errors import TooLarge
from riverdelta.core.features import Column, Schema

SCHEMA = Schema.of({"user": "int64", "vector": "float32[2]"})
LIMIT = Sizes.of(SCHEMA, 1_000)
texts = st.text(alphabet=st.sampled_from(',[{"\\}] aä\n')) | st.text()
values = st.recursive(
    st.none() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def made(value):
    """The numbers of commas and of lists and objects in a value's JSON."""
    if not isinstance(value, dict | list):
        return 0, 0
    inner = [made(part) for part in (value.values() if isinstance(value, dict) else value)]
    return max(len(inner) - 1, 0) + sum(c for c, _ in inner), 1 + sum(b for _, b in inner)


@given(values, st.booleans(), st.sampled_from([1, 2, 3, 7, 1 << 18]))
def test_the_counts_are_those_of_the_parsed_value(value, ascii, piece):
    body = json.dumps(value, ensure_ascii=ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)
        assert module._counts(module._outside_strings(body)) == made(value)


def test_a_full_request_passes_whatever_its_strings_contain():
    rows = LIMIT.rows
    LIMIT.check(json.dumps({"columns": {"user": [',[{,\\",' * 9] * rows, "vector": [[0.5, 1]] * rows}}).encode())
    LIMIT.check(json.dumps({"items": [{"id": "a,b.0", "label": 1}] * rows}).encode())


@pytest.mark.parametrize(
    ("body", "excess"),
    [
        (b"[" + b'"a",' * 100_000 + b'"a"]', "100001 values"),
        (b"[" + b"[]," * 100_000 + b"[]]", "100002 lists and objects"),
        (b"[" * 100_000, "100000 lists and objects"),
        (b'{"a":' * 100_000, "100000 lists and objects"),
        (b'{"\\\\":' * 100_000, "100000 lists and objects"),
    ],
    ids=["strings", "lists", "depth", "objects", "escapes"],
)
def test_more_than_a_full_request_is_refused_by_what_it_has_too_much_of(body, excess):
    with pytest.raises(
        TooLarge, match=rf"the body has {excess}; at most \d+ are accepted for 1000 rows \(RIVERDELTA_MAX_ROWS\)"
    ):
        LIMIT.check(body)


def test_an_axis_of_any_length_has_room_and_an_end():
    open_axis = Sizes.of(Schema({"x": Column("x", "float64", (None,))}), 10)
    open_axis.check(b"[" + b"1," * 2_000 + b"1]")
    with pytest.raises(TooLarge):
        open_axis.check(b"[" + b"1," * 10_000 + b"1]")
