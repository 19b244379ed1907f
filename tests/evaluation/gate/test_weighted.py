"""The gate's bound where examples have weights: through the real joiner and learner, and on streams made to break it."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import expit

from riverdelta import Calibration, Schema, Stack
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.records import Feedback, Impressions, Tick
from riverdelta.evaluation.gate import Gate, hedge
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.observers import Observer

BOUND = LOG_LOSS.bound
#: Served logits are float32, which costs this much for each unit of weight: it is measured, and in no a-priori number.
ROUNDING = 4e-6
SILENCE = {"labels": "silence", "window_seconds": 20.0}
RESIDUALS = {"mild": (-0.5, 0.5), "wild": (-25.0, 25.0)}


def experts(kind, n, rng):
    """(base, corrected): logits float32[n]."""
    base = rng.normal(-0.5, 1.0, n)
    residual = rng.normal(0.0, 1.0, n) if kind == "better" else rng.choice(RESIDUALS[kind], n)
    return base.astype(np.float32), (base + residual).astype(np.float32)


def mix(base, corrected, weight):
    return LOG_LOSS.mix(base, corrected, weight)[0, 0]


def log_loss(logit, label):
    return np.logaddexp(0, logit, dtype=float) - label * np.asarray(logit, float)


class Service(Observer):
    """A learner that is fed one row at a time, each row scored by the newest tables and weight."""

    def __init__(self, **terms):
        stack = Stack([Calibration()])
        stack.bind(Schema())
        self.learner, self.position, self.request, self.now = Learner(stack, Joiner(**terms), Prequential()), 0, 0, 0.0
        self.learner.observers["service"] = self
        self.rows = []

    def push(self, record):
        self.position += 1
        self.learner.push(self.position, record)

    def on_examples(self, position, examples):
        taken, label, importance = examples.measured()
        logits = (logged[taken, 0].tolist() for logged in (examples.base, examples.corrected, examples.served))
        self.rows += zip(*logits, label.tolist(), importance.tolist(), strict=True)

    def score(self, base, corrected):
        self.request += 1
        weight = float(np.float32(self.learner.gate.weight))
        one = np.ones(1, np.int64)
        logits = [np.array([z], np.float32) for z in (base, corrected, mix(base, corrected, weight))]
        self.push(Impressions(1, self.request * one, 0 * one.astype(np.int32), np.array([self.now]), 0 * one, 0 * one,
                              self.position * one, *logits, np.full(1, np.nan, np.float32), {}))  # fmt: skip
        return self.request

    def label(self, request, label, late=False, sent=1.0):
        one = np.ones(1, np.int64)
        self.push(Feedback(one, request * one, 0 * one.astype(np.int32), np.array([label], np.float32),
                           np.array([self.now]), np.array([late]), one, np.float32([sent])))  # fmt: skip

    def explicit(self, base, corrected, label, sent=None):
        """Score rows and label each at once."""
        sent = np.ones(len(label)) if sent is None else sent
        for b, c, y, w in zip(base, corrected, label, sent, strict=True):
            self.label(self.score(b, c), y, sent=w)

    def silent(self, base, corrected, label, rng, sent=None):
        """Score and show a row a second; positives come at once, after 5 seconds, and when silence has made them negatives."""
        due = []
        for b, c, y in zip(base, corrected, label, strict=True):
            self.now += 1.0
            request = self.score(b, c)
            self.label(request, math.nan)
            self.push(Tick(self.now))
            if y:
                wait = int(rng.choice([0, 5, 60]))
                due.append((self.now + wait, request, wait >= SILENCE["window_seconds"]))
            for _, request, late in [row for row in due if row[0] <= self.now]:
                self.label(request, 1.0, late, 1.0 if sent is None else float(rng.choice(sent)))
            due = [row for row in due if row[0] > self.now]

    def excess(self):
        """What was served cost over the better expert, from the examples alone, in nats."""
        base, corrected, served, label, weight = np.array(self.rows).T
        losses = [float((weight * log_loss(z, label)).sum()) for z in (served, base, corrected)]
        return losses[0] - min(losses[1:])

    def holds(self):
        excess, report = self.excess(), self.learner.gate.report()
        assert report["excess"] == pytest.approx(excess, rel=1e-4, abs=0.05)
        assert excess <= report["bound"] <= report["worst_case"] + ROUNDING * sum(abs(row[4]) for row in self.rows)
        return report


STREAMS = {
    "corrected is better": lambda b, c, rng: rng.random(len(b)) < expit(c),
    "base is better": lambda b, c, rng: rng.random(len(b)) < expit(b),
    "positives for base, negatives for corrected": lambda b, c, rng: c < b,
    "they take turns": lambda b, c, rng: (c > b) == (np.arange(len(b)) // 40 % 2 == 0),
    "turned at the worst moment": lambda b, c, rng: (c > b) == (np.arange(len(b)) < len(b) // 2),
}


@pytest.mark.parametrize("keep", [0.1, 0.02])
@pytest.mark.parametrize("residuals", ["better", "wild", "mild"])
@pytest.mark.parametrize("kind", STREAMS)
def test_with_sampled_negatives_and_labels_at_once_the_excess_is_within_the_bound(kind, residuals, keep):
    rng, service = np.random.default_rng(3), Service(keep_negatives=keep)
    base, corrected = experts(residuals, 370, rng)
    label = STREAMS[kind](base, corrected, rng).astype(np.float32)
    service.explicit(base, corrected, label)
    report = service.holds()
    assert report["delay"] == 0
    assert report["rate"] == pytest.approx(keep)


@pytest.mark.parametrize("keep", [1.0, 0.2, 0.05])
@pytest.mark.parametrize("residuals", ["better", "wild"])
def test_with_negatives_of_silence_taken_back_by_late_positives_the_excess_is_within_both_bounds(residuals, keep):
    rng, service = np.random.default_rng(4), Service(**SILENCE, keep_negatives=keep)
    base, corrected = experts(residuals, 400, rng)
    service.silent(base, corrected, rng.random(400) < 0.4, rng)
    service.holds()
    assert any(row[4] < 0 for row in service.rows)


SENT = {"of all sizes": [0.0, 0.01, 1.0, 7.0, 100.0], "light, and one heavy": [0.1] * 99 + [100.0], "alike": [50.0]}


@pytest.mark.parametrize("keep", [1.0, 0.1])
@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("kind", STREAMS)
def test_with_weights_of_senders_times_those_of_sampling_the_weighted_excess_is_within_the_bound(kind, sent, keep):
    rng, service = np.random.default_rng(7), Service(keep_negatives=keep)
    base, corrected = experts("wild", 300, rng)
    label = STREAMS[kind](base, corrected, rng).astype(np.float32)
    weight = rng.choice(SENT[sent], 300)
    service.explicit(base, corrected, label, weight)
    report, most = service.holds(), max(row[4] for row in service.rows)
    assert report["rate"] == pytest.approx(1 / max(most, 1.0))
    # `Gate` states this for labels at once and weights up to W.
    n = report["examples"]
    assert report["bound"] <= math.log(2) + most * math.log(n + 1) + (most - 1) * math.log(2 * (n + 1)) + 1e-6


@pytest.mark.parametrize("keep", [1.0, 0.2])
@pytest.mark.parametrize("sent", SENT)
def test_with_weights_of_senders_on_late_positives_the_excess_is_within_both_bounds(sent, keep):
    rng, service = np.random.default_rng(8), Service(**SILENCE, keep_negatives=keep)
    base, corrected = experts("wild", 300, rng)
    service.silent(base, corrected, rng.random(300) < 0.4, rng, SENT[sent])
    service.holds()
    assert any(row[4] < 0 for row in service.rows)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-40, 40, width=32), st.floats(-30, 30, width=32), st.booleans(), st.floats(0, 100, width=32)),
             min_size=1, max_size=40),
    st.sampled_from([1.0, 0.3, 0.02]),
)  # fmt: skip
def test_whoever_chooses_labels_and_weights_of_the_range_the_weighted_excess_is_within_the_bound(rows, keep):
    service = Service(keep_negatives=keep)
    base, residual, label, sent = np.array(rows).T
    service.explicit(base.astype(np.float32), (base + residual).astype(np.float32), label.astype(np.float32), sent)
    if service.rows:
        service.holds()


WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 10.0, 50.0, -1.0, -10.0, 1e-30, 1e30]),
    st.floats(0.0, 1.0, width=32),
    st.floats(1.0, 1e6, width=32),
    st.floats(-100.0, 0.0, width=32),
)
#: Base, what is added to it, label, weight, and how many records before the newest one the row was scored.
ABSURD = st.sampled_from([-BOUND, BOUND, 1e6, -1e6, 1.7e7, 3.4e38, -3.4e38])
BASE = st.one_of(st.floats(-40, 40, width=32), ABSURD, st.floats(allow_nan=False, allow_infinity=False, width=32))
LOGITS = BASE, st.floats(-45, 45, width=32)
ROW = st.tuples(*LOGITS, st.booleans(), WEIGHTS, st.integers(0, 12))
RECORDS = st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=25)


def arrays(rows):
    base, residual, label, weight, lag = np.array(rows).T
    return *(column.astype(np.float32) for column in (base, base + residual, label, weight)), lag


def totals(rows):
    """Of the judged rows: served's loss less that of the better expert, Σ|weight|, and the size of the losses in all this."""
    base, corrected, served, label, weight = rows[:, abs(rows[0]) <= BOUND]
    corrected = base + np.clip(corrected - base, -LOG_LOSS.reach, LOG_LOSS.reach)
    losses = [weight * log_loss(z, label) for z in (served, base, corrected)]
    excess = losses[0].sum() - min(losses[1].sum(), losses[2].sum())
    return excess, np.abs(weight).sum(), sum(np.abs(loss).sum() for loss in losses)


@settings(max_examples=120)
@given(RECORDS)
@example([[(-2.0, 4.0, y, 10.0, 12) for y in (True, False) for _ in range(3)]] * 25)
@example([[(0.0, 30.0, True, -10.0, 0), (0.0, 30.0, False, 10.0, 0)]] * 25)
@example([[(1e6, 1.0, False, 1.0, 0)] * 6] * 25)
@example([[(0.0, 30.0, y, w, 9)] for w in (0.1, -0.1, 1e30, -1e30) for y in (True, False)])
def test_whatever_weights_labels_and_delays_are_the_excess_is_within_both_bounds_and_blocks_do_not_matter(records):
    gate, single, weights, seen = Gate(), Gate(), [np.float32(0.5)], []
    for number, rows in enumerate(records, 1):
        base, corrected, label, weight, lag = arrays(rows)
        position = np.maximum(number - 1 - lag, 0).astype(np.int64)
        mixtures = zip(base, corrected, position, strict=True)
        served = np.array([mix(b, c, float(weights[p])) for b, c, p in mixtures], np.float32)
        gate.update(base, corrected, served, label, weight, position)
        for k in range(len(rows)):
            one = slice(k, k + 1)
            single.update(base[one], corrected[one], served[one], label[one], weight[one], position[one])
        seen.append(np.array([base, corrected, served, label, weight], np.float64))
        for each in (gate, single):
            each.note(number)
        weights.append(np.float32(gate.weight))
        excess, heavy, size = totals(np.concatenate(seen, 1))
        report = gate.report()
        assert excess <= report["bound"] + 1e-9 * (size + heavy)
        assert report["bound"] <= report["worst_case"] + ROUNDING * (1 + size + 10 * heavy)
    saved = gate.state()
    assert all(np.array_equal(saved[name], array) for name, array in single.state().items())


@settings(max_examples=50)
@given(st.lists(st.tuples(*LOGITS, st.booleans(), st.floats(0, 100, width=32)), min_size=1, max_size=60))
def test_with_labels_at_once_the_bound_is_that_of_the_theorem_to_rounding(rows):
    base, corrected, label, weight, _ = arrays([(*row, 0) for row in rows])
    gate = Gate()
    served = gate.serve(base, corrected, label, weight)
    v, slow, bound = 0.5, 1.0, math.log(2)
    judged = [row for row in zip(base, corrected, label, weight, strict=True) if abs(row[0]) <= BOUND]
    for t, (b, c, y, w) in enumerate(judged, 1):
        slower = max(slow, float(w))
        bound += (slower - slow) * -math.log(min(v, 1 - v)) + slower * math.log((t + 1) / t)
        slow = slower
        c = float(b) + min(max(float(c) - float(b), -30.0), 30.0)
        u = v * math.exp(float(w) / slow * float(log_loss(b, y) - log_loss(c, y)))
        v = (1 - 1 / (t + 1)) * u / (1 - v + u) + 1 / (t + 1) / 2
    excess, heavy, size = totals(np.array([base, corrected, served, label, weight], np.float64))
    report = gate.report()
    assert report["bound"] == pytest.approx(bound, rel=1e-6, abs=ROUNDING * (1 + size + 10 * heavy))
    assert report["bound"] <= report["worst_case"] + ROUNDING * (1 + size + 10 * heavy)
    assert excess <= report["bound"]
    assert gate.weight == pytest.approx(v, rel=1e-6)


@pytest.mark.parametrize(("weight", "spread"), [(0.1, 1.0), (10.0, 0.1)])
def test_rows_taken_back_cost_no_more_than_the_worst_case_however_many_they_are(weight, spread):
    n, gate = 10_000, Gate()
    base = np.full(n, 10.0, np.float32)
    corrected = base + np.float32(spread) * np.tile(np.float32([1, -1]), n // 2)
    gate.serve(base, corrected, np.zeros(n, np.float32), np.full(n, -weight, np.float32))
    report = gate.report()
    assert report["delay"] == 0
    assert 100.0 < report["bound"] <= report["worst_case"]


def test_far_on_the_bounds_grow_by_a_millionth_of_the_spread_for_each_example_whatever_the_rate():
    million, gate = 1_000_000, Gate()
    base, corrected, good = (
        np.full(million, -20.0, np.float32),
        np.full(million, 10.0, np.float32),
        np.ones(million, np.float32),
    )
    gate.serve(base[:1], corrected[:1], good[:1], np.full(1, 50, np.float32))
    bounds = []
    for _ in range(3):
        served = gate.serve(base, corrected, good)
        report = gate.report()
        assert report["excess"] <= report["bound"] <= report["worst_case"] + 0.1
        bounds.append((report["bound"], report["worst_case"]))
    assert report["rate"] == pytest.approx(1 / 50)
    for now, before in zip(bounds[2], bounds[0], strict=True):
        assert now - before <= 2 * 50 * math.log(3) + 2 * million * 1.01e-6 * 30
    assert gate.weight == 1 - 1e-6
    assert np.float32(gate.weight) < 1.0
    assert log_loss(served[-1], 1.0) == pytest.approx(1e-6 + math.exp(-10), rel=1e-3)
    gate.serve(base[:3_000], corrected[:3_000], base[:3_000] * 0)
    assert gate.weight == 1e-6


def test_served_costs_a_millionth_an_example_more_than_the_mixture_and_the_worst_case_has_that_too():
    n, gate = 3_000_000, Gate()
    gate.serve(np.full(n, -20.0, np.float32), np.full(n, 10.0, np.float32), np.ones(n, np.float32))
    report = gate.report()
    assert 1.5 < report["bound"] - math.log(2) - math.log(n + 1) < 3.0
    assert report["excess"] <= report["bound"] <= report["worst_case"]


def test_what_keeping_away_from_0_and_1_has_cost_does_not_slow_the_gate_down():
    gate, one = Gate(), np.ones(hedge.STRIDE, np.float32)
    saved = gate.state()
    saved["state"].view(hedge.STATE)[["mixed", "far_spread"]] = 30.0, 30.0 / hedge.FAR_COST
    gate.load(saved)
    gate.serve(one, one, one)
    assert gate.report()["rate"] == 1.0


#: After 370 examples of weights 1 and 50, labels at once, whose excess version 0.1 put at 283 nats of at most 6.6.
OF_0_1 = [
    370.0, 0.10672775998610863, 0.027595603640698057, -5021.348735703324, -283.1972040938536, 296.82623837614545,
    1.7615941559557646, 1.0375938075510645, 1.000777346326314, 100.0, 24652.0, 5.494764830964527, 0.0, 0.0, 0.0, 0.0, 0.0,
]  # fmt: skip


@pytest.mark.parametrize("more", [0, 200])
def test_a_state_of_version_0_1_is_gone_on_from_with_bounds_that_hold_for_all_its_examples(more):
    gate = Gate()
    gate.load({"hedge": np.array(OF_0_1), "delays": np.array([[-1.0, 0.0, 0.0, 0.0, 0.5]])})
    before = gate.report()
    assert before["excess"] == pytest.approx(283.16, abs=0.01)
    rng = np.random.default_rng(0)
    base, corrected = experts("wild", more, rng)
    label = (corrected < base).astype(np.float32)
    gate.serve(base, corrected, label, np.where(label == 1, 1, 50).astype(np.float32))
    report = gate.report()
    assert report["examples"] == 370 + more
    assert before["weight"] == OF_0_1[1]
    assert report["excess"] <= report["bound"] <= report["worst_case"] + ROUNDING * 50 * report["examples"]


@pytest.mark.parametrize(("examples", "bound"), [(999.0, math.log(2) + math.log(1_000)), (2_000_000.0, 16.81)])
def test_a_state_of_version_0_1_with_weights_up_to_1_keeps_its_bound(examples, bound):
    old = np.zeros(17)
    old[[0, 1, 2, 6, 7, 8]] = examples, 0.75, 1.0, 1.0, 1.0, 1.0
    gate = Gate()
    gate.load({"hedge": old, "delays": np.array([[-1.0, 0.0, 0.0, 0.0, 0.5]])})
    report = gate.report()
    assert report["bound"] == pytest.approx(bound, abs=0.01)
    assert report["worst_case"] >= report["bound"]
