"""The operator: each step is written where the learner reads it, and refused before that where it cannot be done."""

import pytest

from riverdelta.errors import Corrupt, NotFound, Unavailable
from riverdelta.operator import Operator


@pytest.fixture
def operator(rig):
    return Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now)


def taught(rig, operator, *seeds):
    for seed in seeds:
        rig.teach(seed=seed)
        rig.step()
        operator.release()
        rig.step()


def test_freeze_and_resume_are_obeyed(rig, operator):
    sequence = operator.freeze()
    rig.step()
    assert operator.wait(sequence)["frozen"]
    sequence = operator.resume()
    rig.step()
    assert not operator.wait(sequence)["frozen"]


def test_rollback_goes_to_the_champion_unless_told_otherwise(rig, operator):
    taught(rig, operator, 1, 2, 3)
    operator.promote(2)
    rig.step()
    rig.teach(seed=4)
    rig.step()
    operator.rollback()
    rig.step()
    assert rig.trainer.status()["release"] == 2
    assert rig.trainer.learner.stack.digest() == rig.trainer.releases.store.get(2).facts["digest"]
    operator.rollback(1, freeze=True)
    rig.step()
    status = rig.trainer.status()
    assert (status["release"], status["champion"], status["frozen"]) == (1, 1, True)


@pytest.mark.parametrize("rig", [{"guard": "release"}], indirect=True)
def test_where_champions_alone_serve_rollback_goes_to_the_champion_s_predecessor(rig, operator):
    taught(rig, operator, 1, 2)
    for number in (1, 2):
        operator.promote(number)
        rig.step()
    assert operator.target() == 1


def test_what_is_not_there_or_not_whole_is_refused_and_nothing_is_written(rig, operator):
    taught(rig, operator, 1, 2)
    last = rig.trainer.journal.last()
    with pytest.raises(NotFound, match="there is no release 9; there are: 0, 1, 2"):
        operator.rollback(9)
    with pytest.raises(NotFound, match="no release 9"):
        operator.promote(9)
    store = rig.trainer.releases.store
    store.get(1).path.write_bytes(b"damaged")
    store.get(2).state_path.unlink()
    with pytest.raises(Corrupt, match=r"release 1: .* does not match its digest"):
        operator.rollback(1)
    with pytest.raises(Corrupt, match=r"000002.state"):
        operator.rollback(2)
    assert rig.trainer.journal.last() == last


def test_the_table_says_what_each_release_is(rig, operator):
    taught(rig, operator, 1, 2)
    operator.promote(1)
    rig.step()
    rows = operator.releases()
    assert [row["release"] for row in rows] == [0, 1, 2]
    assert [row["champion"] for row in rows] == [False, True, False]
    assert [row["serving"] for row in rows] == [False, False, True]
    assert [row["examples"] for row in rows] == [0, 16, 32]
    assert rows[1]["log_loss_base"] > 0
    assert all(row["bytes"] > 0 for row in rows)


def test_without_a_learner_the_command_waits_in_the_journal_and_says_so(rig, operator):
    rig.trainer.close()
    rig.now += 60.0
    sequence = operator.freeze()
    with pytest.raises(Unavailable, match="waits in the journal until one is started"):
        operator.wait(sequence)
    rig.start()
    rig.step()
    assert operator.wait(sequence)["frozen"]
