"""Settings that change learning are records: what is replayed depends on the journal alone."""

import asyncio

import numpy as np
import pytest

from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import LEARNING, Settings
from riverdelta.evaluation.drift import Adapt
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.recall import Replayed

#: Settings that a service had one after the other, each differing from those before in something that learning reads.
LIVES = (
    {},
    {"keep_negatives": 0.3, "max_updates_per_entity": 3},
    {"labels": "silence", "window_seconds": 5.0, "late": "plain", "on_conflict": "max"},
    {"breaker": "off", "serve": "base", "drift_run_length": 0.0, "on_conflict": "last"},
    {"drift_reference_examples": 2_048},
)


def records(rig):
    return [record for _, record in rig.trainer.journal.read(0, 10_000_000)]


def settings_of(rig):
    return [r.arguments for r in records(rig) if isinstance(r, Control) and r.action == SETTINGS]


def restart(rig, **given):
    """The service and its learner end and start again, with other settings."""
    rig.close()
    rig.__init__(rig.definition, rig.settings.home, **given)
    rig.step()


def live(rig, seeds):
    for seed in seeds:
        answer = rig.teach(40, seed, labels=np.full(40, np.nan, np.float32) if seed % 3 == 0 else None)
        rig.step(3.0)
        assert answer.outcomes == ["accepted"] * 40


@pytest.mark.parametrize("given", [{}, LIVES[2], {"keep_negatives": 0.01, "breaker": "off"}], ids=["none", "silence", "few"])
def test_a_replay_under_any_settings_leaves_the_bits_of_a_service_that_changed_them_at_each_start(rig, given):
    for number, life in enumerate(LIVES):
        restart(rig, **life)
        live(rig, range(10 * number, 10 * number + 8))
    learner = new_learner(rig.definition, Settings.load(home=rig.settings.home, grpc_port=0, **given))
    learner.recall = Replayed(rig.trainer.journal, learner.state())
    for sequence, record in rig.trainer.journal.read(0, 10_000_000):
        learner.push(sequence, record)
    mine = {name: array.tobytes() for name, array in rig.trainer.learner.state().items()}
    assert {name: array.tobytes() for name, array in learner.state().items()} == mine
    assert len(settings_of(rig)) == len(LIVES)


def test_the_first_record_of_a_home_is_its_settings_and_feedback_comes_after_it(rig):
    rig.teach()
    rig.step()
    first = records(rig)[0]
    assert (first.action, first.arguments["labels"]) == (SETTINGS, "explicit")
    assert set(LEARNING) < set(first.arguments)


def test_a_start_with_the_same_settings_writes_nothing_and_with_others_one_record(rig):
    restart(rig)
    assert len(settings_of(rig)) == 1
    restart(rig, keep_negatives=0.5)
    restart(rig, keep_negatives=0.5, release_seconds=77.0)
    assert [r["keep_negatives"] for r in settings_of(rig)] == [1.0, 0.5]
    assert rig.trainer.status()["events"][-1]["action"] == SETTINGS


def test_feedback_is_accepted_by_the_rules_that_the_last_record_has_set(rig):
    names = [f"{rig.plane.score(rig.columns(2, 0)).impressions}.{i}" for i in range(2)]

    def feed(label):
        return asyncio.run(rig.plane.feedback(names[:1], np.float32([label]))).outcomes

    assert (feed(1), feed(0)) == (["accepted"], ["conflict"])
    rig.trainer._write(Control(SETTINGS, rig.trainer.home.learning() | {"on_conflict": "last"}, rig.now))
    assert feed(0) == ["accepted"]


def test_another_response_to_drift_is_a_record_too_and_a_replay_has_it(rig, definition):
    from dataclasses import replace

    rig.definition = replace(definition, on_drift=Adapt(forget=0.25))
    restart(rig)
    assert settings_of(rig)[-1]["on_drift"] == {"forget": 0.25, "rate": 2.0, "for_examples": 10_000}
    learner = new_learner(definition, rig.settings)
    for sequence, record in rig.trainer.journal.read(0, 10_000_000):
        learner.push(sequence, record)
    assert learner.adaptation.response == Adapt(forget=0.25)


def test_settings_that_are_not_valid_are_refused_by_name_and_learning_goes_on(rig, caplog):
    rig.trainer.learner.push(10, Control(SETTINGS, {"keep_negatives": 7}, 0.0))
    assert "the settings at position 10 is refused" in caplog.text
    assert "RIVERDELTA_KEEP_NEGATIVES is 7" in caplog.text
    assert rig.trainer.learner.joiner.weights.keep == 1.0
