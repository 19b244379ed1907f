"""What an item of feedback may have besides its label: ranges, units, and the words of a refusal."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import InvalidInput
from riverdelta.core.feedback import AHEAD_SECONDS, EARLIEST, MOST_WEIGHT, check_times, check_weights

NOW = 1_800_000_000.0
LABELLED, SHOWN = np.float32([0, 1]), np.float32([0, math.nan])


@given(st.lists(st.floats(allow_subnormal=True), min_size=2, max_size=2))
def test_weights_are_taken_as_they_are_exactly_if_each_is_in_the_range(weights):
    if all(0 <= w <= MOST_WEIGHT for w in weights):
        taken = check_weights(weights, LABELLED)
        assert weights == [1, 1] if taken is None else taken.tolist() == np.float32(weights).tolist()
    else:
        at = next(i for i, w in enumerate(weights) if not 0 <= w <= MOST_WEIGHT)
        with pytest.raises(InvalidInput, match=rf"item {at} has the weight .*; expected 0 to 100: divide by the mean"):
            check_weights(weights, LABELLED)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint64])
def test_weights_of_any_numeric_type_are_taken(dtype):
    assert check_weights(np.array([0, 3], dtype), LABELLED).tolist() == [0.0, 3.0]


@pytest.mark.parametrize("given", [["1", "2"], [True, False], [None, 1], [[1], 2], [1, 2, 3], 1.0, [[1, 2]], [1e-9j, 1]])
@pytest.mark.parametrize(("name", "check"), [("weight", check_weights), ("time", lambda g, y: check_times(g, y, NOW))])
def test_what_is_not_one_number_an_item_is_refused(name, check, given):
    with pytest.raises(InvalidInput, match=rf"^{name} is .*; expected 2 numbers, one an item$"):
        check(given, LABELLED)


def test_a_row_that_was_only_shown_has_neither_weight_nor_time():
    assert check_weights([2, 1], SHOWN).tolist() == [2, 1]
    assert check_times([NOW, math.nan], SHOWN, NOW)[0] == NOW
    with pytest.raises(InvalidInput, match="item 1 has the weight 2 and no label; only a label has one: leave it out"):
        check_weights([1, 2], SHOWN)
    with pytest.raises(InvalidInput, match="item 1 has the time 1800000000 and no label; only a label has one"):
        check_times([NOW, NOW], SHOWN, NOW)


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (1e3 * NOW, "item 0 has the time 1800000000000, in milliseconds: write t / 1000"),
        (1e6 * NOW, "in microseconds: write t / 1000000"),
        (1e9 * NOW, "in nanoseconds: write t / 1000000000"),
        (NOW + AHEAD_SECONDS + 1, "item 0 has the time 1800003601; expected Unix seconds from 946684800"),
        (EARLIEST - 1, "has the time 946684799; expected Unix seconds"),
        (-1.0, r"has the time -1; expected Unix seconds from 946684800 \(2000-01-01\) to one hour after now \(1800000000\)"),
        (0.0, "has the time 0; expected"),
        (math.inf, "has the time inf; expected"),
        (-math.inf, r"time\.time\(\)$"),
    ],
)
def test_a_time_that_is_not_plausible_is_refused_by_its_item_and_another_unit_is_recognized(time, said):
    with pytest.raises(InvalidInput, match=said):
        check_times([time, NOW], LABELLED, NOW)


def test_times_within_the_range_are_kept_to_the_bit_and_none_at_all_is_none():
    assert check_times([EARLIEST, NOW + AHEAD_SECONDS], LABELLED, NOW).tolist() == [EARLIEST, NOW + AHEAD_SECONDS]
    assert check_times([math.nan, NOW - 0.1], LABELLED, NOW)[1] == NOW - 0.1
    assert check_times([math.nan, math.nan], LABELLED, NOW) is None
    assert check_weights([1, 1.0], LABELLED) is None
