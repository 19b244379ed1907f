"""Columns: what is taken, and what each refusal says."""

import re

import numpy as np
import pytest

from riverdelta import Schema, id64
from riverdelta.core.errors import ConfigurationError, InvalidInput, TooLarge
from riverdelta.core.features import Column

SCHEMA = Schema.of({"user": "int64", "hour": "float32", "vec": "float32[3]"})
GOOD = {"user": [1, 2], "hour": [0.5, 1], "vec": [[1, 2, 3], [4, 5, 6]]}


def test_lists_become_typed_contiguous_columns():
    columns, rows = SCHEMA.check(GOOD)
    assert rows == 2
    assert {n: (c.dtype.name, c.shape) for n, c in columns.items()} == {
        "user": ("int64", (2,)),
        "hour": ("float32", (2,)),
        "vec": ("float32", (2, 3)),
    }
    assert all(c.flags.c_contiguous for c in columns.values())


def test_string_ids_are_hashed_and_may_stand_beside_numbers():
    columns, _ = SCHEMA.check(GOOD | {"user": ["ann", 7]})
    assert columns["user"].tolist() == [id64("ann"), 7]


HOSTILE = {
    "missing": ({"user": [1, 2], "hour": [1, 2]}, "'vec' is missing; expected float32"),
    "undeclared": (GOOD | {"usr": [1, 2]}, "'usr' is not declared: did you mean user"),
    "fractional id": (GOOD | {"user": [1.5, 2]}, "row 0 has 1.5 of type float for 'user', .* expected an id"),
    "id past int64": (
        GOOD | {"user": [1, 2**63]},
        "row 1 has 9223372036854775808 of type int for 'user'.*larger one as a string",
    ),
    "id before int64": (GOOD | {"user": [1, -(2**63) - 1]}, "row 1 has -9223372036854775809 of type int for 'user'"),
    "unsigned id past int64": (GOOD | {"user": np.array([1, 2**63], np.uint64)}, "row 1 has 9223372036854775808 of type int"),
    "id far past int64": (GOOD | {"user": [10**40, 1]}, "row 0 has 10+.+ of type int for 'user'"),
    "null": (GOOD | {"hour": [None, 1.0]}, "'hour'"),
    "text for a number": (
        GOOD | {"hour": ["a", "b"]},
        "row 0 has 'a' of type str for 'hour', which is float32.N.; expected a finite number",
    ),
    "true among ids": (GOOD | {"user": [7, True]}, "row 1 has True of type bool for 'user', .*; expected an id"),
    "true among numbers": (GOOD | {"hour": [1.0, True]}, "row 1 has True of type bool for 'hour', .* a finite number"),
    "true in a vector": (GOOD | {"vec": [[1, 2, 3], [4, 5, True]]}, r"row 1 has \[4, 5, True\] .* 3 finite numbers"),
    "a list among numbers": (GOOD | {"hour": [1.0, [2.0]]}, r"row 1 has \[2.0\] of type list for 'hour'"),
    "nan": (GOOD | {"hour": [float("nan"), 1.0]}, "'hour' holds nan at row 0"),
    "too large for float32": (GOOD | {"hour": [1.0, 1e300]}, "'hour' holds inf at row 1"),
    "uneven": (GOOD | {"hour": [1.0]}, "'hour' has 1 rows, 'user' has 2"),
    "ragged": (GOOD | {"vec": [[1, 2, 3], [4, 5]]}, "'vec' is ragged"),
    "wrong width": (GOOD | {"vec": [[1, 2], [4, 5]]}, r"'vec' has shape .*; expected float32\[N, 3\]"),
    "a scalar": (GOOD | {"hour": 3.0}, r"'hour' is 3.0; expected float32.N., a list with one value a row: write \[3.0\]"),
    "an object": (GOOD | {"hour": {"a": 1}}, "'hour'"),
    "no rows": ({"user": [], "hour": [], "vec": np.zeros((0, 3))}, "0 rows"),
    "not columns": ([1, 2], "list; expected an object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_request_is_refused_by_the_name_of_its_column(name):
    columns, message = HOSTILE[name]
    with pytest.raises(InvalidInput, match=message):
        SCHEMA.check(columns)


ODD = [
    7, -1, 2.5, 1e39, 2**63, 10**30, 10**40, "ann", b"ann", True, None, float("nan"), {}, [], [1, 2, 3], (1.5, 2, 3),
    [1, 2, "3"], 1j, np.int32(7), np.float32(2.5), np.bool_(True), np.zeros(3), np.zeros(2), [1, 2, True], [[1], [2], [3]],
]  # fmt: skip


@pytest.mark.parametrize("name", SCHEMA)
@pytest.mark.parametrize("value", ODD, ids=str)
def test_a_request_takes_the_values_that_a_row_takes(name, value):
    def taken(check):
        try:
            return check([value]).tolist()
        except InvalidInput:
            return None

    assert taken(SCHEMA[name].check) == taken(SCHEMA[name].of_values)


def test_a_tensor_takes_true_only_where_it_is_of_bools():
    assert Column("seen", "bool", (2,)).check([[True, 0]]).tolist() == [[True, False]]
    with pytest.raises(InvalidInput, match=r"'tokens' has type bool; expected int64\[N, 2\]"):
        Column("tokens", "int64", (2,)).check([[True, 0]])


CITY = Column("city", "string")


@pytest.mark.parametrize(
    "value", [["ann", ""], ("ann", ""), np.array(["ann", ""]), np.array(["ann", ""], object), [["ann"], [""]]]
)
def test_a_string_column_takes_strings_as_they_are(value):
    for column, shape in ((CITY, (2,)), (Column("city", "string", (1,)), (2, 1))):
        taken = column.check(value)
        assert (taken.dtype, taken.shape, taken.ravel().tolist()) == (object, shape, ["ann", ""])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            ["ann", None],
            "row 8 has null for 'city', which is string.N.; expected a string of UTF-8 of at most 65536 characters",
        ),
        (["ann", 7], "row 8 has 7 of type int"),
        (["ann", b"bob"], "row 8 has b'bob' of type bytes"),
        (["ann", ["bob"]], "row 8 has .* of type list"),
        (["x" * 65_537], "row 7 has 'x+.* of type str"),
        (["\ud800"], "row 7 has .* expected a string of UTF-8"),
        ("ann", r"has shape object\[\]"),
        (None, r"has shape object\[\]"),
        ([["a", "b"]], r"has shape object\[1, 2\]"),
        ([np.zeros((2, 1)), np.zeros((2, 2))], "'city' is ragged"),
    ],
    ids=str,
)
def test_what_is_no_string_is_refused_by_its_row(value, said):
    with pytest.raises(InvalidInput, match=said):
        CITY.check(value, first=7)


def test_a_row_of_strings_names_its_row():
    names = Column("names", "string", (2,))
    assert names.check([["a", "b"], ["c", "d"]]).shape == (2, 2)
    with pytest.raises(InvalidInput, match=r"row 1 has null for 'names', which is string.N, 2."):
        names.check([["a", "b"], ["c", None]])


@pytest.mark.parametrize("dtype", ["int64", "float32", "int32", "bool", "uint64", "float16"])
def test_a_column_of_one_takes_rows_with_and_without_an_axis(dtype):
    for shape in ((), (1,)):
        column = Column("x", dtype, shape)
        for value in ([1, 0], [[1], [0]], np.array([1, 0]), np.array([[1], [0]])):
            taken = column.check(value)
            assert (taken.dtype.name, taken.shape, taken.ravel().tolist()) == (dtype, (2, *shape), [1, 0])
        for odd in ([[1, 0]], [[[1]], [[0]]], np.zeros((2, 1, 1)), [[1], 0], [[]]):
            with pytest.raises(InvalidInput, match="'x'"):
                column.check(odd)


def test_an_unsigned_column_takes_every_unsigned_integer():
    assert Column("x", "uint64").check([2**64 - 1, 0]).tolist() == [2**64 - 1, 0]
    for odd in ([-1], [2**64], ["7"], [0.5]):
        with pytest.raises(InvalidInput, match="'x'"):
            Column("x", "uint64").check(odd)


def test_integers_that_are_numbers_are_not_hashed():
    assert Column("age", "int64", (), number=True).check([7]).tolist() == [7]
    with pytest.raises(InvalidInput, match=r"'age' has type str; expected int64.N."):
        Column("age", "int64", (), number=True).check(["ann"])


def test_too_many_rows_are_refused_with_the_limit():
    with pytest.raises(TooLarge, match="2 rows; at most 1"):
        SCHEMA.check(GOOD, max_rows=1)


@pytest.mark.parametrize("spec", ["int65", "float32[0]", "float32[a]", "", "float32[-1]", 3])
def test_a_declaration_that_is_none_is_refused_with_examples(spec):
    with pytest.raises(ConfigurationError, match=r"float32\[16\]"):
        Column.parse("c", spec)


def test_an_axis_of_any_length_takes_any_length():
    tokens = Column("tokens", "int64", (None,))
    assert str(tokens) == "int64[N, ?]"
    assert tokens.kind == "tensor"
    assert tokens.check([[1, 2, 3, 4]]).shape == (1, 4)


def test_a_column_that_nobody_has_is_asked_for_by_who_reads_it():
    with pytest.raises(ConfigurationError, match=r"Entity\('usr'\) reads column 'usr'.*did you mean user"):
        SCHEMA.need("usr", "Entity('usr')")


def test_a_column_that_is_missing_is_answered_with_a_declaration_of_the_kind_that_its_reader_needs():
    for kinds, line in ((("id",), "{'u': 'int64'}"), (("scalar", "vector"), "{'u': 'float32'}"), ((), "{'u': 'int64'}")):
        with pytest.raises(ConfigurationError, match=re.escape(f"columns={line} in a service, Schema.of({line}) without")):
            Schema().need("u", "Mine", *kinds)
