"""Clicks that come late leave scores calibrated, and so does learning a tenth of the negatives."""

import numpy as np
import pytest

from riverdelta import Calibration, Entity, Schema, Stack
from riverdelta.core.link import logit, sigmoid
from riverdelta.core.records import Feedback, Impressions, Tick
from riverdelta.lab.delays import DelayedService
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.joiner import Joiner

ROWS, WINDOW = 200_000, 60.0


def new_stack():
    stack = Stack([Calibration(), Entity("user_id")])
    stack.bind(Schema.of({"user_id": "int64"}))
    return stack


@pytest.fixture(scope="module")
def served():
    """Serve one log with a mean delay of two windows, the joiner set up as named, and return what came of it."""
    log = Simulation(rows=ROWS, delay=2 * WINDOW, users=20, intercept=0.3, item=0.3, taste=0.0, drift=0.0, start=1.0, seed=3)
    log = log.generate()
    base, known = np.full(ROWS, logit(log.truth.mean()), np.float32), {}

    def serve(*rules, weigh=None, **settings):
        name = (*rules, weigh, *settings.items())
        if name not in known:
            known[name] = DelayedService(log, base, rows=128, weigh=weigh).run(new_stack(), Joiner(*rules, **settings))
        return known[name]

    return serve


def paper(examples):
    """Fake-negative weights of Ktena et al. 2019."""
    p = sigmoid(examples.corrected)
    return np.where(examples.label == 1, 1 + p, (1 - p) * (1 + p)).astype(np.float32)


def test_late_positives_leave_scores_calibrated_where_the_naive_learner_is_a_tenth_low(served):
    assert served("silence", WINDOW, late="plain").calibration_ratio(0.5) < 0.9
    weighted = served("silence", WINDOW)
    assert weighted.calibration_ratio(0.5) == pytest.approx(1.0, abs=0.02)
    assert weighted.bias(0.5) == pytest.approx(0.0, abs=0.02)


def test_the_weights_of_the_paper_are_too_high_where_only_some_positives_are_late(served):
    assert served("silence", WINDOW, weigh=paper).calibration_ratio(0.5) > 1.1


def test_a_tenth_of_the_negatives_gives_the_same_calibration_from_half_the_examples(served):
    whole, tenth = served("silence", WINDOW), served("silence", WINDOW, keep_negatives=0.1)
    assert tenth.calibration_ratio(0.5) == pytest.approx(whole.calibration_ratio(0.5), abs=0.02)
    assert tenth.examples < 0.55 * whole.examples


def test_a_tenth_of_explicit_negatives_gives_the_same_calibration_too(served):
    whole, tenth = served("explicit"), served("explicit", keep_negatives=0.1)
    assert tenth.calibration_ratio(0.5) == pytest.approx(whole.calibration_ratio(0.5), abs=0.02)
    # Learned as they come, they are a stream of far too many positives.
    unweighted = served("explicit", keep_negatives=0.1, weigh=lambda examples: np.ones_like(examples.weight))
    assert unweighted.calibration_ratio(0.5) > 1.3


class Spy:
    """A joiner that keeps the records it was given."""

    def __init__(self, joiner):
        self.joiner, self.window, self.records = joiner, joiner.window, []

    def push(self, sequence, record):
        self.records.append(record)
        return self.joiner.push(sequence, record)


def test_each_click_is_heard_once_after_its_delay_and_is_late_where_a_tick_closed_its_window():
    log, spy = Simulation(rows=3_000, delay=30.0, seed=1).generate(), Spy(Joiner("silence", 20.0))
    DelayedService(log, np.zeros(3_000, np.float32), rows=10).run(new_stack(), spy)
    tick, clicks = 0.0, []
    for position, record in enumerate(spy.records):
        if isinstance(record, Tick):
            assert record.time >= tick
            tick = record.time
        elif isinstance(record, Feedback) and not np.isnan(record.label).any():
            rows = record.request * 10 + record.index
            assert record.late.tolist() == (log.stream.time[rows] + 20.0 <= tick).tolist()
            assert np.array_equal(record.time, log.label_time[rows])
            clicks += rows.tolist()
        elif isinstance(record, Impressions):
            assert (record.time >= tick).all()
            assert set(record.position.tolist()) == {position}
    assert sorted(clicks) == np.flatnonzero((log.stream.label == 1) & (log.label_time <= tick)).tolist()
    assert spy.joiner.unmatched == 0


def test_a_run_is_the_same_each_time():
    log = Simulation(rows=2_000, delay=30.0).generate()
    service = DelayedService(log, np.zeros(2_000, np.float32))
    first, second = (service.run(new_stack(), Joiner("silence", 20.0, keep_negatives=0.5)) for _ in range(2))
    assert np.array_equal(first.logit, second.logit)
    assert first.examples == second.examples
