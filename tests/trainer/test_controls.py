"""Steps back and forth: every control is obeyed at its position in the journal, and a replay obeys it too."""

import numpy as np
import pytest

from riverdelta.events import Control
from riverdelta.journal.segments import Segments
from riverdelta.link import sigmoid
from riverdelta.trainer.learner import new_learner
from riverdelta.trainer.recall import Replayed


def tell(rig, action, **arguments):
    sequence = rig.trainer.journal.write(Control(action, arguments, rig.now))
    rig.step()
    return sequence


def release(rig):
    tell(rig, "release")
    return rig.trainer.releases.store.all()[-1]


def back(rig, to, **arguments):
    return tell(rig, "rollback", release=to.number, position=to.position, **arguments)


def digest(rig):
    return rig.trainer.learner.stack.digest()


def taught(rig, *seeds, **given):
    for seed in seeds:
        rig.teach(seed=seed, **given)
        rig.step()


def crash(rig):
    """As after a kill: nothing is saved, the lock is gone with the process."""
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    rig.start()


def replayed(rig):
    """A learner that has read the whole journal from its beginning."""
    learner = new_learner(rig.definition, rig.settings)
    segments = Segments(rig.trainer.home.folder / "journal", rig.settings.segment_bytes)
    learner.recall = Replayed(segments, learner.state())
    for sequence, record in segments.read(0, 10_000_000):
        learner.push(sequence, record)
    segments.close()
    return learner


def test_frozen_learning_measures_and_learns_nothing_until_it_is_resumed(rig):
    taught(rig, 1)
    tell(rig, "freeze")
    before = digest(rig)
    taught(rig, 2)
    assert digest(rig) == before
    status = rig.trainer.status()
    assert (status["frozen"], status["examples"], status["learned"]) == (True, 32, 16)
    tell(rig, "resume")
    taught(rig, 3)
    assert digest(rig) != before
    assert not rig.trainer.status()["frozen"]


def test_a_rollback_unlearns_what_came_after_the_release_and_serves_its_tables(rig):
    taught(rig, 1)
    kept = release(rig)
    then = digest(rig)
    rig.plane.follow()
    columns = rig.columns(8, 9)
    corrected = rig.plane.session.run(columns).corrected
    taught(rig, 2, labels=np.ones(16, np.float32))
    assert digest(rig) != then
    back(rig, kept)
    rig.plane.follow()
    assert digest(rig) == then
    assert rig.plane.session.run(columns).corrected.tobytes() == corrected.tobytes()
    assert rig.plane.session.state.release == kept.number
    assert rig.trainer.releases.store.champion().number == kept.number
    taught(rig, 3)
    assert digest(rig) != then


def test_a_rollback_to_release_0_serves_the_base_again(rig):
    taught(rig, 1, 2)
    back(rig, rig.trainer.releases.store.get(0))
    rig.plane.follow()
    scored = rig.plane.session.run(rig.columns(8, 9))
    assert scored.corrected.tobytes() == scored.base.tobytes()


def test_relearning_gives_the_tables_of_before_bit_for_bit(rig):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2, 3)
    release(rig)
    taught(rig, 4)
    latest = digest(rig)
    back(rig, kept, relearn=True)
    assert digest(rig) == latest
    back(rig, kept)
    assert digest(rig) != latest
    back(rig, rig.trainer.releases.store.get(0), relearn=True)
    assert digest(rig) == latest


def test_a_rollback_that_freezes_stays_where_it_went(rig):
    taught(rig, 1)
    kept = release(rig)
    then = digest(rig)
    back(rig, kept, freeze=True)
    taught(rig, 2)
    assert digest(rig) == then
    assert rig.trainer.status()["frozen"]


@pytest.mark.parametrize("relearn", [False, True])
def test_after_a_crash_and_in_a_replay_from_the_beginning_the_tables_are_the_same(rig, relearn):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    rig.trainer.save()
    back(rig, kept, relearn=relearn)
    taught(rig, 3)
    tell(rig, "freeze")
    taught(rig, 4)
    tell(rig, "resume")
    taught(rig, 5)
    whole = digest(rig)
    crash(rig)
    rig.step()
    assert digest(rig) == whole
    assert replayed(rig).stack.digest() == whole
    assert len(rig.trainer.releases.store.all()) == 2


def test_a_rollback_whose_release_is_gone_is_passed_over_and_learning_goes_on(rig, caplog):
    taught(rig, 1)
    kept = release(rig)
    kept.state_path.unlink()
    taught(rig, 2)
    before = digest(rig)
    back(rig, kept)
    assert digest(rig) == before
    assert "is passed over" in caplog.text
    taught(rig, 3)
    assert digest(rig) != before


def test_a_release_is_made_after_so_many_examples_too(rig):
    rig.settings.__dict__["release_examples"] = 32
    taught(rig, 1)
    assert len(rig.trainer.releases.store.all()) == 1
    taught(rig, 2)
    assert rig.trainer.releases.store.all()[-1].examples == 32


def test_promote_makes_the_champion_and_says_so(rig):
    taught(rig, 1)
    made = release(rig)
    assert rig.trainer.status()["champion"] == 0
    tell(rig, "promote", release=made.number)
    assert rig.trainer.status()["champion"] == made.number
    tell(rig, "promote", release=77)
    assert rig.trainer.status()["champion"] == made.number


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_only_the_champion_serves_until_another_is_promoted(rig):
    taught(rig, 1, labels=np.ones(16, np.float32))
    made = release(rig)
    taught(rig, 2)
    rig.plane.follow()
    columns = rig.columns(8, 9)
    before = rig.plane.session.run(columns)
    assert before.corrected.tobytes() == before.base.tobytes()
    assert rig.trainer.status()["examples"] == rig.trainer.status()["learned"] == 32
    tell(rig, "promote", release=made.number)
    rig.plane.follow()
    after = rig.plane.session.run(columns)
    assert after.corrected.mean() > before.corrected.mean()
    assert after.state.release == made.number
    taught(rig, 3)
    rig.plane.follow()
    assert rig.plane.session.run(columns).corrected.tobytes() == after.corrected.tobytes()
    crash(rig)
    taught(rig, 4)
    rig.plane.follow()
    assert rig.plane.session.run(columns).corrected.tobytes() == after.corrected.tobytes()


def clicks(rig, seed, rows=256):
    """Feedback that the base predicts badly and the corrections well."""
    columns = rig.columns(rows, seed)
    good = (np.random.default_rng(seed).random(rows) < sigmoid(3.0 * (columns["user"] % 2) - 1.5)).astype(np.float32)
    rig.teach(rows=rows, seed=seed, labels=good)
    rig.step()


def test_a_better_release_is_promoted_by_its_trial_which_outlives_a_crash(rig):
    for seed in range(8):
        clicks(rig, seed)
    made = release(rig)
    clicks(rig, 8, rows=8)
    running = rig.trainer.status()["trial"]
    assert (running["challenger"], running["verdict"]) == (made.number, "undecided")
    rig.trainer.save()
    crash(rig)
    assert rig.trainer.status()["trial"] == running
    seed = 9
    while rig.trainer.status()["champion"] == 0:
        assert seed < 100
        clicks(rig, seed)
        seed += 1
    assert rig.trainer.status()["champion"] == made.number
    facts = rig.trainer.releases.store.get(made.number).facts
    assert facts["verdict"] == "promoted"
    assert facts["lower"] > -rig.settings.promote_margin


@pytest.mark.parametrize("rig", [{"serve": "base"}], indirect=True)
def test_in_shadow_everything_is_learned_and_no_score_changes(rig):
    columns = rig.columns(50, 77)
    before = rig.plane.score(columns)
    for seed in range(10):
        clicks(rig, seed)
        rig.plane.follow()
    after = rig.plane.score(columns)
    assert after.scores.tobytes() == before.scores.tobytes()
    status = rig.trainer.status()
    assert status["learned"] == 2560
    assert status["gate"]["gain"] > 0
    assert status["gate"]["weight"] > 0.9
    assert status["prequential"]["all"]["served"]["log_loss"] == status["prequential"]["all"]["base"]["log_loss"]


def test_the_gate_s_weight_serves_and_its_excess_stays_within_the_bound(rig):
    for seed in range(10):
        clicks(rig, seed)
        rig.plane.follow()
    gate = rig.trainer.status()["gate"]
    assert gate["weight"] > 0.9
    assert gate["excess"] <= gate["bound"]
    columns = rig.columns(50, 77)
    scored = rig.plane.session.run(columns)
    expected = (1 - gate["weight"]) * sigmoid(scored.base) + gate["weight"] * sigmoid(scored.corrected)
    assert np.allclose(scored.score, expected, atol=1e-6)
