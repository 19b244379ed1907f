"""Replay: a label is never known before its row is served, and lag delays it as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Entity, Schema, Stack
from riverdelta.core.link import log_loss
from riverdelta.evaluation.gate import Gate
from riverdelta.lab.replay import _schedule, replay
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.admission import Admission

STREAM = Simulation(rows=600, users=20, items=30, seed=2).generate().stream
BASE = np.zeros(len(STREAM), np.float32)


def stack():
    made = Stack([Entity("user_id", slots=64)])
    made.bind(Schema.of({"user_id": "int64"}))
    return made


def test_without_lag_each_row_is_served_by_what_came_before_it():
    done, gate = replay(stack(), STREAM, BASE), Gate()
    by_hand, rows = stack(), len(STREAM)
    for i in range(rows):
        columns = {"user_id": STREAM.columns["user_id"][i : i + 1]}
        offset = BASE[i : i + 1].reshape(1, 1)
        corrected = by_hand.predict(columns, offset)[:, 0]
        assert corrected[0] == done.corrected[i]
        assert gate.serve(BASE[i : i + 1], corrected, STREAM.label[i : i + 1])[0] == done.served[i]
        by_hand.learn(columns, offset, STREAM.label[i : i + 1], np.ones(1, np.float32))


def test_a_lag_of_one_row_is_no_lag():
    assert np.array_equal(replay(stack(), STREAM, BASE, lag_rows=1).served, replay(stack(), STREAM, BASE).served)


def test_everything_is_learned_in_the_end_whatever_the_lag():
    made = [stack() for _ in range(3)]
    for one, lag in zip(made, ({}, {"lag_rows": 100}, {"lag_seconds": 50.0}), strict=True):
        replay(one, STREAM, BASE, **lag)
    assert len({one.digest() for one in made}) == 1


def test_a_lag_longer_than_the_stream_serves_the_base():
    assert (replay(stack(), STREAM, BASE, lag_seconds=1e9).served == BASE).all()


@pytest.mark.parametrize("lag", [{}, {"lag_rows": 7}, {"lag_rows": 100}, {"lag_seconds": 30.0}])
def test_the_gate_judges_what_was_served_and_its_bound_holds(lag):
    done = replay(stack(), STREAM, BASE, **lag)
    losses = [float(log_loss(z, STREAM.label).sum()) for z in (done.served, done.base, done.corrected)]
    report = done.gate.report()
    assert report["excess"] == pytest.approx(losses[0] - min(losses[1:]), abs=1e-2)
    assert report["excess"] <= report["bound"]


@pytest.mark.parametrize("lag", [{}, {"lag_rows": 7}])
def test_what_is_not_admitted_is_served_and_not_learned(lag):
    class EveryOther(Admission):
        def admit(self, examples):
            return examples.columns["user_id"] % 2 == 0

    taught, expected = stack(), stack()
    done = replay(taught, STREAM, BASE, admission=EveryOther(), **lag)
    even = STREAM.columns["user_id"] % 2 == 0
    kept = {"user_id": STREAM.columns["user_id"][even]}
    expected.learn(kept, BASE[even].reshape(-1, 1), STREAM.label[even], np.ones(even.sum(), np.float32))
    assert taught.digest() == expected.digest()
    assert (done.corrected[~even] == BASE[~even]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(0, 20), st.floats(0, 50))
def test_no_row_is_served_with_a_label_that_is_not_known_yet(times, lag_rows, lag_seconds):
    times = np.sort(np.array(times))
    if not lag_rows and not lag_seconds:
        return
    covered = []
    for first, last, known in _schedule(times, lag_rows, lag_seconds):
        for row in range(first, last):
            covered.append(row)
            assert known <= row
            assert all(times[k] <= times[row] - lag_seconds for k in range(known)) or not lag_seconds
            if lag_rows:
                assert row - known < lag_rows or lag_seconds
    assert covered == list(range(len(times)))


@pytest.mark.parametrize("lag", [{"lag_rows": 50}, {"lag_seconds": 200.0}])
def test_staleness_costs(lag):
    stream = Simulation(rows=8_000, users=2_000, items=50, user=1.5, seed=4).generate().stream
    base = np.zeros(len(stream), np.float32)

    def loss(z):
        return float(np.mean(np.logaddexp(0, z) - stream.label * z))

    assert loss(replay(stack(), stream, base).served) < loss(replay(stack(), stream, base, **lag).served)
