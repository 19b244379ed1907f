"""Held calls: each is let go of once, at the first look at which it may be judged or has waited too long."""

import math

import numpy as np

from riverdelta.core.records import Feedback
from riverdelta.storage.journal.held import Call, Held


def call(deadline, *requests):
    keys = np.array([(incarnation, request, 0) for incarnation, request in requests], np.int64)
    incarnation, request, index = keys.reshape(-1, 3).T
    of = {name: np.zeros(len(keys)) for name in ("label", "time", "late", "source")}
    return Call(Feedback(incarnation, request, index, **of), deadline)


def test_a_call_needs_the_newest_request_of_each_incarnation_that_it_names():
    assert call(1.0, (7, 3), (7, 9), (8, 0), (7, 4)).newest == {7: 9, 8: 0}


def test_looks_come_at_pauses_that_double_up_to_the_longest_and_begin_anew_with_the_next_call():
    held, now, pauses = Held(0.01, 0.05), 100.0, []
    assert held.pause(now) == math.inf
    held.hold(call(math.inf, (7, 3)), now, again=False)
    for _ in range(5):
        pauses.append(round(held.pause(now), 9))
        now += held.pause(now)
        (one,) = held.release()
        held.hold(one, now, again=True)
    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.05]
    held.hold(call(math.inf, (8, 3)), now, again=False)
    assert round(held.pause(now), 9) == 0.01


def test_newcomers_do_not_put_the_next_look_off():
    held = Held(0.01, 0.05)
    held.hold(call(math.inf, (7, 3)), 100.0, again=False)
    held.hold(call(math.inf, (7, 3)), 100.009, again=False)
    assert round(held.pause(100.009), 9) == 0.001


def test_calls_are_let_go_of_once_and_in_the_order_in_which_they_came():
    held = Held(0.01, 0.05)
    calls = [call(math.inf, (n % 2, n)) for n in range(5)]
    for n, one in enumerate(calls):
        held.hold(one, float(n), again=False)
    assert held.release() == calls
    assert (len(held), held.release(), held.pause(9.0)) == (0, [], math.inf)
