"""Held calls: each is let go of once, at the first look at which it may be judged or has waited too long."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.storage.journal.held import Call, Held


def call(deadline, *requests):
    keys = np.array([(incarnation, request, 0) for incarnation, request in requests], np.int64)
    return Call(keys, [1.0] * len(keys), 0.0, 0, deadline)


def test_a_call_needs_the_newest_request_of_each_incarnation_that_it_names():
    assert call(1.0, (7, 3), (7, 9), (8, 0), (7, 4)).newest == {7: 9, 8: 0}


def test_looks_come_at_pauses_that_double_up_to_the_longest_and_begin_anew_with_the_next_call():
    held, now, pauses = Held(0.01, 0.05), 100.0, []
    assert held.pause(now) == math.inf
    held.hold(call(math.inf, (7, 3)), 7, now)
    for _ in range(5):
        pauses.append(round(held.pause(now), 9))
        now += held.pause(now)
        assert held.look(now, lambda _: 2) == ([], [])
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
    held.hold(call(math.inf, (8, 3)), 8, now)
    assert round(held.pause(now), 9) == 0.01


def test_newcomers_do_not_put_the_next_look_off():
    held = Held(0.01, 0.05)
    held.hold(call(math.inf, (7, 3)), 7, 100.0)
    held.hold(call(math.inf, (7, 3)), 7, 100.009)
    assert round(held.pause(100.009), 9) == 0.001


def test_a_look_asks_once_about_each_incarnation_however_many_calls_wait_for_it():
    held, asked = Held(0.01, 0.05), []
    for request in range(100):
        held.hold(call(math.inf, (request % 2, request)), request % 2, 0.0)
    held.look(1.0, lambda incarnation: asked.append(incarnation) or -1)
    assert sorted(asked) == [0, 1]
    assert len(held) == 100


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.floats(0, 10), st.dictionaries(st.integers(0, 2), st.integers(0, 5))),
    max_size=20,
)


@settings(max_examples=50)
@given(STEPS)
def test_every_call_is_let_go_of_exactly_once_and_those_of_one_incarnation_in_order(steps):
    held, waiting, now = Held(0.01, 0.05), [], 0.0
    for incarnation, request, patience, reached in steps:
        waiting.append(call(now + patience, (incarnation, request)))
        held.hold(waiting[-1], incarnation, now)
        now += 1.0
        awake, overdue = held.look(now, lambda i, reached=reached: reached.get(i, -1))
        for one in awake + overdue:
            waiting.remove(one)
        assert len(held) == len(waiting)
        assert all(one.deadline <= now for one in overdue)
        assert all(one.deadline > now for one in waiting)
        for one in waiting:
            ((wanted, least),) = one.newest.items()
            assert reached.get(wanted, -1) < least
        for i in range(3):
            deadlines = [one.deadline for one in awake if i in one.newest]
            assert deadlines == sorted(deadlines)
    assert sorted(map(id, held.release())) == sorted(map(id, waiting))
    assert (len(held), held.pause(now)) == (0, math.inf)
