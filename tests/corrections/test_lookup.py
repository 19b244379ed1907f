"""Lookup: the same rows by search in numpy and by probing in a graph; clear errors; a file that round-trips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Linear, Lookup, Schema, id64
from riverdelta.checks.law import run
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.nodes import Nodes

INT64 = st.integers(-(2**63), 2**63 - 1)


def in_graph(lookup, ids):
    nodes = Nodes(17)
    outs = [lookup.export_vector(nodes, "ids")] if lookup.kind == "vector" else list(lookup.export_bag(nodes, "ids"))
    return [run(nodes, out, {"ids": ids}) for out in outs]


@settings(max_examples=40)
@given(st.dictionaries(INT64, st.lists(INT64, max_size=4), min_size=1, max_size=40), st.lists(INT64, max_size=20))
def test_bags_agree_between_numpy_and_the_graph(table, others):
    lookup = Lookup("bag", "i", table)
    ids = np.array([*table, *others, 0, -1], np.int64)
    for mine, theirs in zip(lookup.bag(ids), in_graph(lookup, ids), strict=True):
        assert np.array_equal(mine, theirs)
    shares = lookup.bag(ids)[1][: len(table)]
    assert [int((row > 0).sum()) for row in shares] == [len(entries) for entries in table.values()]


@settings(max_examples=25)
@given(st.lists(INT64, min_size=1, max_size=60, unique=True), st.lists(INT64, max_size=20))
def test_vectors_agree_between_numpy_and_the_graph(keys, others):
    values = np.random.default_rng(0).normal(size=(len(keys), 3)).astype(np.float32)
    lookup = Lookup("vec", "i", (np.array(keys), values))
    ids = np.array([*keys, *others, 0], np.int64)
    assert np.array_equal(lookup.vector(ids), in_graph(lookup, ids)[0])
    assert np.array_equal(lookup.vector(np.array(keys)), values)


def test_ten_thousand_sequential_keys_are_found_in_the_graph():
    keys = np.arange(1, 10_001)
    lookup = Lookup("many", "i", (keys, keys[:, None].astype(np.float32)))
    assert np.array_equal(in_graph(lookup, np.arange(0, 10_500))[0][:10_001, 0], np.arange(10_001))


def test_string_keys_are_hashed_as_ids_are():
    lookup = Lookup("s", "i", {"ann": [1.0], "bob": [2.0]})
    assert lookup.vector(np.array([id64("bob")])).tolist() == [[2.0]]


@pytest.mark.parametrize("table", [{1: [1.0, 2.0], 5: [0.0, 1.0]}, {1: [4], 2: [], 3: [7, 8]}])
def test_a_saved_table_loads_alike(tmp_path, table):
    lookup = Lookup("t", "i", table)
    lookup.save(tmp_path / "t.safetensors")
    loaded = Lookup.load("t", "i", tmp_path / "t.safetensors")
    ids = np.array([1, 2, 3, 5, 9])
    read = (lambda x: [x.vector(ids)]) if lookup.kind == "vector" else (lambda x: x.bag(ids))
    assert all(np.array_equal(a, b) for a, b in zip(read(lookup), read(loaded), strict=True))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "is empty"),
        ((np.zeros(0, np.int64), np.ones((0, 1), np.float32)), "is empty"),
        ({1: [1.0], 2: [1.0, 2.0]}, r"the key 2 has \[1.0, 2.0\] .* expected a list of 1 finite numbers"),
        ((np.array([1, 1]), np.ones((2, 1), np.float32)), "key 1 twice"),
        ((np.array([1.5]), np.ones((1, 1), np.float32)), r"'keys' has type float64; expected int64\[N\]"),
        ((np.array([[1, 2]]), np.ones((1, 1), np.float32)), r"'keys' has shape int64\[1, 2\]"),
        ((np.array([1, 2]), np.ones((3, 1), np.float32)), "2 keys and 3 values"),
        ((np.array([1]), np.ones(1, np.float32)), r"'values' has shape float32\[1\]; expected float32\[N, \?\]"),
        ((np.array([2**63], np.uint64), np.ones((1, 1), np.float32)), "has 9223372036854775808 of type int for 'keys'"),
        ((np.array([1]), np.array([["a"]])), "'values' has type <U1"),
        ((np.array([1]), np.array([[True]])), "'values' has type bool"),
        ((np.array([7]), np.array([[1e39]])), r"'values' holds \[inf\] at row 0; expected finite float32"),
        ({1.5: [1.0]}, "has 1.5 of type float for 'keys', .* expected an id"),
        ({True: [1.0]}, "has True of type bool for 'keys', .* expected an id"),
        ({2**63: [1.0]}, "has 9223372036854775808 of type int for 'keys', .* expected an id"),
        ({1: "abc"}, "the key 1 has 'abc'; expected a list"),
        ({1: 5}, "the key 1 has 5; expected a list"),
        ({1: [1.0, float("nan")]}, r"the key 1 has \[1.0, nan\] .* expected a list of 2 finite numbers"),
        ({1: [1.0, "a"]}, r"the key 1 has \[1.0, 'a'\] .* expected a list of 2 finite numbers"),
        ({1: [1.0], "b": [True]}, r"the key 'b' has \[True\] .* expected a list of 1 finite numbers"),
        ({1: [True]}, "the key 1 has True of type bool .* expected an id"),
        ({1: [], 2: [None]}, "the key 2 has null .* expected an id"),
    ],
)
def test_a_malformed_table_is_refused_with_what_is_wrong(table, message):
    with pytest.raises(ConfigurationError, match=message):
        Lookup("bad", "i", table)


@pytest.mark.parametrize("table", [{1: [1.0]}, {1: [3]}])
def test_a_key_that_is_no_id_is_refused_by_name(table):
    with pytest.raises(ConfigurationError, match=r"lookup 'g' reads column 'hour', which is float32\[N\]; expected an id"):
        Linear(Lookup("g", "hour", table), slots=8).bind(Schema.of({"hour": "float32"}))


def test_an_unreadable_file_is_refused_by_path(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConfigurationError, match=r"x\.safetensors"):
        Lookup.load("g", "i", tmp_path / "x.safetensors")


def test_what_it_shows_of_itself_tells_contents_apart_and_not_the_order_of_keys():
    table = {3: [1.0, 2.0], 5: [0.0, 1.0]}
    same = repr(Lookup("v", "i", dict(reversed(table.items()))))
    assert repr(Lookup("v", "i", table)) == same != repr(Lookup("v", "i", {**table, 5: [0.0, 1.5]}))


@pytest.mark.parametrize(("name", "key"), [("", "i"), ("g", ""), ("g", ("i", "j")), (3, "i")])
def test_a_name_or_a_key_that_is_not_one_name_is_refused(name, key):
    with pytest.raises(ConfigurationError, match=r"(name|key) is .*; expected the name of a column, as in Lookup"):
        Lookup(name, key, {1: [1.0]})
