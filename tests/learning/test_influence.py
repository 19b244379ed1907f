"""The limiter: no entity moves the tables more often than it may, whatever the clock does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError
from riverdelta.learning.influence import Limiter


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_it_agrees_with_a_dictionary_of_counts(seed, limit):
    rng = np.random.default_rng(seed)
    columns = {"user": rng.integers(0, 12, 300), "item": rng.integers(0, 6, 300)}
    received = np.sort(rng.uniform(0, 50, 300))
    passes = Limiter(["user", "item"], limit, 10.0).admit(columns, received)
    counts = Counter()
    for i in range(300):
        window = int(received[i] // 10)
        entities = [(name, column[i], window) for name, column in columns.items()]
        expected = all(counts[entity] < limit for entity in entities)
        assert passes[i] == expected
        if expected:
            counts.update(entities)


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=40), st.integers(1, 50))
def test_no_entity_has_more_weight_than_the_limit_however_it_is_split(weights, limit):
    weights = np.array(weights)
    passes = Limiter(["user"], limit, 60.0).admit({"user": np.zeros(len(weights), np.int64)}, np.zeros(len(weights)), weights)
    assert weights[passes].sum() <= limit
    refused = np.flatnonzero(~passes)
    for at in refused:
        assert weights[:at][passes[:at]].sum() + weights[at] > limit


def test_time_that_steps_back_opens_no_window_again():
    limiter = Limiter(["user"], 1, 60.0)
    times = np.array([3_600.0, 0.0, 3_601.0, 10.0])
    assert limiter.admit({"user": np.zeros(4, np.int64)}, times).tolist() == [True, False, False, False]


@pytest.mark.parametrize("given", [{"limit": 0}, {"window_seconds": 0.0}, {"window_seconds": float("nan")}])
def test_what_makes_no_sense_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"expected"):
        Limiter(["user"], **{"limit": 3, "window_seconds": 60.0, **given})
