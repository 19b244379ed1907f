"""Limits: no caller passes more than its rate, none is held back by another, and memory is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.bento.access import ANY
from riverdelta.bento.guard import Policy, visit
from riverdelta.bento.http import headers
from riverdelta.bento.limits import Limit
from riverdelta.core.errors import RateLimited, TooLarge, Unavailable
from riverdelta.core.settings import Settings

steps = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60)


def limit(rate, most=10_000):
    clock = [0.0]
    return Limit("RIVERDELTA_ROWS_PER_SECOND", "rows", rate, lambda: clock[0], most), clock


def passes(limited, size):
    """Seconds to wait: 0 where the request passes, infinity where it never does."""
    try:
        limited.take(7, size)
    except RateLimited as error:
        return error.retry_after
    except TooLarge:
        return float("inf")
    return 0.0


@given(st.floats(0.1, 20), steps)
def test_in_any_span_no_more_passes_than_capacity_and_rate_allow(rate, asked):
    (limited, clock), passed = limit(rate), []
    for pause, size in asked:
        clock[0] += pause
        if passes(limited, size) == 0.0:
            passed.append((clock[0], size))
    for i, (start, _) in enumerate(passed):
        for j in range(i, len(passed)):
            taken = sum(size for _, size in passed[i : j + 1])
            assert taken <= max(1.0, rate) + rate * (passed[j][0] - start) + 1e-6


@given(st.floats(0.1, 20), steps)
def test_a_refusal_says_when_the_same_request_passes(rate, asked):
    limited, clock = limit(rate)
    for pause, size in asked:
        clock[0] += pause
        wait = passes(limited, size)
        assert (wait == float("inf")) == (size > max(1.0, rate))
        if 0 < wait < float("inf"):
            clock[0] += wait + 1e-6
            assert passes(limited, size) == 0.0


def test_a_clock_that_steps_back_gives_nothing_away():
    limited, clock = limit(1.0)
    for now, wait in ((100.0, 0.0), (50.0, 51.0), (100.5, 0.5)):
        clock[0] = now
        assert passes(limited, 1) == pytest.approx(wait)


def test_callers_do_not_hold_each_other_back():
    rows, _ = limit(10)
    rows.take(1, 10)
    rows.take(2, 10)
    with pytest.raises(
        RateLimited, match=r"exceeds 10 rows a second .*RIVERDELTA_ROWS_PER_SECOND.*try again in 0.3 s"
    ) as caught:
        rows.take(1, 3)
    assert caught.value.retry_after == pytest.approx(0.3)


def test_a_request_that_would_never_pass_is_told_so():
    rows, _ = limit(10)
    with pytest.raises(TooLarge, match="has 11 rows; at most 10 a second"):
        rows.take(1, 11)


def test_a_rate_below_one_lets_one_pass_at_a_time():
    rows, clock = limit(0.5)
    rows.take(1)
    with pytest.raises(RateLimited):
        rows.take(1)
    clock[0] = 2.0
    rows.take(1)


def test_a_bounded_number_of_callers_is_remembered_the_latest_ones():
    rows, _ = limit(1, most=100)
    rows.take(7)
    for source in range(1000, 1099):
        rows.take(source)
        with pytest.raises(RateLimited):
            rows.take(7)
    for source in range(2000, 2500):
        rows.take(source)
    assert len(rows) == 100
    rows.take(7)  # forgotten meanwhile


def test_a_limited_request_is_told_when_to_come_again():
    assert headers(RateLimited("x", 1.2)) == {"Retry-After": "2"}
    assert headers(Unavailable("x")) == {"Retry-After": "1"}


def test_a_policy_without_limits_keeps_no_caller():
    policy = Policy().open(Settings(), lambda: pytest.fail("the clock is read"))
    for _ in range(1_000):
        policy.admit(ANY, "GET /status", [], "127.0.0.1", "127.0.0.1").rows([1] * 1_000)


def test_outside_of_any_visit_there_is_none():
    with pytest.raises(LookupError):
        visit()
