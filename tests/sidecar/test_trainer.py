"""The trainer: learns what is journalled, publishes it, and goes on from where it was, whatever it fails at."""

import errno
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from riverdelta import Entity
from riverdelta.core.errors import ConfigurationError, Locked
from riverdelta.core.records import Control
from riverdelta.learning.learner import new_learner
from riverdelta.learning.observers import Observer
from riverdelta.sidecar import Trainer, trainer


def test_what_is_fed_back_is_learned_and_serves_in_the_next_state(rig):
    before = rig.plane.score(rig.columns(8, 1))
    rig.teach(labels=np.ones(16, np.float32))
    rig.step()
    rig.plane.follower.follow()
    after = rig.plane.score(rig.columns(8, 1))
    assert after.state.swap > before.state.swap
    assert after.scores.mean() > before.scores.mean()
    assert np.array_equal(after.base, before.base)


def test_a_fresh_service_scores_exactly_as_the_frozen_model(rig):
    columns = rig.columns(50, 3)
    answer = rig.plane.score(columns)
    assert np.array_equal(answer.base, columns["x"] * np.float32(0.5))
    assert rig.plane.session.run(columns).served.tobytes() == answer.base.tobytes()


def test_one_that_ended_anywhere_goes_on_bit_for_bit_as_one_that_did_not(rig, definition):
    for seed in range(6):
        rig.teach(seed=seed)
        rig.step(seconds=9.0)
        if seed in (1, 3):
            # As after a kill: nothing is saved, the lock is gone with the process.
            rig.trainer.journal.close()
            rig.trainer._lock.release()
            rig.start()
    rig.step()
    whole = new_learner(definition, rig.settings)
    for sequence, record in rig.trainer.journal.read(0, 10_000_000):
        whole.push(sequence, record)
    assert rig.trainer.learner.examples == whole.examples == 6 * 16
    assert rig.trainer.learner.stack.digest() == whole.stack.digest()


def test_a_restarted_learner_never_takes_service_back_in_time(rig):
    rig.teach()
    rig.step()
    served = rig.trainer.live.head
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    shutil.rmtree(rig.trainer.home.folder / "checkpoints", ignore_errors=True)
    rig.start()
    assert rig.trainer.learner.position == 0
    assert not rig.trainer.live.due(rig.trainer.learner.position)
    rig.step()
    assert rig.trainer.live.head.position >= served.position
    assert rig.trainer.live.head.swap == served.swap + 1


def test_a_release_is_made_when_it_is_due_and_agrees_with_the_stack(rig):
    rig.teach(rows=64)
    rig.step(seconds=rig.settings.release_seconds + 1)
    (zero, one) = rig.trainer.home.releases().all()
    assert (zero.number, one.number, one.examples) == (0, 1, 64)
    assert one.facts["parity_max_error"] <= 1e-4
    assert one.facts["digest"] == rig.trainer.learner.stack.digest()


def test_a_release_that_disagrees_is_refused_counted_and_says_which_correction_differs(rig, monkeypatch):
    honest = Entity.export

    def off_by_one(self, nodes, columns, offset):
        return nodes.add("Add", honest(self, nodes, columns, offset), nodes.constant(1.0, np.float32))

    monkeypatch.setattr(Entity, "export", off_by_one)
    rig.teach()
    rig.step(seconds=rig.settings.release_seconds + 1)
    assert len(rig.trainer.home.releases().all()) == 1
    status = rig.trainer.status()
    assert status["releases_refused"] == 1
    assert "most in entity_user" in status["refused_because"]


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["live", "checkpoints"])
def test_a_full_disk_pauses_learning_says_so_and_is_caught_up_with(rig, monkeypatch, caplog, what):
    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    target = (rig.trainer.live.store, "publish") if what == "live" else (rig.trainer.checkpoints, "save")
    with monkeypatch.context() as broken:
        broken.setattr(*target, full)
        answer = rig.teach()
        rig.step(seconds=rig.settings.checkpoint_seconds + 1)
        assert "No space left" in rig.trainer.status()["paused"]
        assert "learning pauses" in caplog.text
        assert rig.plane.score(rig.columns(4, 9)).scores.shape == (4,)
    rig.step(seconds=rig.settings.checkpoint_seconds + 1)
    assert rig.trainer.status()["paused"] is None
    assert rig.trainer.live.head.position >= answer.position
    assert rig.trainer.learner.examples == 16


def test_while_its_state_cannot_be_saved_it_says_so_at_every_step_and_learns_on(rig, monkeypatch, caplog):
    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(rig.trainer.checkpoints, "save", full)
        for seed in range(3):
            rig.teach(seed=seed)
            rig.step(seconds=rig.settings.checkpoint_seconds / 2 + 1)
            assert ("No space left" in (rig.trainer.status()["paused"] or "")) == (seed > 0)
            assert rig.trainer.learner.examples == 16 * (seed + 1)
    assert caplog.text.count("learning pauses") == 1
    rig.step(seconds=0.1)
    assert rig.trainer.status()["paused"] is None
    assert rig.trainer.checkpoints.load().position == rig.trainer.learner.position


def test_a_corrupt_block_stops_learning_before_it_and_names_it(rig, monkeypatch):
    import sqlite3

    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    rig.teach()
    rig.step()
    learned = rig.trainer.learner.stack.digest()
    rig.teach(seed=1)
    (segment,) = (rig.trainer.home.folder / "journal").glob("*.sqlite")
    with sqlite3.connect(segment) as database:
        (last,) = database.execute("SELECT max(sequence) FROM record").fetchone()
        database.execute("UPDATE record SET payload = zeroblob(length(payload)) WHERE sequence = ?", (last,))
    database.close()
    rig.step()
    assert f"record {last}" in rig.trainer.status()["paused"]
    assert rig.trainer.learner.position < last
    assert rig.trainer.learner.stack.digest() == learned


def test_a_second_learner_on_the_same_home_is_refused_with_the_firsts_pid(rig, definition):
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        Trainer(definition, rig.settings)


def test_a_home_of_another_stack_is_refused_with_what_to_do(rig, definition):
    from dataclasses import replace

    other = replace(definition, corrections=[Entity("user", slots=128)])
    with pytest.raises(ConfigurationError, match=r"slots is 128 here, and was 256\n.*riverdelta rebase"):
        Trainer(other, rig.settings)


@pytest.mark.parametrize("rig", [{"labels": "silence", "window_seconds": 60.0}], indirect=True)
def test_silence_matures_as_a_negative_by_ticks(rig):
    rig.teach(labels=np.array([np.nan] * 15 + [1], np.float32))
    rig.step()
    assert rig.trainer.learner.examples == 1
    rig.step(seconds=59.0)
    rig.step(seconds=2.0)
    assert rig.trainer.learner.examples == 16
    assert rig.trainer.status()["prequential"]["all"]["served"]["examples"] == 16


class Clumsy(Observer):
    def on_examples(self, position, examples):
        raise OSError("no space left")

    def on_scored(self, position, impressions):
        raise ValueError("not a number")

    def on_outcome(self, outcome):
        raise KeyError(outcome.action)


def test_an_observer_that_fails_is_logged_and_nothing_is_learned_twice_or_lost(rig, caplog):
    rig.trainer.learner.observers["clumsy"] = Clumsy()
    rig.teach(rows=16)
    rig.trainer.journal.write(Control("freeze", {}, rig.now))
    rig.step()
    assert (rig.trainer.learner.examples, rig.trainer.learner.position) == (16, rig.trainer.journal.last())
    assert [outcome.action for outcome in rig.trainer.learner.outcomes].count("freeze") == 1
    for hook in ("on_examples", "on_scored", "on_outcome"):
        assert f"the observer 'clumsy' failed at {hook}" in caplog.text


def test_a_scorer_without_corrections_makes_releases_that_serve_its_base(definition, tmp_path, make_rig):
    rig = make_rig(replace(definition, corrections=()), tmp_path / "bare")
    for _ in range(2):
        rig.teach()
        rig.step(1e5)
    assert len(rig.trainer.releases.store.all()) > 1
    rig.plane.follower.follow()
    columns = rig.columns(8, 1)
    answer = rig.plane.score(columns)
    assert answer.state.release > 0
    assert rig.plane.session.run(columns).served.tobytes() == answer.base.tobytes()
