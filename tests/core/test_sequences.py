"""Sequences: rows of different lengths become one array, and nothing but zeros is added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import InvalidInput, TooLarge
from riverdelta.core.features import Column, Schema
from riverdelta.core.sequences import padded

IDS = Column("input_ids", "int64", (None,), axes=("sequence",))
MASK = Column("attention_mask", "int64", (None,), axes=("sequence",))
TEXT = Schema({"input_ids": IDS, "attention_mask": MASK})
numbers = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.lists(numbers, max_size=5), min_size=1, max_size=5))
def test_each_row_keeps_its_values_and_ends_in_zeros(rows):
    ids = Schema({"input_ids": IDS}).check({"input_ids": rows})[0]["input_ids"]
    assert ids.shape == (len(rows), max(map(len, rows)))
    for row, found in zip(rows, ids, strict=True):
        assert found[: len(row)].tolist() == row
        assert not found[len(row) :].any()


@given(st.lists(st.lists(st.lists(st.floats(-1, 1), max_size=3), max_size=3), min_size=1, max_size=3))
def test_two_open_axes_are_padded_each_to_its_longest(rows):
    made = padded("x", rows, (None, None))
    array = np.array(made, np.float64)
    inner = [len(part) for row in rows for part in row]
    assert array.size == len(rows) * max(map(len, rows)) * max(inner, default=0)
    for i, row in enumerate(rows):
        for j, part in enumerate(row):
            assert array[i, j, : len(part)].tolist() == part


def test_rows_within_a_ragged_axis_keep_their_fixed_length():
    assert padded("boxes", [[[1, 2]], []], (None, 2)) == [[[1, 2]], [[0, 0]]]
    with pytest.raises(InvalidInput, match=r"'boxes' is ragged"):
        Schema({"boxes": Column("boxes", "float32", (None, 2))}).check({"boxes": [[[1, 2]], [[1]]]})


def test_booleans_are_padded_with_false_and_an_array_of_lists_as_lists_are():
    mask = Schema({"mask": Column("mask", "bool", (None,))})
    assert mask.check({"mask": [[True], [True, True]]})[0]["mask"].tolist() == [[True, False], [True, True]]
    rows = np.empty(2, object)
    rows[:] = [np.array([5, 6]), [7]]
    assert Schema({"input_ids": IDS}).check({"input_ids": rows})[0]["input_ids"].tolist() == [[5, 6], [7, 0]]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (Column("x", "float32", (2,)), [[1, 2], [1]]),
        (IDS, [[1, 2], 3]),
        (IDS, [[1, "a"], [2]]),
        (IDS, [[1, None], [2]]),
        (IDS, [[[1], [2]], [[3]]]),
        (Column("names", "string", (None,)), [["a", "b"], ["c"]]),
    ],
)
def test_what_is_not_a_sequence_of_numbers_is_refused_by_name(column, value):
    with pytest.raises(InvalidInput, match=column.name):
        Schema({column.name: column}).check({column.name: value})


def test_axes_of_one_name_have_one_length_and_rows_too_if_both_are_ragged():
    assert TEXT.check({"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1], [1, 0]]})[1] == 2
    with pytest.raises(
        InvalidInput, match=r"'attention_mask' has 3 values along 'sequence' and 'input_ids' has 2; expected equal lengths"
    ):
        TEXT.check({"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1, 1], [1]]})
    with pytest.raises(InvalidInput, match=r"row 0 has 1 values for 'attention_mask' and 2 for 'input_ids' along 'sequence'"):
        TEXT.check({"input_ids": [[1, 2], [3]], "attention_mask": [[1], [1, 1]]})


def test_one_long_row_cannot_make_all_the_others_as_long():
    rows = [[1] * 1_000, *([[1]] * 9)]
    ids = Schema({"input_ids": IDS})
    assert ids.check({"input_ids": rows})[0]["input_ids"].size == 10_000
    with pytest.raises(TooLarge, match=r"10 rows, padded to 1000 values each; at most 2560 values"):
        ids.check({"input_ids": rows}, max_rows=10)
