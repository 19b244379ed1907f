"""The operator: each step is written where the learner reads it, and refused before that where it cannot be done."""

import asyncio

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt, NotFound, Refused, Unavailable
from riverdelta.core.records import Control
from riverdelta.learning.commands import Freeze, Promote, Release, Resume, Rollback
from riverdelta.learning.learner import Learner
from riverdelta.learning.outcomes import KEPT
from riverdelta.sidecar.operator import Operator, outcome_of


@pytest.fixture
def operator(rig):
    return Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now)


def wait(operator, sequence, seconds=30.0):
    return asyncio.run(operator.wait(sequence, seconds))


def taught(rig, operator, *seeds):
    for seed in seeds:
        rig.teach(seed=seed)
        rig.step()
        operator.ask(Release())
        rig.step()


def marks(operator):
    return {mark: [row.release for row in operator.releases() if getattr(row, mark)] for mark in ("champion", "serving")}


def test_freeze_and_resume_are_obeyed(rig, operator):
    sequence = operator.ask(Freeze())
    rig.step()
    assert wait(operator, sequence)["frozen"]
    sequence = operator.ask(Resume())
    rig.step()
    assert not wait(operator, sequence)["frozen"]


def test_rollback_goes_to_the_champion_unless_told_otherwise(rig, operator):
    taught(rig, operator, 1, 2, 3)
    operator.ask(Promote(release=2))
    rig.step()
    rig.teach(seed=4)
    rig.step()
    operator.ask(Rollback())
    rig.step()
    assert rig.trainer.status()["release"] == 2
    assert rig.trainer.learner.stack.digest() == rig.trainer.releases.store.get(2).facts["digest"]
    operator.ask(Rollback(release=1, freeze=True))
    rig.step()
    status = rig.trainer.status()
    assert (status["release"], status["champion"], status["frozen"]) == (1, 2, True)
    assert marks(operator) == {"champion": [2], "serving": [1]}
    operator.ask(Rollback(release=3, promote=True))
    rig.step()
    assert marks(operator) == {"champion": [3], "serving": [3]}


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_where_champions_alone_serve_rollback_goes_to_the_champion_s_predecessor(rig, operator):
    taught(rig, operator, 1, 2)
    for number in (1, 2):
        operator.ask(Promote(release=number))
        rig.step()
    assert operator.target() == 1
    last = rig.trainer.journal.last()
    with pytest.raises(Refused, match=r"type `riverdelta rollback 1 --relearn --promote`") as refused:
        operator.ask(Rollback(relearn=True))
    assert refused.value.http_status == 409
    assert rig.trainer.journal.last() == last
    operator.ask(Rollback(promote=True))
    rig.step()
    assert (rig.trainer.status()["release"], rig.trainer.status()["champion"]) == (1, 1)


@pytest.mark.parametrize("rig", [{"segment_bytes": 1}], indirect=True)
def test_relearning_what_retention_deleted_is_refused_with_the_first_record_left_and_nothing_is_written(rig, operator):
    taught(rig, operator, 1, 2, 3)
    store, journal = rig.trainer.releases.store, rig.trainer.journal
    operator.ask(Rollback(release=0, relearn=True))  # release 0 is of position 0: all records are there
    rig.step()
    rig.trainer.save()
    journal.sweep(store.get(2).position, 1e9, 0, rig.now)
    assert sum(journal.sweep(journal.last(), 1e9, 10**12, rig.now) for _ in range(2)) > 0
    first, last = journal.first(), journal.last()
    assert first == store.get(2).position + 1
    for number in (0, 1):
        with pytest.raises(Refused, match=f"to {first - 1} were deleted; roll back without --relearn, or to release 2"):
            operator.ask(Rollback(release=number, relearn=True))
    assert journal.last() == last
    for number, relearn in ((2, True), (0, False)):
        sequence = operator.ask(Rollback(release=number, relearn=relearn))
        rig.step()
        assert outcome_of(wait(operator, sequence), sequence)["release"] == number


def unlabelled(rig, label):
    answer = rig.plane.score(rig.columns(8, 0))
    rig.step()
    return lambda: asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(8)], np.full(8, label, "f4")))


def swept(rig, before):
    rig.trainer.journal.sweep(before, 1e9, 0, rig.now)
    assert sum(rig.trainer.journal.sweep(rig.trainer.journal.last(), 1e9, 10**12, rig.now) for _ in range(2)) > 0


SHOWN = {"segment_bytes": 1, "labels": "silence", "window_seconds": 1.0}


@pytest.mark.parametrize(
    ("rig", "label", "needs"),
    [({"segment_bytes": 1}, 1.0, True), (SHOWN, np.nan, True), ({"segment_bytes": 1}, np.nan, False)],
    indirect=["rig"],
)
def test_relearning_feedback_for_rows_that_retention_deleted_is_refused_before_it_is_written(rig, operator, label, needs):
    feedback = unlabelled(rig, label)
    taught(rig, operator, 1)
    feedback()
    rig.step(5.0)
    rig.step(5.0)
    taught(rig, operator, 2, 3)
    store, last = rig.trainer.releases.store, rig.trainer.journal.last()
    swept(rig, store.get(1).position)
    assert rig.trainer.journal.first() <= store.get(1).position + 1
    if needs:
        said = r"the rows of the feedback at position \d+ were deleted; .* without --relearn, or to release 2 or later"
        with pytest.raises(Refused, match=said):
            operator.ask(Rollback(release=1, relearn=True))
        assert rig.trainer.journal.last() == last
    for number in (2,) if needs else (1, 2):
        sequence = operator.ask(Rollback(release=number, relearn=True))
        rig.step()
        assert outcome_of(wait(operator, sequence), sequence)["refused"] is None


@pytest.mark.parametrize("seed", range(2))
def test_what_is_refused_before_it_is_written_is_what_relearning_would_fail_at(definition, tmp_path, make_rig, seed):
    rng, rig = np.random.default_rng(seed), make_rig(definition, tmp_path / "home", segment_bytes=30_000)
    late = []
    for step in range(24):
        late.append(unlabelled(rig, 1.0))
        rig.teach(seed=step)
        if rng.random() < 0.7:
            late.pop(rng.integers(len(late)))()
        rig.step()
        if step % 3 == 0:
            rig.trainer.journal.write(Control("release", {}, rig.now))
            rig.step()
    journal, learner = rig.trainer.journal, rig.trainer.learner
    seen = set()
    for cut in range(0, journal.last(), 20):
        journal.sweep(cut, 1e9, 0, rig.now)
        for _ in range(2):
            journal.sweep(journal.last(), 1e9, 10**12, rig.now)
        for release in rig.trainer.releases.store.all():
            refused = journal.complete_after() > release.position
            try:
                learner._relearned(rig.trainer.releases.store.state(release), release.position, journal.last() + 1)
            except (NotFound, Corrupt):
                assert refused, (cut, release.number)
            else:
                assert not refused, (cut, release.number)
            seen.add((refused, journal.first() > release.position + 1))
    assert seen >= {(False, False), (True, False), (True, True)}


def test_a_learner_that_relearns_for_long_is_seen_to_run(rig, operator, monkeypatch):
    rig.teach()
    rig.step()
    sequence = operator.ask(Rollback(release=0, relearn=True))
    again, looks = rig.trainer.learner.again, []

    def slow():
        other = again()
        push = other.push

        def pushed(*record):
            rig.now += 6.0
            looks.append(operator.look(sequence))
            return push(*record)

        other.push = pushed
        return other

    monkeypatch.setattr(rig.trainer.learner, "again", slow)
    rig.step()
    assert len(looks) > 2
    assert looks == [None] * len(looks)
    assert outcome_of(wait(operator, sequence), sequence)["refused"] is None


@pytest.mark.parametrize(
    "rig", [{"labels": "silence", "window_seconds": 50.0, "waiting_bytes": 200_000, "breaker": "off"}], indirect=True
)
def test_a_record_that_is_learned_in_parts_for_long_is_seen_to_be_learned_and_to_be_learned_again(rig, operator, monkeypatch):
    for seed in range(5):
        rig.teach(1_000, seed, labels=np.full(1_000, np.nan, np.float32))
    rig.step()
    learn, looks = Learner.learn, []

    def slow(learner, examples):
        rig.now += 6.0
        rig.plane.follower.mirror()
        status = rig.plane.status()
        looks.append((status["sidecar"]["alive"], status["learning"]["relearning"]))
        learn(learner, examples)

    monkeypatch.setattr(Learner, "learn", slow)
    rig.step(100.0)
    ticked = len(looks)
    assert ticked > 2
    # The first part comes as late as this clock was turned.
    assert looks[1:] == [(True, None)] * (ticked - 1)
    sequence = operator.ask(Rollback(release=0, relearn=True))
    rig.step()
    found = looks[ticked:]
    assert len(found) == ticked
    assert all(alive for alive, _ in found)
    assert all(again["since"] == 0 and again["until"] == sequence for _, again in found[1:])
    assert found[-1][1]["position"] > 0
    assert outcome_of(wait(operator, sequence), sequence)["refused"] is None
    assert rig.trainer.status()["relearning"] is None


def test_a_command_that_waits_for_a_relearning_learner_says_so(rig, operator):
    rig.trainer.home.write_status(
        {"pid": 7, "time": rig.now, "position": 3, "relearning": {"since": 3, "position": 40, "until": 90}}
    )
    with pytest.raises(Unavailable, match=r"did not reach 91 within 0 s \(it is relearning 3 to 90 and is at 40\)"):
        wait(operator, 91, 0)


def test_a_command_that_is_read_and_not_complete_says_so(rig, operator):
    reached = {"sequence": 91, "action": "forget", "refused": None, "pending": True}
    rig.trainer.home.write_status({"pid": 7, "time": rig.now, "position": 95, "outcomes": [reached]})
    with pytest.raises(Unavailable, match=r"is at position 95 and did not complete 91 within 0 s; it continues"):
        wait(operator, 91, 0)


def test_a_learner_whose_status_is_dated_in_the_future_is_not_waited_for(rig, operator):
    rig.trainer.home.write_status({"pid": 7, "time": rig.now + 3_600.0, "position": 3})
    with pytest.raises(Unavailable, match="no learner runs on this folder"):
        wait(operator, 91, 30.0)


def test_what_the_learner_refused_is_told_as_such_by_its_record_also_after_a_restart(rig, operator):
    taught(rig, operator, 1)
    sequence = operator.ask(Rollback(release=1))
    rig.trainer.releases.store.get(1).state_path.unlink()
    rig.step()
    for _ in range(2):
        with pytest.raises(Refused, match=f"rollback at position {sequence} was refused, and nothing changed: .*000001.state"):
            wait(operator, sequence)
        answer = asyncio.run(operator.answer(Rollback(release=1), sequence))
        assert (answer.obeyed, answer.waits, answer.champion) == (False, None, 0)
        assert "000001.state" in answer.refused
        rig.trainer.close()
        rig.start()
        rig.step()
    sequences = [operator.ask(Freeze()) for _ in range(KEPT + 1)]
    rig.step()
    with pytest.raises(Unavailable, match="no longer kept; `riverdelta releases` shows"):
        wait(operator, sequences[0])
    assert wait(operator, sequences[1])["frozen"]


def test_what_is_not_there_or_not_whole_is_refused_and_nothing_is_written(rig, operator):
    taught(rig, operator, 1, 2)
    last = rig.trainer.journal.last()
    with pytest.raises(NotFound, match="there is no release 9; there are: 0, 1, 2"):
        operator.ask(Rollback(release=9))
    with pytest.raises(NotFound, match="no release 9"):
        operator.ask(Promote(release=9))
    store = rig.trainer.releases.store
    store.get(1).path.write_bytes(b"damaged")
    store.get(2).state_path.unlink()
    with pytest.raises(Corrupt, match=r"release 1: .* does not match its digest"):
        operator.ask(Rollback(release=1))
    with pytest.raises(Corrupt, match=r"000002.state"):
        operator.ask(Rollback(release=2))
    assert rig.trainer.journal.last() == last


def test_the_table_says_what_each_release_is(rig, operator):
    taught(rig, operator, 1, 2)
    operator.ask(Promote(release=1))
    rig.step()
    rows = operator.releases()
    assert [row.release for row in rows] == [0, 1, 2]
    assert [row.champion for row in rows] == [False, True, False]
    assert [row.serving for row in rows] == [False, False, True]
    assert [row.examples for row in rows] == [0, 16, 32]
    assert rows[1].loss_base > 0
    assert all(row.bytes > 0 for row in rows)


def test_without_a_learner_the_command_waits_in_the_journal_and_says_so(rig, operator):
    rig.trainer.close()
    rig.now += 60.0
    sequence = operator.ask(Freeze())
    with pytest.raises(Unavailable, match="waits in the journal until one is started"):
        wait(operator, sequence)
    rig.start()
    rig.step()
    assert wait(operator, sequence)["frozen"]
