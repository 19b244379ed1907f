"""Steps back and forth: every control is obeyed at its position in the journal, and a replay obeys it too."""

import errno
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core.arrays import write_arrays
from riverdelta.core.errors import ParityError
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.records import Control
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.registry import index


def tell(rig, action, **arguments):
    sequence = rig.trainer.journal.write(Control(action, arguments, rig.now))
    rig.step()
    return sequence


def release(rig):
    tell(rig, "release")
    return rig.trainer.releases.store.all()[-1]


def back(rig, to, **arguments):
    return tell(rig, "rollback", **{"release": to.number, "position": to.position, "promote": False} | arguments)


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
    segments = rig.trainer.home.reader()
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
    rig.plane.follower.follow()
    columns = rig.columns(8, 9)
    corrected = rig.plane.session.run(columns).corrected
    taught(rig, 2, labels=np.ones(16, np.float32))
    assert digest(rig) != then
    back(rig, kept)
    rig.plane.follower.follow()
    assert digest(rig) == then
    assert rig.plane.session.run(columns).corrected.tobytes() == corrected.tobytes()
    assert rig.plane.session.state.release == kept.number
    taught(rig, 3)
    assert digest(rig) != then


def test_a_rollback_to_release_0_serves_the_base_again(rig):
    taught(rig, 1, 2)
    back(rig, rig.trainer.releases.store.get(0))
    rig.plane.follower.follow()
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
    again = replayed(rig)
    assert again.stack.digest() == whole
    assert list(again.outcomes) == list(rig.trainer.learner.outcomes)
    assert len(rig.trainer.releases.store.all()) == 2


@pytest.mark.parametrize("relearn", [False, True])
def test_a_replay_goes_back_to_the_beginning_as_the_service_did(rig, relearn):
    taught(rig, 1, 2)
    back(rig, rig.trainer.releases.store.get(0), relearn=relearn)
    taught(rig, 3)
    assert replayed(rig).stack.digest() == digest(rig)


def champion(rig):
    return rig.trainer.releases.store.champion().number


def test_a_rollback_makes_a_champion_only_where_it_says_so_and_one_of_version_0_1_always_did(rig):
    store = rig.trainer.releases.store
    for seed in (1, 2, 3):
        taught(rig, seed)
        release(rig)
    tell(rig, "promote", release=2)
    back(rig, store.get(1))
    assert (champion(rig), rig.trainer.status()["release"]) == (2, 1)
    back(rig, store.get(3), promote=True)
    assert (champion(rig), rig.trainer.status()["release"]) == (3, 3)
    one = store.get(1)
    tell(rig, "rollback", release=one.number, position=one.position, relearn=False, freeze=False)
    assert (champion(rig), rig.trainer.status()["release"]) == (1, 1)


def test_a_checkpoint_of_version_0_1_which_has_no_outcomes_is_gone_on_from(rig):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    release(rig)
    back(rig, kept)
    rig.trainer.save()
    saved = rig.trainer.checkpoints.load()
    arrays = {name: array for name, array in saved.arrays.items() if not name.startswith("outcomes/")}
    write_arrays(saved.path, arrays | {"contest/numbers": arrays["contest/numbers"][:3]})
    then = digest(rig)
    crash(rig)
    assert list(rig.trainer.learner.outcomes) == []
    assert (digest(rig), rig.trainer.status()["release"], rig.trainer.contest.serving) == (then, kept.number, kept.number)


def test_what_was_rolled_back_to_serves_on_after_a_restart_also_where_the_live_tables_are_lost(rig):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    release(rig)
    back(rig, kept, freeze=True)
    then = digest(rig)
    rig.trainer.save()
    crash(rig)
    assert (digest(rig), rig.trainer.status()["release"], champion(rig)) == (then, kept.number, 0)
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    shutil.rmtree(rig.trainer.home.folder / "live")
    rig.start()
    rig.step()
    rig.plane.follower.follow()
    assert (digest(rig), rig.trainer.status()["release"], champion(rig)) == (then, kept.number, 0)
    assert rig.trainer.live.head.release == kept.number


def test_a_rollback_that_is_read_again_after_a_crash_does_not_take_service_back_in_time(rig):
    taught(rig, 1)
    kept = release(rig)
    rig.trainer.save()
    taught(rig, 2)
    back(rig, kept)
    taught(rig, 3, 4)
    served = rig.trainer.live.head
    crash(rig)
    published = []
    rig.trainer.live.publish = lambda *given, publish=rig.trainer.live.publish: published.append(given) or publish(*given)
    read = rig.trainer.journal.read
    rig.trainer.journal.read = lambda after, rows: read(after, 1)
    rig.step()
    assert published
    assert all(position >= served.position for _, position, *_ in published)


@pytest.mark.parametrize("rig", [{"keep_releases": 1}], indirect=True)
def test_retention_never_takes_the_release_that_serves(rig):
    taught(rig, 1)
    kept = release(rig)
    back(rig, kept, freeze=True)
    # Made, but not published yet: what serves is still what was gone back to.
    rig.trainer._publish = lambda: None
    taught(rig, 2)
    tell(rig, "release")
    assert [r.number for r in rig.trainer.releases.store.all()] == [0, kept.number, 2]
    assert rig.trainer.status()["release"] == kept.number


def test_after_a_rollback_releases_made_later_go_on_trial_against_the_champion_as_it_is(rig):
    taught(rig, 1)
    first = release(rig)
    assert rig.trainer.status()["trial"]["challenger"] == first.number
    taught(rig, 2)
    second = release(rig)
    back(rig, first)
    assert rig.trainer.status()["trial"] is None
    taught(rig, 3)
    later = release(rig)
    assert rig.trainer.status()["trial"]["challenger"] == later.number
    assert rig.trainer.contest.champion == champion(rig) == 0
    facts = [rig.trainer.releases.store.get(r.number).facts.get("verdict") for r in (first, second)]
    assert facts == ["undecided", None]


def gone(rig, release):
    registry = rig.trainer.releases.store.registry
    known, _ = index.read(registry)
    known["releases"] = [entry for entry in known["releases"] if entry["number"] != release.number]
    index.write(registry, known)


def cut(rig, release):
    rig.trainer.save()
    taught(rig, 8)
    rig.trainer.save()
    rig.trainer.journal.sweep(release.position + 2, 1e9, 0, rig.now)
    assert sum(rig.trainer.journal.sweep(rig.trainer.journal.last(), 1e9, 10**12, rig.now) for _ in range(2)) > 0


IMPOSSIBLE = {
    "its release is gone": (gone, {}, "there is no release 1; there are: 0"),
    "its state is gone": (lambda _, release: release.state_path.unlink(), {}, r"000001\.state cannot be used"),
    "its state is damaged": (lambda _, release: release.state_path.write_bytes(b"damaged"), {}, "do not match the digest"),
    "its model is damaged": (lambda _, release: release.path.write_bytes(b"damaged"), {}, "does not match its digest"),
    "its records are gone": (cut, {"relearn": True}, "records .* were deleted; .* without --relearn"),
}


@pytest.mark.parametrize("rig", [{"segment_bytes": 1}], indirect=True)
@pytest.mark.parametrize("name", IMPOSSIBLE)
@pytest.mark.parametrize("promote", [False, True])
def test_a_rollback_that_has_become_impossible_changes_nothing_and_says_why(rig, name, promote):
    break_, how, why = IMPOSSIBLE[name]
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    break_(rig, kept)
    rig.plane.follower.follow()
    columns = rig.columns(8, 9)
    before, scores = rig.trainer.status(), rig.plane.session.run(columns).score.tobytes()
    tables = digest(rig)
    sequence = back(rig, kept, promote=promote, freeze=True, **how)
    after = rig.trainer.status()
    outcome = rig.trainer.learner.outcomes.of(sequence)
    assert (outcome.action, outcome.release, outcome.champion) == ("rollback", kept.number, False)
    assert re.search(why, outcome.refused)
    rig.plane.follower.follow()
    assert rig.plane.session.run(columns).score.tobytes() == scores
    assert digest(rig) == tables
    same = ("release", "swap", "champion", "frozen", "releases", "controls", "trial", "paused", "learned")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    entry = after["events"][-1]
    assert (entry["action"], entry["details"]["refused"]) == ("rollback", outcome.refused[:300])
    assert [o["refused"] for o in after["outcomes"] if o["sequence"] == sequence] == [outcome.refused]
    taught(rig, 3)
    assert digest(rig) != tables


@pytest.mark.parametrize("rig", [{"segment_bytes": 1}], indirect=True)
def test_relearning_is_all_or_nothing_where_a_record_is_missing_in_the_middle(rig):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2, 3, 4)
    tables = digest(rig)
    segments = rig.trainer.journal.log
    middle = next(s for _, s in sorted(segments._open.items()) if s.first > kept.position + 1)
    middle._db.execute("DELETE FROM record")
    outcome = rig.trainer.learner.outcomes.of(back(rig, kept, relearn=True))
    assert f"lacks record {middle.first}" in outcome.refused
    assert digest(rig) == tables


@pytest.mark.parametrize("saved", [False, True])
def test_what_was_refused_once_is_refused_after_a_crash_and_in_a_replay_though_it_were_possible_again(rig, saved):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    rig.trainer.save()
    state = kept.state_path.read_bytes()
    kept.state_path.unlink()
    sequences = [back(rig, kept), tell(rig, "promote", release=kept.number)]
    taught(rig, 3)
    if saved:
        rig.trainer.save()
    before, told = digest(rig), list(rig.trainer.learner.outcomes)
    kept.state_path.write_bytes(state)
    crash(rig)
    rig.step()
    assert (digest(rig), list(rig.trainer.learner.outcomes)) == (before, told)
    assert all(rig.trainer.learner.outcomes.of(sequence).refused for sequence in sequences)
    assert champion(rig) == 0
    again = replayed(rig)
    assert (again.stack.digest(), list(again.outcomes)) == (before, told)
    refusals = [r for _, r in rig.trainer.journal.controls(0, 10**9) if r.action == "refused"]
    assert [r.arguments["sequence"] for r in refusals] == sequences


@pytest.mark.parametrize("rig", [{"segment_bytes": 1, "journal_max_bytes": 1}], indirect=True)
@pytest.mark.parametrize("crashes", [1, 2])
def test_a_relearning_that_was_done_is_done_again_after_a_crash_and_retention_goes_on_when_no_restart_needs_it(rig, crashes):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)
    rig.trainer.save()
    taught(rig, 3)
    rig.trainer.save()
    sequence = back(rig, kept, relearn=True, promote=True)
    before = digest(rig), list(rig.trainer.learner.outcomes), champion(rig)
    assert rig.trainer.learner.outcomes.of(sequence).refused is None
    for _ in range(crashes):
        rig.trainer.save()
        assert rig.trainer.checkpoints.oldest() < sequence
        rig.trainer.checkpoints.load().path.write_bytes(b"damaged")
        crash(rig)
        # A checkpoint that is saved before the rollback is read again must not make retention forget it.
        rig.trainer.save()
        rig.step()
        assert (digest(rig), list(rig.trainer.learner.outcomes), champion(rig)) == before
    for seed in range(4, 8):
        taught(rig, seed)
        rig.trainer.save()
    assert rig.trainer.journal.first() > kept.position + 1


@pytest.mark.parametrize("rig", [{"keep_releases": 1}], indirect=True)
@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_release_that_a_restart_would_go_back_to_is_not_deleted(rig, action):
    taught(rig, 1)
    kept = release(rig)
    rig.trainer.save()
    tell(rig, action, release=kept.number, position=kept.position, promote=True)
    for seed in (2, 3, 4):
        taught(rig, seed)
        tell(rig, "promote", release=release(rig).number)
    before = digest(rig), list(rig.trainer.learner.outcomes), champion(rig)
    crash(rig)
    rig.step()
    assert (digest(rig), list(rig.trainer.learner.outcomes), champion(rig)) == before
    for seed in (5, 6):
        rig.trainer.save()
        taught(rig, seed)
    release(rig)
    assert kept.number not in [r.number for r in rig.trainer.releases.store.all()]


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_a_rollback_to_the_champion_of_then_is_done_again_though_another_has_become_champion_since(rig):
    taught(rig, 1)
    first = release(rig)
    tell(rig, "promote", release=first.number)
    rig.trainer.save()
    taught(rig, 2)
    second = release(rig)
    sequence = back(rig, first)
    tell(rig, "promote", release=second.number)
    before = digest(rig), list(rig.trainer.learner.outcomes), champion(rig)
    assert rig.trainer.learner.outcomes.of(sequence).refused is None
    crash(rig)
    rig.step()
    assert (digest(rig), list(rig.trainer.learner.outcomes), champion(rig)) == before


def test_a_release_that_fails_parity_is_refused_for_good_and_says_so(rig, monkeypatch):
    taught(rig, 1)
    rig.trainer.save()

    def differs(*_):
        raise ParityError("they differ by 0.5 logits")

    with monkeypatch.context() as m:
        m.setattr(rig.trainer.releases, "_test", differs)
        sequence = tell(rig, "release")
    status = rig.trainer.status()
    assert rig.trainer.learner.outcomes.of(sequence).refused == "they differ by 0.5 logits"
    assert (status["releases"], status["releases_refused"], status["controls"]["release"]) == (1, 1, 0)
    crash(rig)
    rig.step()
    assert rig.trainer.learner.outcomes.of(sequence).refused == "they differ by 0.5 logits"
    assert len(rig.trainer.releases.store.all()) == 1
    assert replayed(rig).outcomes.of(sequence).refused


def test_what_the_registry_could_not_write_it_does_when_the_disk_has_room_and_never_skips(rig, monkeypatch):
    taught(rig, 1)
    kept = release(rig)
    taught(rig, 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(index, "write", full)
        m.setattr("riverdelta.sidecar.trainer._PAUSE_SECONDS", 0.0)
        rig.trainer.journal.write(Control("rollback", {"release": 1, "position": kept.position, "promote": True}, rig.now))
        rig.step()
        assert "No space left" in rig.trainer.paused
        assert champion(rig) == 0
    rig.step()
    assert rig.trainer.paused is None
    assert (champion(rig), rig.trainer.status()["release"]) == (kept.number, kept.number)


def test_a_control_whose_arguments_are_of_another_kind_is_refused_and_learning_goes_on(rig):
    for arguments in ({}, {"release": "0", "position": 0}, {"release": 0}, {"release": [0], "position": 0, "relearn": 1}):
        for action in ("rollback", "promote"):
            if arguments == {"release": 0} and action == "promote":
                continue
            assert rig.trainer.learner.outcomes.of(tell(rig, action, **arguments)).refused, (action, arguments)
    taught(rig, 1)
    assert rig.trainer.status()["learned"] == 16


def test_what_the_learner_asked_for_itself_gives_way_to_a_rollback_that_came_first(rig):
    taught(rig, 1)
    made = release(rig)
    asked = rig.trainer.learner.position
    back(rig, rig.trainer.releases.store.get(0))
    sequence = tell(rig, "promote", release=made.number, by="trial", asked=asked)
    assert "before the rollback at position" in rig.trainer.learner.outcomes.of(sequence).refused
    assert champion(rig) == 0


@pytest.mark.parametrize("rig", [{"breaker": "rollback"}], indirect=True)
def test_the_breaker_rolls_back_to_the_champion_and_promotes_nothing(rig):
    taught(rig, *range(40), rows=64)
    made = release(rig)
    tell(rig, "promote", release=made.number)
    taught(rig, *range(20), rows=64, labels=np.zeros(64, np.float32))
    rig.step()
    (asked,) = [r for _, r in rig.trainer.journal.commands(0, 10**9) if r.action == "rollback"]
    assert (asked.release, asked.fields["promote"], asked.by) == (made.number, False, "breaker")
    status = rig.trainer.status()
    assert (status["champion"], status["release"], status["admission"]["open"]) == (made.number, made.number, True)
    assert digest(rig) == made.facts["digest"]


def rollbacks(rig):
    return [outcome.refused for outcome in rig.trainer.learner.outcomes if outcome.action == "rollback"]


@pytest.mark.parametrize("rig", [{"breaker": "rollback"}], indirect=True)
@pytest.mark.parametrize("saved", [False, True])
def test_a_breaker_that_begins_anew_rolls_back_at_its_first_trip_as_any_other(rig, saved):
    zeros = np.zeros(64, np.float32)
    taught(rig, *range(40), rows=64)
    taught(rig, *range(20), rows=64, labels=zeros)
    assert rollbacks(rig) == [None]
    rig.restart(breaker="off")
    if saved:
        rig.restart(breaker="off")
    rig.restart(breaker="rollback")
    taught(rig, *range(40), rows=64)
    assert rollbacks(rig) == [None]
    taught(rig, *range(20), rows=64, labels=zeros)
    assert rollbacks(rig) == [None, None]
    assert replayed(rig).stack.digest() == digest(rig)


@pytest.mark.parametrize("rig", [{"breaker": "freeze"}], indirect=True)
def test_what_tripped_the_breaker_when_no_rollback_was_asked_for_takes_nothing_back_later(rig):
    taught(rig, *range(40), rows=64)
    taught(rig, *range(20), rows=64, labels=np.zeros(64, np.float32))
    assert rig.trainer.learner.admission.breaker.trips == 1
    tell(rig, "resume")
    taught(rig, *range(40, 44), rows=64)
    before = digest(rig)
    rig.restart(breaker="rollback")
    assert (digest(rig), rollbacks(rig)) == (before, [])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_asked_and_lost_a_restart_and_a_replay_come_to_the_same(definition, make_rig, tmp_path_factory, data):
    rig = make_rig(definition, tmp_path_factory.mktemp("home"))
    store, states = rig.trainer.releases.store, {}
    for seed in range(data.draw(st.integers(3, 9))):
        taught(rig, seed)
        states |= {r.number: r.state_path.read_bytes() for r in store.all() if r.number not in states}
        to = data.draw(st.sampled_from(store.all()))
        match data.draw(st.sampled_from(["release", "back", "promote", "resume", "lose", "restore", "save", "crash"])):
            case "release":
                release(rig)
            case "back":
                back(rig, to, **{name: data.draw(st.booleans()) for name in ("relearn", "freeze", "promote")})
            case "promote":
                tell(rig, "promote", release=data.draw(st.integers(0, 5)))
            case "resume":
                tell(rig, "resume")
            case "lose":
                to.state_path.unlink(missing_ok=True)
            case "restore":
                to.state_path.write_bytes(states[to.number])
            case "save":
                rig.trainer.save()
            case "crash":
                before = digest(rig), list(rig.trainer.learner.outcomes), champion(rig)
                for each in store.all():  # what was lost since it was obeyed cannot be obeyed again
                    each.state_path.write_bytes(states[each.number])
                crash(rig)
                rig.step()
                assert (digest(rig), list(rig.trainer.learner.outcomes), champion(rig)) == before
    again = replayed(rig)
    assert again.stack.digest() == digest(rig)
    assert list(again.outcomes) == list(rig.trainer.learner.outcomes)
    promoted = [outcome.release for outcome in again.outcomes if outcome.champion]
    assert champion(rig) == (promoted[-1] if promoted else 0)


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
    sequence = tell(rig, "promote", release=77)
    assert rig.trainer.status()["champion"] == made.number
    assert rig.trainer.learner.outcomes.of(sequence).refused == "there is no release 77; there are: 0, 1"
    assert rig.trainer.status()["controls"]["promote"] == 1


def test_a_release_promoted_by_an_operator_has_that_as_its_verdict(rig):
    taught(rig, 1)
    numbers = [release(rig).number]
    for _ in range(2):
        taught(rig, 1)
        numbers.append(release(rig).number)
    store = rig.trainer.releases.store
    on_trial = rig.trainer.status()["trial"]["challenger"]
    for number in (on_trial, numbers[-1]):
        tell(rig, "promote", release=number)
        assert store.get(number).facts["verdict"] == "promoted by hand"
    tell(rig, "promote", release=77)
    tell(rig, "rollback", release=0, position=0, promote=False)
    assert "verdict" not in store.get(0).facts
    tell(rig, "rollback", release=0, position=0, promote=True)
    assert store.get(0).facts["verdict"] == "promoted by hand"
    store.judge(numbers[1], {"verdict": "promoted"})
    tell(rig, "promote", release=numbers[1])
    assert store.get(numbers[1]).facts["verdict"] == "promoted"


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_where_only_champions_serve_a_rollback_that_was_written_without_that_is_refused(rig):
    taught(rig, 1)
    kept = release(rig)
    tables = digest(rig)
    refused = rig.trainer.learner.outcomes.of(back(rig, kept, freeze=True)).refused
    assert "the champion is 0" in refused
    assert "`riverdelta rollback 1 --freeze --promote`" in refused
    assert (digest(rig), rig.trainer.status()["release"]) == (tables, 0)
    back(rig, kept, promote=True)
    assert (champion(rig), rig.trainer.status()["release"]) == (1, 1)
    taught(rig, 2)
    back(rig, kept)
    assert (champion(rig), rig.trainer.status()["release"], digest(rig)) == (1, 1, tables)


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_only_the_champion_serves_until_another_is_promoted(rig):
    taught(rig, 1, labels=np.ones(16, np.float32))
    made = release(rig)
    taught(rig, 2)
    rig.plane.follower.follow()
    columns = rig.columns(8, 9)
    before = rig.plane.session.run(columns)
    assert before.corrected.tobytes() == before.base.tobytes()
    assert rig.trainer.status()["examples"] == rig.trainer.status()["learned"] == 32
    tell(rig, "promote", release=made.number)
    rig.plane.follower.follow()
    after = rig.plane.session.run(columns)
    assert after.corrected.mean() > before.corrected.mean()
    assert after.state.release == made.number
    taught(rig, 3)
    rig.plane.follower.follow()
    assert rig.plane.session.run(columns).corrected.tobytes() == after.corrected.tobytes()
    crash(rig)
    taught(rig, 4)
    rig.plane.follower.follow()
    assert rig.plane.session.run(columns).corrected.tobytes() == after.corrected.tobytes()


def clicks(rig, seed, rows=256):
    """Feedback that the base predicts badly and the corrections well."""
    columns = rig.columns(rows, seed)
    good = (np.random.default_rng(seed).random(rows) < LOG_LOSS.inverse_link(3.0 * (columns["user"] % 2) - 1.5)[:, 0]).astype(
        np.float32
    )
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


def test_a_trial_s_winner_that_cannot_be_promoted_any_more_is_refused_once_and_the_next_release_goes_on_trial(rig):
    for seed in range(8):
        clicks(rig, seed)
    made = release(rig)
    made.state_path.unlink()
    seed = 8
    while not (found := [o for o in rig.trainer.learner.outcomes if o.action == "promote"]):
        assert seed < 100
        clicks(rig, seed)
        seed += 1
    assert made.state_path.name in found[0].refused
    for more in range(3):
        clicks(rig, seed + more)
    assert [o for o in rig.trainer.learner.outcomes if o.action == "promote"] == found
    assert rig.trainer.releases.store.get(made.number).facts["verdict"] == "undecided"
    later = release(rig)
    assert rig.trainer.status()["trial"]["challenger"] == later.number


@pytest.mark.parametrize("rig", [{"serve": "base"}], indirect=True)
def test_in_shadow_everything_is_learned_and_no_score_changes(rig):
    columns = rig.columns(50, 77)
    before = rig.plane.score(columns)
    for seed in range(10):
        clicks(rig, seed)
        rig.plane.follower.follow()
    after = rig.plane.score(columns)
    assert after.scores.tobytes() == before.scores.tobytes()
    status = rig.trainer.status()
    assert status["learned"] == 2560
    assert status["gate"]["gain"] > 0
    assert status["gate"]["weight"] > 0.9
    assert status["prequential"]["all"]["served"]["loss"] == status["prequential"]["all"]["base"]["loss"]


def test_the_gate_s_weight_serves_and_its_excess_stays_within_the_bound(rig):
    for seed in range(10):
        clicks(rig, seed)
        rig.plane.follower.follow()
    gate = rig.trainer.status()["gate"]
    assert gate["weight"] > 0.9
    assert gate["excess"] <= gate["bound"]
    columns = rig.columns(50, 77)
    scored = rig.plane.session.run(columns)
    base, corrected = (LOG_LOSS.inverse_link(raw)[:, 0] for raw in (scored.base, scored.corrected))
    assert np.allclose(scored.score, (1 - gate["weight"]) * base + gate["weight"] * corrected, atol=1e-6)


@pytest.mark.parametrize("rig", [{"keep_releases": 1, "checkpoint_seconds": 1e6}], indirect=True)
def test_a_learner_that_reads_old_release_records_again_leaves_the_newest_release_as_it_is(rig):
    rig.step()
    rig.trainer.save()
    for seed in range(6):
        taught(rig, seed)
        release(rig)
    kept = [(r.number, r.position) for r in rig.trainer.home.releases().all()]
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    rig.start()
    rig.step()
    assert [(r.number, r.position) for r in rig.trainer.home.releases().all()] == kept
