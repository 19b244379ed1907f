"""Accepted means learned: however little memory there is, whatever restarts and sweeps come between a score and its label."""

import asyncio

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from riverdelta.core.errors import Unavailable
from riverdelta.learning.learner import new_learner
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar.recall import Replayed

#: Room for about 60 rows of the rig's impressions.
LITTLE = {"waiting_bytes": 10_000, "segment_bytes": 60_000}
SILENCE = {"labels": "silence", "window_seconds": 50.0}


@pytest.fixture
def start(definition, tmp_path, make_rig):
    return lambda **given: make_rig(definition, tmp_path / "home", **{**LITTLE, **given})


def score(rig, requests, rows=20):
    """The ids of the rows of some requests, scored one after the other."""
    answers = [rig.plane.score(rig.columns(rows, seed)) for seed in range(requests)]
    return [f"{answer.impressions}.{i}" for answer in answers for i in range(rows)]


def feed(rig, names, labels):
    answer = asyncio.run(rig.plane.feedback(names, np.array(labels, np.float32)))
    return answer.outcomes


def accepted(rig, names, labels):
    assert set(feed(rig, names, labels)) == {"accepted"}


def replayed(rig):
    """The state of a learner with all the memory that it wants, of the same records."""
    learner = new_learner(rig.definition, rig.settings.model_copy(update={"waiting_bytes": 1 << 30}))
    learner.recall = Replayed(rig.trainer.journal, learner.state())
    while records := rig.trainer.journal.read(learner.position, 10_000_000):
        for sequence, record in records:
            learner.push(sequence, record)
    return {name: array.tobytes() for name, array in learner.state().items()}


def same_as_replayed(rig):
    assert {name: array.tobytes() for name, array in rig.trainer.learner.state().items()} == replayed(rig)


@pytest.mark.parametrize("given", [{}, SILENCE], ids=["explicit", "silence"])
def test_every_accepted_label_is_learned_of_many_times_the_rows_that_fit_in_memory(start, given):
    rig = start(**given)
    names = score(rig, 40)
    rig.step()
    order = np.random.default_rng(0).permutation(len(names))
    for at in np.array_split(order, 20):
        accepted(rig, [names[i] for i in at], at % 2)
        rig.step()
    assert rig.trainer.learner.examples == len(names)
    assert rig.trainer.learner.joiner.unmatched == 0
    # A shelf has room for 1,024 rows, whatever the limit is.
    assert rig.trainer.learner.joiner.bytes <= LITTLE["waiting_bytes"] + 1_024 * rig.trainer.learner.joiner.waiting.row_bytes
    assert rig.trainer.status()["read_back_rows"] > 600
    same_as_replayed(rig)


def test_labels_of_before_a_restart_are_learned_after_it(start):
    rig = start()
    names = score(rig, 20)
    rig.step()
    accepted(rig, names[::3], np.ones(len(names[::3])))
    rig.trainer.close()
    rig.start()
    rig.step()
    rest = [name for i, name in enumerate(names) if i % 3]
    accepted(rig, rest, np.zeros(len(rest)))
    rig.step()
    assert rig.trainer.learner.examples == len(names)
    same_as_replayed(rig)


def test_what_was_shown_before_a_restart_matures_after_it_though_memory_holds_nothing_of_it(start):
    rig = start(**SILENCE)
    names = score(rig, 20)
    feed(rig, names, np.full(len(names), np.nan))
    accepted(rig, names[:50], np.ones(50))
    rig.step()
    rig.trainer.close()
    rig.start()
    rig.step(100.0)
    assert rig.trainer.learner.examples == len(names)
    assert rig.trainer.learner.joiner.kept_negatives == len(names) - 50
    same_as_replayed(rig)


def test_retention_deletes_nothing_that_a_label_was_accepted_for(start):
    rig = start(journal_max_bytes=1)
    given = learned = 0
    for seed in range(12):
        names = score(rig, 3, rows=200)
        rig.step(rig.settings.checkpoint_seconds + 1)
        answers = []
        for name in (names[:200], names[200:400]):
            outcomes = feed(rig, name, np.arange(200) % 2)
            answers += outcomes
            # The learner is behind by what it has not read yet, while segments become due.
            rig.trainer._save()
        given += answers.count("accepted")
        assert set(answers) <= {"accepted", "expired"}
        rig.step(rig.settings.checkpoint_seconds + 1)
        learned = rig.trainer.learner.examples
        assert learned == given, seed
    assert rig.trainer.learner.joiner.unmatched == 0
    assert rig.trainer.journal.read(0, 1)[0][0] > 1


def test_after_retention_a_label_is_answered_expired_from_the_moment_that_its_segment_is_retired(start, caplog):
    caplog.set_level("INFO", "riverdelta")
    rig = start(journal_max_bytes=1)
    names = score(rig, 6, rows=200)
    for seed in range(8):
        rig.teach(200, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)
    assert set(feed(rig, names[:200], np.ones(200))) == {"expired"}
    assert "labels for them are answered 'expired'" in caplog.text


def test_labels_that_expired_are_logged_with_their_number_at_most_once_a_minute(start, caplog):
    rig = start(journal_max_bytes=1)
    names = score(rig, 6, rows=200)
    for seed in range(8):
        rig.teach(200, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)

    def logged():
        return [record.args[0] for record in caplog.records if "expired" in record.message and record.levelname == "WARNING"]

    feed(rig, names[:200], np.ones(200))
    assert logged() == [200]
    feed(rig, names[:10], np.ones(10))
    feed(rig, names[:7], np.ones(7))
    rig.plane.follower.mirror()
    assert logged() == [200]
    rig.now += 60.0
    rig.plane.follower.mirror()
    assert logged() == [200, 17]
    feed(rig, names[:3], np.ones(3))
    rig.plane.close()
    assert logged() == [200, 17, 3]
    rig.plane = DataPlane(rig.definition, rig.settings, registry=CollectorRegistry())


def test_a_segment_with_a_shown_row_stays_until_its_window_is_over(start):
    rig = start(**{**SILENCE, "window_seconds": 10_000.0}, journal_max_bytes=1)
    shown = score(rig, 3, rows=200)
    feed(rig, shown, np.full(len(shown), np.nan))
    for seed in range(6):
        rig.teach(200, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)
    assert rig.trainer.journal.read(0, 1)[0][0] == 1
    rig.step(20_000.0)
    assert rig.trainer.learner.joiner.kept_negatives >= len(shown)
    assert rig.trainer.learner.joiner.unmatched == 0
    for seed in range(3):
        rig.teach(200, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)
    assert rig.trainer.journal.read(0, 1)[0][0] > 1


def test_showings_beyond_the_limit_are_put_off_and_labels_are_not(start):
    rig = start(**SILENCE, waiting_bytes=2_000)
    names = score(rig, 10)
    feed(rig, names[:100], np.full(100, np.nan))
    rig.step()
    rig.plane.follower.mirror()
    with pytest.raises(Unavailable, match=r"2400 bytes of showings are waiting .* RIVERDELTA_WAITING_BYTES allows 2000"):
        feed(rig, names[100:], np.full(100, np.nan))
    accepted(rig, names[:10], np.ones(10))
    rig.step(100.0)
    rig.plane.follower.mirror()
    accepted(rig, names[100:], np.full(100, np.nan))


def counted(rig):
    """How often each label counts in the measures of what was served, taken-back negatives deducted."""
    return rig.trainer.learner.prequential.state()["counts"][0].sum(axis=1).tolist()


def change(rig, **given):
    """The service and its learner start again with other settings, at the same time of day."""
    now = rig.now
    rig.close()
    rig.__init__(rig.definition, rig.settings.home, waiting_bytes=1 << 20, **given)
    rig.now = now
    rig.step()


#: By what changes: the settings before and after, and how long after the showing half of the labels come.
CHANGES = {
    "a longer window": (SILENCE, {**SILENCE, "window_seconds": 5_000.0}, 100.0),
    "a shorter window": ({**SILENCE, "window_seconds": 5_000.0}, SILENCE, 100.0),
    "no silence": (SILENCE, {}, 10.0),
    "no silence, late": (SILENCE, {}, 100.0),
    "silence": ({}, SILENCE, 100.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_shown_row_counts_once_with_its_true_label_whatever_changes_between_showing_and_label(start, name):
    before, after, wait = CHANGES[name]
    rig = start(**{**before, "waiting_bytes": 1 << 20})
    names = score(rig, 1)
    feed(rig, names, np.full(20, np.nan))
    rig.step()
    rig.step(wait)
    change(rig, **after)
    assert set(feed(rig, names[:8], np.ones(8))) <= {"accepted", "late"}
    rig.step()
    change(rig, **before)
    rig.step(10_000.0)
    # What was shown while silence made no negatives counts where it has a label alone.
    assert counted(rig) == [0.0 if name == "silence" else 12.0, 8.0]
    assert not len(rig.trainer.learner.joiner.showings)
    same_as_replayed(rig)


def test_rows_shown_while_silence_made_no_negatives_can_be_shown_again_when_it_does(start):
    rig = start(waiting_bytes=1 << 20)
    names = score(rig, 1)
    accepted(rig, names, np.full(20, np.nan))
    rig.step()
    change(rig, **SILENCE)
    accepted(rig, names, np.full(20, np.nan))
    assert set(feed(rig, names, np.full(20, np.nan))) == {"duplicate"}
    rig.step(100.0)
    rig.step()
    assert counted(rig) == [20.0, 0.0]


@pytest.mark.parametrize("policy", ["last", "max"])
def test_a_late_negative_noted_under_first_can_be_taken_back_under_another_policy(start, policy):
    rig = start(**SILENCE, waiting_bytes=1 << 20)
    names = score(rig, 1)
    feed(rig, names, np.full(20, np.nan))
    rig.step()
    rig.step(100.0)
    assert feed(rig, names[:1], [0]) == ["late"]
    change(rig, **SILENCE, on_conflict=policy)
    assert feed(rig, names[:1], [1]) == ["late"]
    rig.step()
    assert counted(rig) == [19.0, 1.0]


def test_many_windows_that_close_at_one_tick_take_no_more_memory_than_a_part_of_them(start):
    rig = start(**SILENCE, waiting_bytes=200_000)
    names = score(rig, 60, rows=100)
    for part in np.array_split(names, 6):
        feed(rig, part.tolist(), np.full(len(part), np.nan))
    rig.step()
    sizes, learn = [], rig.trainer.learner.learn
    rig.trainer.learner.learn = lambda examples: sizes.append(len(examples)) or learn(examples)
    rig.step(100.0)
    rig.step()
    assert sum(sizes) == 6_000
    assert max(sizes) < 2_000
    del rig.trainer.learner.learn
    same_as_replayed(rig)


def test_a_showing_that_is_on_its_way_when_its_segment_is_retired_keeps_the_segment(start):
    rig = start(**SILENCE, journal_max_bytes=1)
    names = score(rig, 3, rows=200)
    for seed in range(4):
        rig.teach(200, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)
        # Accepted before the learner sweeps, and read by it afterwards.
        feed(rig, names[seed * 20 : seed * 20 + 20], np.full(20, np.nan))
        rig.trainer._sweep()
    for _ in range(8):
        rig.teach(8, 9)
        rig.step(rig.settings.checkpoint_seconds + 1)
    assert rig.trainer.learner.joiner.unmatched == 0
    assert rig.trainer.journal.read(0, 1)[0][0] > 1


def test_a_positive_after_a_late_negative_takes_the_silent_negative_back(start):
    rig = start(**SILENCE, on_conflict="max", waiting_bytes=1 << 20)
    names = score(rig, 1)
    feed(rig, names, np.full(20, np.nan))
    rig.step()
    rig.step(100.0)
    assert rig.trainer.learner.joiner.kept_negatives == 20
    assert feed(rig, names[:1], [0]) == ["late"]
    assert feed(rig, names[:1], [1]) == ["late"]
    rig.step()
    report = rig.trainer.learner.prequential.report()["all"]["served"]
    # The row counts once, with its true label: its negative is taken back.
    assert rig.trainer.learner.prequential.state()["counts"][0].sum(axis=1).tolist() == [19.0, 1.0]
    assert report["examples"] == 22


def test_what_waits_takes_bytes_in_memory_and_checkpoints_by_the_limit_and_not_by_the_rows(definition, tmp_path, make_rig):
    limit, block = 2_000_000, 2 << 20
    rig = make_rig(definition, tmp_path / "home", waiting_bytes=limit)
    sizes = []
    for _ in range(3):
        score(rig, 12, rows=1000)
        rig.step(rig.settings.checkpoint_seconds + 1)
        sizes.append(sum(array.nbytes for array in rig.trainer.learner.joiner.state().values()))
        assert rig.trainer.learner.joiner.bytes <= limit + block
    assert sizes == sizes[:1] * 3


def test_learning_goes_on_while_a_checkpoint_is_written(rig, monkeypatch):
    import threading

    done, real = threading.Event(), rig.trainer.checkpoints.save
    monkeypatch.setattr(rig.trainer.checkpoints, "save", lambda *given: done.wait(20) and real(*given))
    rig.teach()
    rig.now += rig.settings.checkpoint_seconds + 1
    while rig.trainer.step():
        pass
    assert rig.trainer._saver.writing
    before = {name: array.copy() for name, array in rig.trainer.learner.state().items()}
    rig.teach(seed=1)
    while rig.trainer.step():
        pass
    assert rig.trainer.learner.examples == 32
    done.set()
    rig.step()
    saved = rig.trainer.checkpoints.load()
    assert saved.position == before["learner"][0]
    # It holds the state of the moment at which it began.
    assert all(np.array_equal(saved.arrays[name], array, equal_nan=array.dtype.kind == "f") for name, array in before.items())
