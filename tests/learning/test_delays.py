"""Clicks that come late leave scores calibrated, and so does learning a tenth of the negatives."""

from dataclasses import replace

import numpy as np
import pytest

from riverdelta import Calibration, Entity, Schema, Stack
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.records import Feedback, Impressions, Tick
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

ROWS, WINDOW = 200_000, 60.0


def new_stack():
    stack = Stack([Calibration(), Entity("user_id")])
    stack.bind(Schema.of({"user_id": "int64"}))
    return stack


class Weighed(Joiner):
    """A joiner whose examples have other weights than its own."""

    def __init__(self, weigh, *rules, **terms):
        super().__init__(*rules, **terms)
        self.weigh = weigh

    def push(self, sequence, record):
        made = super().push(sequence, record)
        return made and replace(made, weight=self.weigh(made))


class Served:
    """What the corrections made of a log, by calibration, and how many examples there were."""

    def __init__(self, log, base, joiner):
        self.learner, self.log = Learner(new_stack(), joiner, Prequential()), log
        rows = log.stream.select("user_id").columns, base, log.stream.label, log.stream.time
        self.done = replay(self.learner, *rows, label_time=log.label_time, refresh_rows=128)
        self.examples = self.learner.examples

    def calibration_ratio(self):
        """Σ score / Σ label over the second half."""
        return self.scores() / self.log.stream.label[ROWS // 2 :].sum()

    def bias(self):
        """Σ score / Σ true probability - 1 over the second half: the calibration ratio without the labels' noise."""
        return self.scores() / self.log.truth[ROWS // 2 :].sum() - 1.0

    def scores(self):
        return LOG_LOSS.inverse_link(self.done.corrected[ROWS // 2 :]).sum()


@pytest.fixture(scope="module")
def served():
    """Serve one log with a mean delay of two windows, the joiner set up as named, and return what came of it."""
    log = Simulation(rows=ROWS, delay=2 * WINDOW, users=20, intercept=0.3, item=0.3, taste=0.0, drift=0.0, start=1.0, seed=3)
    log = log.generate()
    base, known = np.full(ROWS, LOG_LOSS.link(log.truth.mean())[0, 0], np.float32), {}

    def serve(*rules, weigh=None, **settings):
        name = (*rules, weigh, *settings.items())
        if name not in known:
            joiner = Joiner(*rules, **settings) if weigh is None else Weighed(weigh, *rules, **settings)
            known[name] = Served(log, base, joiner)
        return known[name]

    return serve


def paper(examples):
    """Fake-negative weights of Ktena et al. 2019."""
    p = LOG_LOSS.inverse_link(examples.corrected)[:, 0]
    return np.where(examples.label == 1, 1 + p, (1 - p) * (1 + p)).astype(np.float32)


def test_late_positives_leave_scores_calibrated_where_the_naive_learner_is_a_tenth_low(served):
    assert served("silence", WINDOW, late="plain").calibration_ratio() < 0.9
    weighted = served("silence", WINDOW)
    assert weighted.calibration_ratio() == pytest.approx(1.0, abs=0.02)
    assert weighted.bias() == pytest.approx(0.0, abs=0.02)


def test_the_weights_of_the_paper_are_too_high_where_only_some_positives_are_late(served):
    assert served("silence", WINDOW, weigh=paper).calibration_ratio() > 1.1


def test_a_tenth_of_the_negatives_gives_the_same_calibration_from_half_the_examples(served):
    whole, tenth = served("silence", WINDOW), served("silence", WINDOW, keep_negatives=0.1)
    assert tenth.calibration_ratio() == pytest.approx(whole.calibration_ratio(), abs=0.02)
    assert tenth.examples < 0.55 * whole.examples


def test_a_tenth_of_explicit_negatives_gives_the_same_calibration_too(served):
    whole, tenth = served("explicit"), served("explicit", keep_negatives=0.1)
    assert tenth.calibration_ratio() == pytest.approx(whole.calibration_ratio(), abs=0.02)
    # Learned as they come, they are a stream of far too many positives.
    unweighted = served("explicit", keep_negatives=0.1, weigh=lambda examples: np.ones_like(examples.weight))
    assert unweighted.calibration_ratio() > 1.3


class Spy(Joiner):
    """A joiner that keeps the records it was given."""

    records = ()

    def push(self, sequence, record):
        self.records = (*self.records, record)
        return super().push(sequence, record)


def pushed(log, joiner, rows):
    learner = Learner(new_stack(), joiner, Prequential())
    columns, base = log.stream.select("user_id").columns, np.zeros(len(log.stream), np.float32)
    stream = log.stream
    return replay(learner, columns, base, stream.label, stream.time, label_time=log.label_time, refresh_rows=rows), learner


def test_each_click_is_sent_once_after_its_delay_and_is_late_where_a_tick_closed_its_window():
    log, spy = Simulation(rows=3_000, delay=30.0, seed=1).generate(), Spy("silence", 20.0)
    pushed(log, spy, rows=10)
    tick, clicks = 0.0, []
    for position, record in enumerate(spy.records):
        if isinstance(record, Tick):
            assert record.time >= tick
            assert log.label_time[clicks].max(initial=0.0) <= record.time
            tick = record.time
        elif isinstance(record, Feedback) and not np.isnan(record.label).any():
            rows = record.request
            assert record.late.tolist() == (log.stream.time[rows] + 20.0 <= tick).tolist()
            assert np.array_equal(record.time, log.label_time[rows])
            clicks += rows.tolist()
        elif isinstance(record, Impressions):
            assert (record.time >= tick).all()
            assert set(record.position.tolist()) == {position}
    assert sorted(clicks) == np.flatnonzero(log.stream.label == 1).tolist()
    assert spy.unmatched == 0


def test_a_run_is_the_same_each_time():
    log = Simulation(rows=2_000, delay=30.0).generate()
    first, second = (pushed(log, Joiner("silence", 20.0, keep_negatives=0.5), rows=64) for _ in range(2))
    assert np.array_equal(first[0].served, second[0].served)
    assert first[1].stack.digest() == second[1].stack.digest()
    assert first[1].examples == second[1].examples
