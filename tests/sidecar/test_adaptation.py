"""Adaptation: a drift alarm is answered as declared, told to the journal once, and repeated exactly by a replay."""

from dataclasses import replace

import numpy as np
import pytest

from riverdelta import Adapt, Freeze
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.recall import Replayed

TERMS = {"drift_reference_examples": 1_024, "drift_run_length": 1e4, "breaker": "off"}


@pytest.fixture
def start(definition, tmp_path, make_rig):
    def made(response, **given):
        return make_rig(replace(definition, on_drift=response), tmp_path / "home", **TERMS | given)

    return made


def drifted(rig):
    """Labels that follow no score, then are all 1: calibration drifts."""
    for seed in range(8):
        rig.teach(256, seed)
    rig.step()
    assert rig.trainer.learner.adaptation.drift.alarms == 0
    for seed in range(40):
        rig.teach(256, seed, labels=np.ones(256, np.float32))
        rig.step()
        if rig.trainer.learner.adaptation.drift.alarms:
            return
    raise AssertionError("no alarm")


def told(rig):
    return [r for _, r in rig.trainer.journal.read(0, 10**6) if getattr(r, "action", None) == "drift"]


def test_an_alarm_makes_the_next_examples_count_more_and_is_told_once(start):
    rig = start(Adapt(forget=0.5, rate=3.0, for_examples=100))
    drifted(rig)
    adaptation = rig.trainer.learner.adaptation
    assert adaptation.left == 100
    (record,) = told(rig)
    assert record.arguments["response"] == "adapt"
    assert record.arguments["quantity"] == adaptation.quantity
    weight = np.ones(64, np.float32)
    assert adaptation.weighted(weight).tolist() == [3.0] * 64
    assert adaptation.weighted(weight).tolist() == [3.0] * 36 + [1.0] * 28
    assert adaptation.weighted(weight) is weight


def test_an_alarm_freezes_learning_until_it_is_resumed(start):
    rig = start(Freeze())
    drifted(rig)
    digest = rig.trainer.learner.stack.digest()
    rig.teach(64, 99)
    rig.step()
    assert rig.trainer.learner.frozen
    assert rig.trainer.learner.stack.digest() == digest


def test_without_a_response_an_alarm_is_only_told(start):
    rig = start(None)
    drifted(rig)
    assert not rig.trainer.learner.frozen
    assert [r.arguments["response"] for r in told(rig)] == ["none"]


@pytest.mark.parametrize("response", [Adapt(for_examples=300), Freeze()])
def test_a_replay_of_the_journal_adapts_where_the_learner_did(start, response):
    rig = start(response)
    drifted(rig)
    for seed in range(5):
        rig.teach(32, 50 + seed)
    rig.step()
    learner = new_learner(rig.definition, rig.settings)
    segments = rig.trainer.home.reader()
    learner.recall = Replayed(segments, learner.state())
    for sequence, record in segments.read(0, 10**6):
        learner.push(sequence, record)
    segments.close()
    mine = rig.trainer.learner.state()
    assert {name: a.tobytes() for name, a in learner.state().items()} == {name: a.tobytes() for name, a in mine.items()}


def test_a_restart_goes_on_adapting_and_tells_nothing_again(start):
    rig = start(Adapt(for_examples=1_000))
    drifted(rig)
    left = rig.trainer.learner.adaptation.left
    rig.trainer.close()
    rig.start()
    rig.step()
    assert rig.trainer.learner.adaptation.left == left > 0
    assert len(told(rig)) == 1


def test_another_reference_begins_anew(start, tmp_path, make_rig):
    rig = start(Adapt())
    drifted(rig)
    rig.trainer.close()
    rig.settings = rig.settings.model_copy(update={"drift_reference_examples": 2_048})
    rig.start()
    rig.step()
    assert rig.trainer.learner.adaptation.examples == 0
    assert rig.trainer.learner.examples > 0


def test_no_run_length_means_no_detector(start):
    rig = start(Adapt(), drift_run_length=0)
    rig.teach()
    rig.step()
    assert rig.trainer.status()["drift"] == {}
