"""Replay: a label is never known before its row is served, and lag delays it as stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Adapt, Calibration, Entity, Schema, Stack
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.settings import Settings
from riverdelta.evaluation.drift import Drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.attacks import attack
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import first_served_with, replay

STREAM = Simulation(rows=600, users=20, items=30, seed=2).generate().stream
BASE = np.zeros(len(STREAM), np.float32)
SCHEMA = Schema.of({"user_id": "int64"})


def new_stack():
    made = Stack([Entity("user_id", slots=64)])
    made.bind(SCHEMA)
    return made


def new_learner(stack=None, joiner=None, **given):
    return Learner(stack or new_stack(), joiner or Joiner(), Prequential(), **given)


def replayed(learner, stream=STREAM, base=BASE, lag_rows=1, lag_seconds=0.0, **given):
    known = stream.time + lag_seconds if lag_seconds else None
    return replay(learner, stream.columns, base, stream.label, stream.time, label_time=known, refresh_rows=lag_rows, **given)


def test_without_lag_each_row_is_served_by_what_came_before_it():
    done, gate = replayed(new_learner()), Gate()
    by_hand, rows = new_stack(), len(STREAM)
    for i in range(rows):
        columns = {"user_id": STREAM.columns["user_id"][i : i + 1]}
        offset = BASE[i : i + 1].reshape(1, 1)
        corrected = by_hand.predict(columns, offset)[:, 0]
        assert corrected[0] == done.corrected[i]
        assert gate.serve(BASE[i : i + 1], corrected, STREAM.label[i : i + 1])[0] == done.served[i]
        by_hand.learn(columns, offset, STREAM.label[i : i + 1], np.ones(1, np.float32))


def everything(learner, done):
    """All that a learner has in the end, but for what it has of records: their positions, and the joiner's counts of rows."""
    of_records = ("learner", "gate/delays", "joiner/counts")
    state = {name: array.tobytes() for name, array in learner.state().items() if name not in of_records}
    logged = [array.tobytes() for array in (done.base, done.corrected, done.served, done.learned)]
    return state | {"logged": logged, "counts": (learner.examples, learner.learned), "gate": learner.gate.report()}


@pytest.mark.parametrize(("kind", "limit", "shadow"), [("stale", None, False), ("stale", 3, False), ("flood", None, True)])
def test_rows_learned_at_once_are_those_of_one_record_a_row_bit_for_bit(kind, limit, shadow):
    simulated = Simulation(rows=6_000, users=100, items=60, user=1.5, seed=6).generate().stream
    done = attack(simulated.select("user_id", "item_id"), kind, begin=0.5, length=0.25)
    stream, keys = done.stream, ["user_id", "item_id"]
    base = np.random.default_rng(0).normal(size=len(stream)).astype(np.float32)
    base[[50, 2_000]] = np.nan, 1e6
    weight = np.random.default_rng(1).choice(np.float32([0, 0.5, 1, 30]), len(stream), p=[0.1, 0.2, 0.6, 0.1])
    weight = None if shadow else weight
    schema = Schema.of(dict.fromkeys(keys, "int64"))
    ends = []
    # Labels that are known when their rows are scored are learned before the next row: the same, said row by row.
    for known in (None, stream.time):
        stack = Stack([Calibration(), Entity("item_id", slots=64), Entity("user_id", slots=128, forget=0.98)])
        stack.bind(schema)
        learner = new_learner(
            stack,
            admission=Admission.of(keys, Settings(max_updates_per_entity=limit, entity_window_seconds=500.0)),
            adaptation=Adaptation(Drift(schema, reference=1_024)),
            shadow=shadow,
        )
        given = {"label_time": known, "source": done.source, "weight": weight}
        run = replay(learner, stream.columns, base, stream.label, stream.time, **given)
        ends.append(everything(learner, run))
        assert learner.admission.breaker.trips == (kind == "stale")
        assert learner.admission.report()["limited"] if limit else run.learned[:1_000].all()
    assert ends[0] == ends[1]


def test_a_weight_of_0_teaches_nothing_and_no_weight_is_a_weight_of_1():
    ones = np.ones(len(STREAM), np.float32)
    same, none, half = (new_learner() for _ in range(3))
    plain = replayed(new_learner())
    assert np.array_equal(replayed(same, weight=ones).served, plain.served)
    replayed(none, weight=0 * ones)
    assert none.stack.digest() == new_learner().stack.digest()
    report = none.prequential.report()["all"]["served"]
    assert (report["examples"], report["loss"], none.gate.report()["excess"]) == (len(STREAM), None, 0.0)
    replayed(half, weight=np.where(np.arange(len(STREAM)) % 2, 1, 0).astype(np.float32))
    report, odd = half.prequential.report()["all"]["base"], slice(1, None, 2)
    assert report["loss"] == pytest.approx(LOG_LOSS.value(BASE[odd], STREAM.label[odd]).mean())
    assert report["calibration_ratio"] == pytest.approx(0.5 * len(STREAM.label[odd]) / STREAM.label[odd].sum())


def test_a_response_to_drift_and_sampled_negatives_come_at_their_row_as_with_a_lag_of_one_row():
    for terms in ({"adaptation": Adaptation(None, Adapt())}, {"joiner": Joiner(keep_negatives=0.3)}):
        learner = new_learner(**terms)
        replayed(learner)
        assert learner.position == 2 * len(STREAM)  # no row was learned at once


@pytest.mark.parametrize("max_bytes", [1 << 28, 1 << 12])
def test_everything_is_learned_in_the_end_whatever_the_lag_and_the_memory(max_bytes):
    made = [new_learner(joiner=Joiner(max_bytes=max_bytes)) for _ in range(3)]
    for one, lag in zip(made, ({}, {"lag_rows": 100}, {"lag_seconds": 50.0}), strict=True):
        assert replayed(one, **lag).learned.all()
    assert len({one.stack.digest() for one in made}) == 1
    assert {one.joiner.unmatched for one in made} == {0}


def test_a_lag_longer_than_the_stream_serves_the_base():
    assert (replayed(new_learner(), lag_seconds=1e9).served == BASE).all()


@pytest.mark.parametrize("lag", [{}, {"lag_rows": 7}, {"lag_rows": 100}, {"lag_seconds": 30.0}])
def test_the_gate_judges_what_was_served_and_its_bound_holds(lag):
    learner = new_learner()
    done = replayed(learner, **lag)
    losses = [float(LOG_LOSS.value(z, STREAM.label).sum()) for z in (done.served, done.base, done.corrected)]
    report = learner.gate.report()
    assert report["excess"] == pytest.approx(losses[0] - min(losses[1:]), abs=1e-2)
    assert report["excess"] <= report["bound"]


@pytest.mark.parametrize("lag", [{}, {"lag_rows": 7}])
def test_what_is_not_admitted_is_served_and_not_learned(lag):
    class EveryOther(Admission):
        def admit(self, examples, watched=True):
            even = examples.columns["user_id"] % 2 == 0
            return even, ~even & False

    learner, expected = new_learner(admission=EveryOther()), new_stack()
    done = replayed(learner, **lag)
    even = STREAM.columns["user_id"] % 2 == 0
    kept = {"user_id": STREAM.columns["user_id"][even]}
    expected.learn(kept, BASE[even].reshape(-1, 1), STREAM.label[even], np.ones(even.sum(), np.float32))
    assert learner.stack.digest() == expected.digest()
    assert (done.learned == even).all()
    assert (done.corrected[~even] == BASE[~even]).all()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=60), st.integers(1, 20), st.booleans())
def test_no_row_is_served_with_a_label_that_is_not_known_yet_and_each_is_as_soon_as_it_may_be(rows, refresh, constant):
    rows = np.array(rows, np.float64)
    time = np.sort(rows[:, 0])
    known = time + (rows[0, 1] if constant else rows[:, 1])
    for row, first in enumerate(first_served_with(time, known, refresh).tolist()):
        assert first % refresh == 0
        for refreshed in range(0, len(time), refresh):
            assert (refreshed >= first) == (refreshed > row and known[row] <= time[refreshed])


@pytest.mark.parametrize("lag", [{"lag_rows": 50}, {"lag_seconds": 200.0}])
def test_staleness_costs(lag):
    stream = Simulation(rows=8_000, users=2_000, items=50, user=1.5, seed=4).generate().stream
    base = np.zeros(len(stream), np.float32)

    def loss(z):
        return float(np.mean(np.logaddexp(0, z) - stream.label * z))

    late = replayed(new_learner(), stream, base, **lag)
    assert loss(replayed(new_learner(), stream, base).served) < loss(late.served)
