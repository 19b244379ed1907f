"""What the breaker holds in a service: resumed, skipped, saved, swept, rolled back and replayed."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relearned import relearned
from riverdelta import Calibration
from riverdelta.learning.commands import Freeze, Release, Resume, Rollback
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.rebase import rebase
from tripping import TRIP, Trips


@pytest.fixture(autouse=True)
def trips(monkeypatch):
    monkeypatch.setattr("riverdelta.learning.admission.Breaker", Trips)


def teach(rig, *seeds, source=1):
    for seed in seeds:
        answer = rig.plane.score(rig.columns(16, seed))
        labels = np.random.default_rng(seed).integers(0, 2, 16).astype(np.float32)
        asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(16)], labels, source))
        rig.step()


def tell(rig, command):
    operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
    sequence = operator.ask(command)
    rig.step()
    return asyncio.run(operator.answer(command, sequence, 0.0))


def crash(rig):
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    rig.start()


def digest(rig):
    return rig.trainer.learner.stack.digest()


def held(rig):
    return rig.trainer.status()["held"]


def bits(learner):
    return {name: array.tobytes() for name, array in learner.state().items()}


@pytest.fixture
def never(make_rig, definition, tmp_path_factory):
    """The tables of a service without a breaker that was taught these seeds."""

    def taught(*seeds):
        rig = make_rig(definition, tmp_path_factory.mktemp("never"), breaker="off")
        teach(rig, *seeds)
        return digest(rig)

    return taught


def test_a_resume_learns_what_was_held_as_if_the_breaker_had_not_tripped(rig, never):
    teach(rig, 1, 2)
    before = digest(rig)
    teach(rig, 3, source=TRIP)
    teach(rig, 4, 5)
    assert digest(rig) == before == never(1, 2)
    assert held(rig)["rows"] == 48
    answer = tell(rig, Resume())
    assert (answer.held, answer.refused, held(rig)["rows"]) == (48, None, 0)
    assert Resume().describe(vars(answer)).endswith("; 48 held rows learned")
    assert digest(rig) == never(1, 2, 3, 4, 5)
    rig.plane.follower.follow()
    assert rig.plane.session.state.position == answer.sequence
    teach(rig, 6)
    assert digest(rig) == never(1, 2, 3, 4, 5, 6)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


def test_a_resume_that_skips_drops_it_and_says_how_much(rig, never):
    teach(rig, 1, 2)
    teach(rig, 3, 4, source=TRIP)
    answer = tell(rig, Resume(skip=True))
    assert Resume(skip=True).describe(vars(answer)).endswith("; 32 held rows dropped")
    teach(rig, 5)
    assert digest(rig) == never(1, 2, 5)
    assert (held(rig)["skipped"], held(rig)["rows"]) == (32, 0)
    assert {"skip": True, "held": 32}.items() <= rig.trainer.status()["events"][-2]["details"].items()
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)
    assert tell(rig, Resume()).held == 0


def test_what_is_held_outlives_kills_restarts_and_the_journal(definition, tmp_path, make_rig, never):
    rig = make_rig(definition, tmp_path / "swept", journal_max_bytes=1, segment_bytes=1)
    teach(rig, 1)
    teach(rig, 2, source=TRIP)
    rig.trainer.save()
    teach(rig, 3)
    crash(rig)
    rig.step()
    assert held(rig)["rows"] == 32
    for seed in (4, 5, 6):
        teach(rig, seed)
        rig.trainer.save()
    rig.now += 1e7
    rig.trainer.save()
    assert rig.trainer.journal.first() > 5  # what it holds came in records that are deleted
    rig.restart(journal_max_bytes=1, segment_bytes=1)
    assert held(rig)["since"] == pytest.approx(1_001.0)
    assert tell(rig, Resume()).held == 5 * 16
    assert digest(rig) == never(1, 2, 3, 4, 5, 6)


def test_a_breaker_that_is_switched_off_holds_nothing(rig, never):
    teach(rig, 1)
    teach(rig, 2, 3, source=TRIP)
    rig.restart(breaker="off")
    teach(rig, 4)
    assert held(rig)["rows"] == 0
    assert digest(rig) == never(1, 2, 3, 4)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


def test_other_settings_change_nothing_about_it_and_a_lower_limit_drops_the_oldest(rig, never):
    teach(rig, 1)
    teach(rig, 2, 3, source=TRIP)
    rig.restart(keep_negatives=0.9, breaker="rollback")
    assert (held(rig)["rows"], rig.trainer.status()["admission"]["open"]) == (32, True)
    size = held(rig)["bytes"] // 32
    rig.restart(held_bytes=16 * size)
    assert (held(rig)["rows"], held(rig)["dropped"]) == (16, 16)
    tell(rig, Resume())
    assert digest(rig) == never(1, 3)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


def test_a_freeze_meanwhile_holds_nothing_more_and_one_resume_ends_both(rig, never):
    teach(rig, 1)
    teach(rig, 2, source=TRIP)
    tell(rig, Freeze())
    teach(rig, 3)
    rig.restart(breaker="off")
    assert held(rig)["rows"] == 16
    tell(rig, Resume())
    teach(rig, 4)
    assert digest(rig) == never(1, 2, 4)


@pytest.mark.parametrize("rig", [{"breaker": "rollback"}], indirect=True)
def test_a_breaker_that_rolls_back_keeps_what_it_holds_until_the_resume(rig, never):
    teach(rig, 1, 2)
    teach(rig, 3, source=TRIP)
    rig.step()
    (back,) = (record for _, record in rig.trainer.journal.commands(0, 10**9) if record.action == "rollback")
    assert (back.by, back.release, held(rig)["rows"]) == ("breaker", 0, 16)
    teach(rig, 4)
    assert tell(rig, Resume()).held == 32
    assert digest(rig) == never(3, 4)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_relearning_learns_again_what_was_learned_and_holds_what_was_held(rig, never, resumed, skip):
    teach(rig, 1)
    made = tell(rig, Release()).target
    teach(rig, 2)
    teach(rig, 3, source=TRIP)
    if resumed:
        tell(rig, Resume(skip=skip))
        teach(rig, 4)
    tell(rig, Rollback(release=made, relearn=True))
    assert digest(rig) == (never(1, 2) if not resumed else never(1, 2, 4) if skip else never(1, 2, 3, 4))
    assert held(rig)["rows"] == (0 if resumed else 16)
    teach(rig, 5)
    tell(rig, Resume(skip=skip))
    expected = (1, 2, 4, 5) if skip and resumed else (1, 2) if skip else (1, 2, 3, 4, 5) if resumed else (1, 2, 3, 5)
    assert digest(rig) == never(*expected)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


def test_a_release_made_meanwhile_has_what_is_held_and_none_is_made_by_itself(rig, never):
    teach(rig, 1)
    teach(rig, 2, source=TRIP)
    made = tell(rig, Release()).target
    teach(rig, 3)
    releases = len(rig.trainer.releases.store.all())
    rig.step(1e6)
    assert len(rig.trainer.releases.store.all()) == releases
    tell(rig, Resume())
    tell(rig, Rollback(release=made, relearn=True))
    assert digest(rig) == never(1, 2, 3)
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)


def test_a_rebase_holds_what_the_breaker_holds(rig, definition, tmp_path):
    teach(rig, 1)
    teach(rig, 2, source=TRIP)
    tell(rig, Resume(skip=True))
    teach(rig, 3, source=TRIP)
    teach(rig, 4)
    rig.trainer.close()
    changed = replace(definition, corrections=[Calibration()])
    made = rebase(changed, rig.settings.model_copy(update={"home": tmp_path / "new"}), rig.trainer.home.folder)
    assert (made.examples, made.learned, made.held) == (64, 16, 32)
    rig.start()


STEPS = ["teach", "trip", "resume", "skip", "freeze", "release", "back", "relearn", "save", "crash", "off", "on"]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=10))
def test_whatever_happens_a_restart_and_a_replay_come_to_the_same(definition, make_rig, tmp_path_factory, steps):
    rig = make_rig(definition, tmp_path_factory.mktemp("home"))
    store = rig.trainer.releases.store
    rig.step()
    for seed, step in enumerate(steps):
        match step:
            case "teach" | "trip":
                teach(rig, seed, source=TRIP if step == "trip" else 1)
            case "resume" | "skip":
                tell(rig, Resume(skip=step == "skip"))
            case "freeze":
                tell(rig, Freeze())
            case "release":
                tell(rig, Release())
            case "back" | "relearn":
                tell(rig, Rollback(release=store.all()[-1].number, relearn=step == "relearn"))
            case "save":
                rig.trainer.save()
            case "crash":
                before = bits(rig.trainer.learner)
                crash(rig)
                rig.step(0.0)
                assert bits(rig.trainer.learner) == before
            case "off" | "on":
                rig.restart(breaker="off" if step == "off" else "freeze")
        learner = rig.trainer.learner
        assert not len(learner.held) or learner.frozen or learner.admission.open
    assert bits(relearned(rig.trainer.home)) == bits(rig.trainer.learner)
