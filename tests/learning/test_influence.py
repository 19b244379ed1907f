"""The limiter: no entity moves the tables more often than it may, whatever the clock does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.learning.influence import Limiter


@settings(max_examples=50, deadline=None)
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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_blocks_cut_anywhere_and_a_saved_state_give_the_same_answers(seed, sizes):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    user, received = rng.integers(-(2**63), 2**63 - 1, n // 3 + 1)[rng.integers(0, n // 3 + 1, n)], rng.uniform(0, 50, n)
    whole, parts, answers, at = Limiter(["user"], 2, 10.0), Limiter(["user"], 2, 10.0), [], 0
    for size in sizes:
        rows = slice(at, at + size)
        answers += parts.admit({"user": user[rows]}, received[rows]).tolist()
        saved, parts = parts.state(), Limiter(["user"], 2, 10.0)
        parts.load(saved)
        at += size
    assert answers == whole.admit({"user": user}, received).tolist()
    assert parts.refused == whole.refused == answers.count(False)


def test_time_that_steps_back_opens_no_window_again():
    limiter = Limiter(["user"], 1, 60.0)
    times = np.array([3_600.0, 0.0, 3_601.0, 10.0])
    assert limiter.admit({"user": np.zeros(4, np.int64)}, times).tolist() == [True, False, False, False]


@pytest.mark.parametrize("given", [{"limit": 0}, {"window_seconds": 0.0}, {"window_seconds": float("nan")}, {"slots": 100}])
def test_what_makes_no_sense_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"expected"):
        Limiter(["user"], **{"limit": 3, "window_seconds": 60.0, **given})


def test_a_state_of_other_keys_is_refused():
    with pytest.raises(Corrupt, match="'slots'"):
        Limiter(["user", "item"], 1, 60.0).load(Limiter(["user"], 1, 60.0).state())
