"""The breaker on whole streams, with learning: everyday operations and floods do not trip it, and wrong labels do."""

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@cache
def bench():
    """The benchmark, whose streams and operations these tests share."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("bench_breaker", BENCHMARKS / "bench_breaker.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@cache
def prepared(name):
    if name != "quick" and "RIVERDELTA_DATA" not in os.environ:
        pytest.skip("RIVERDELTA_DATA names no folder of public data")
    return bench().STREAMS[name]()


@pytest.mark.parametrize("name", ["quick", "movielens", "electricity", "bandit", "pump"])
def test_no_operation_of_an_ordinary_day_trips_it(name):
    tripped = {}
    for operation in bench().OPERATIONS:
        breaker, _ = bench().served(prepared(name), operation, seed=1, start=0.6)
        if breaker.trips:
            tripped[operation.__name__] = breaker.reason
    assert not tripped


@pytest.mark.parametrize("name", ["quick", "movielens", "electricity", "bandit"])
def test_stale_labels_trip_it_within_what_it_says_wherever_they_begin(name):
    delays, said = bench().attacked(prepared(name), "stale", starts=20)
    assert np.mean(delays <= said) >= 0.95


@pytest.mark.parametrize("cap", [True, False])
@pytest.mark.parametrize("name", ["quick", "movielens"])
def test_a_flood_of_plausible_labels_from_one_sender_does_not_trip_it(name, cap):
    assert np.isinf(bench().attacked(prepared(name), "flood", starts=4, cap=cap)[0]).all()


def test_an_inverted_sender_trips_it_under_the_cap():
    delays, _ = bench().attacked(prepared("movielens"), "flip one", starts=2)
    assert np.isfinite(delays).all()
