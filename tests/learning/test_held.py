"""Held: what comes while the breaker is open is learned later, as if it had come then, or is dropped and counted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Ranking, Schema, Stack
from riverdelta.checks import Part, check
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.admission import Admission
from riverdelta.learning.held import Held
from riverdelta.learning.influence import Limiter
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from tripping import TRIP, Trips

ROWS = 3_000
RNG = np.random.default_rng(0)
COLUMNS = {"user": RNG.integers(0, 30, ROWS), "vec": RNG.normal(size=(ROWS, 3)).astype(np.float32)}
BASE = RNG.normal(size=ROWS).astype(np.float32)
BASE[[70, 2_500]] = np.nan
LABEL = RNG.integers(0, 2, ROWS).astype(np.float32)
WEIGHT = RNG.uniform(0, 4, ROWS).astype(np.float32)


def new_stack():
    stack = Stack([Calibration(), Entity("user", on=["vec"], slots=64)])
    stack.bind(Schema.of({"user": "int64", "vec": "float32[3]"}))
    return stack


def examples(start, stop, trip=None):
    source = np.ones(stop - start, np.int64)
    if trip is not None and start <= trip < stop:
        source[trip - start] = TRIP
    rows = {name: column[start:stop] for name, column in COLUMNS.items()}
    made = Examples.unserved(rows, BASE[start:stop], LABEL[start:stop], np.arange(start, stop) / 10, source)
    object.__setattr__(made, "weight", WEIGHT[start:stop])
    return made


def learner(breaker=True, limit=None):
    limiter = Limiter(["user"], limit, 60.0) if limit else None
    return Learner(new_stack(), Joiner(), Prequential(), admission=Admission(Trips() if breaker else None, limiter))


def learned(cuts, trip, resume, skip=False, limit=None, breaker=True):
    """A learner that gets all rows in blocks that end at `cuts` and at `resume`, where the breaker is reset."""
    one = learner(breaker, limit)
    edges = sorted({0, *cuts, resume, ROWS})
    for start, stop in zip(edges, edges[1:], strict=False):
        one.learn(examples(start, stop, trip))
        if stop == resume:
            one.resume(skip)
    return one


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, ROWS - 1), max_size=6),
    st.integers(0, 2_000),
    st.integers(2_001, ROWS),
    st.sampled_from([None, 15]),
)
def test_the_tables_are_those_of_a_learner_whose_breaker_has_not_tripped(cuts, trip, resume, limit):
    one, never = learned(cuts, trip, resume, limit=limit), learned([], trip, ROWS, limit=limit, breaker=False)
    assert one.stack.digest() == never.stack.digest()
    assert (one.learned, one.examples, len(one.held)) == (never.learned, ROWS, 0)
    if limit:
        assert one.admission.limiter.refused == never.admission.limiter.refused > 0


@settings(max_examples=25)
@given(st.lists(st.integers(1, ROWS - 1), max_size=6), st.integers(0, 2_000), st.integers(2_001, ROWS))
def test_what_is_skipped_is_never_learned_and_is_counted(cuts, trip, resume):
    one, expected = learned(cuts, trip, resume, skip=True), learner(breaker=False)
    expected.learn(examples(0, trip))
    expected.learn(examples(resume, ROWS))
    assert one.stack.digest() == expected.stack.digest()
    assert one.held.report() == {"rows": 0, "bytes": 0, "since": None, "dropped": 0, "skipped": resume - trip}


def test_while_it_is_open_the_tables_stand_still_and_measures_go_on():
    one = learner()
    one.learn(examples(0, 1_000))
    before, measured = one.stack.digest(), one.prequential.report()["all"]["base"]["examples"]
    one.learn(examples(1_000, 2_500, trip=1_000))
    assert one.stack.digest() == before
    assert one.prequential.report()["all"]["base"]["examples"] == measured + 1_500
    assert one.held.report() | {"bytes": 0} == {"rows": 1_500, "bytes": 0, "since": 100.0, "dropped": 0, "skipped": 0}


def test_what_comes_while_learning_is_frozen_is_not_held_and_what_was_held_before_is_learned_at_the_resume():
    one, expected = learner(), learner(breaker=False)
    one.learn(examples(0, 1_000, trip=500))
    one.frozen = True
    one.learn(examples(1_000, 2_000))
    one.learn_held()  # no settings change, and no relearning, ends the freeze
    assert len(one.held) == 500
    one.resume(skip=False)
    one.learn(examples(2_000, ROWS))
    for start, stop in ((0, 1_000), (2_000, ROWS)):
        expected.learn(examples(start, stop))
    assert one.stack.digest() == expected.stack.digest()


def test_the_status_goes_on_while_many_are_learned():
    one, pulses = learner(), []
    one.learn(examples(0, ROWS, trip=0))
    one.pulse = lambda: pulses.append(len(one.held))
    one.resume(skip=False)
    assert pulses == sorted(pulses, reverse=True)
    assert len(pulses) >= 3
    assert pulses[-1] == 0


def kept(held):
    blocks = []
    while len(held):
        columns, *rest, _, _ = held.take(700)
        blocks.append([*columns.values(), *rest])
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


@settings(max_examples=25)
@given(st.lists(st.integers(0, ROWS), max_size=8), st.integers(1, 4_000))
def test_the_newest_that_fit_are_kept_in_order_however_they_come(cuts, most):
    size = 8 + 3 * 4 + 4 + 8
    held, edges = Held(new_stack(), limit=most * size + size - 1), sorted({0, *cuts, ROWS})
    for start, stop in zip(edges, edges[1:], strict=False):
        held.put(examples(start, stop), np.ones(stop - start, np.bool_))
    first = max(ROWS - most, 0)
    assert (len(held), held.bytes, held.dropped) == (ROWS - first, (ROWS - first) * size, first)
    again = Held(new_stack())
    again.load(held.state())
    for each in (held, again):
        found = kept(each)
        for array, expected in zip(found, (*COLUMNS.values(), BASE.reshape(-1, 1), LABEL, WEIGHT), strict=True):
            assert array.tobytes() == expected[first:].tobytes()


def test_a_lower_limit_drops_the_oldest_at_once_and_one_example_always_fits():
    held = Held(new_stack())
    held.put(examples(0, 2_000), np.ones(2_000, np.bool_))
    held.resize(100 * 32)
    assert (len(held), held.dropped) == (100, 1_900)
    held.resize(1)
    assert (len(held), held.dropped) == (1, 1_999)
    assert held.take(5)[2] == LABEL[1_999]


def test_it_goes_on_from_its_state_and_one_of_another_stack_or_an_earlier_version_is_named():
    def feed(held, start, stop):
        if start < stop:
            held.put(examples(start, stop), np.arange(start, stop) % 3 > 0)

    check(Part(lambda: Held(new_stack(), limit=40_000), feed, 2_500, optional=("*",)))
    held = Held(new_stack())
    held.put(examples(0, 10), np.ones(10, np.bool_))
    held.load({})
    assert len(held) == 0
    other = Stack([Calibration()])
    other.bind(Schema())
    with pytest.raises(Corrupt, match="'rows' is uint8"):
        held.load(Held(other).state())


def test_lists_are_kept_with_the_propensities_of_their_rows():
    stack = Stack(Calibration(), Ranking())
    stack.bind(Schema())
    held, label, group = Held(stack), np.float32([1, 0, 1, 0]), np.array([1, 1, 2, 2])
    lists = Examples.unserved({}, np.zeros(4, np.float32), label, np.arange(4.0), group=group)
    held.put(replace(lists, propensity=np.float32([1, 0.5, 0.25, 1])), group == 1)
    held.put(lists, group == 2)
    *_, groups, propensity = held.take(10)
    assert (groups.tolist(), propensity.tolist()) == ([1, 1, 2, 2], [1, 0.5, 1, 1])
