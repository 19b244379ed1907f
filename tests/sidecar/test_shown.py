"""Shown: what is shown follows from the records and outlives a restart, also where slices are declared later."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.learning.commands import COMMANDS, Freeze, Release, Rollback
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.shown import ACTIONS


@pytest.fixture
def sliced(definition):
    return replace(definition, slices={"user": [3, 5]})


def test_traffic_slices_and_controls_are_told_and_outlive_a_restart(sliced, tmp_path, make_rig):
    rig = make_rig(sliced, tmp_path / "home")
    rig.teach(rows=64)
    operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
    operator.ask(Release())
    operator.ask(Freeze())
    rig.step()
    status = rig.trainer.status()
    users = rig.columns(64, 0)["user"]
    told = {name: scorers["served"]["examples"] for name, scorers in status["slices"]["user"].items()}
    assert told == {"3": (users == 3).sum(), "5": (users == 5).sum(), "other": (~np.isin(users, [3, 5])).sum()}
    assert status["controls"] == {**dict.fromkeys(ACTIONS, 0), "release": 1, "freeze": 1}
    assert status["traffic"]["rows"] == 64
    assert status["traffic"]["residual"]["1"] == 0.0
    assert status["journal_position"] == status["position"]
    assert 0 < status["disk_free_ratio"] < 1
    rig.trainer.close()
    rig.start()
    assert {name: rig.trainer.status()[name] for name in ("slices", "controls", "traffic")} == {
        name: status[name] for name in ("slices", "controls", "traffic")
    }


def test_a_column_that_no_correction_reads_can_be_sliced_by_and_declared_on_a_folder_that_learned(
    definition, tmp_path, make_rig
):
    shown = replace(definition, corrections=definition.corrections[:1])
    old = make_rig(shown, tmp_path / "home")
    first = old.plane.score(old.columns(8, 0))
    old.teach(rows=1, seed=1)  # its impressions are durable with what was scored before
    old.trainer.close()
    old.trainer = None
    new = make_rig(replace(shown, slices={"user": [1]}), tmp_path / "home")
    second = new.plane.score(new.columns(8, 1))
    # One block of labels for rows of before and after the column was kept.
    ids = [f"{answer.impressions}.{i}" for answer in (first, second) for i in range(8)]
    asyncio.run(new.plane.feedback(ids, np.ones(16, np.float32)))
    new.step()
    assert new.trainer.paused is None
    assert new.trainer.learner.examples == 17
    new.teach(rows=8)
    new.step()
    assert sum(s["base"]["examples"] for s in new.trainer.status()["slices"]["user"].values()) == 8


@pytest.mark.parametrize(
    ("rig", "action", "anew"),
    [({}, "rollback", True), ({}, "promote", False), ({"guard": "release"}, "promote", True)],
    indirect=["rig"],
)
def test_the_gain_begins_anew_where_other_tables_take_over_and_late_labels_of_the_former_do_not_count(rig, action, anew):
    rig.teach(rows=64)
    operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
    operator.ask(Release())
    rig.step()
    assert (rig.trainer.status()["worth"]["since"], rig.trainer.status()["worth"]["labels"]) == (None, 64)
    late = rig.plane.score(rig.columns(8, 1))
    sequence = operator.ask(COMMANDS[action](release=1))
    rig.step()
    since = {"action": action, "release": 1, "position": sequence, "time": 1_001.0}
    assert rig.trainer.status()["worth"]["since"] == (since if anew else None)
    asyncio.run(rig.plane.feedback([f"{late.impressions}.{i}" for i in range(8)], np.ones(8, np.float32)))
    rig.step()
    assert rig.trainer.status()["worth"]["labels"] == (0 if anew else 72)
    rig.plane.follower.follow()
    rig.teach(rows=32, seed=2)
    rig.step()
    worth = rig.trainer.status()["worth"]
    assert worth["labels"] == (32 if anew else 104)
    rig.trainer.close()
    rig.start()
    assert rig.trainer.status()["worth"] == worth


def test_a_rollback_that_is_refused_leaves_the_gain_as_it_is(rig):
    rig.teach(rows=16)
    rig.step()
    rig.trainer.journal.write(Rollback(release=7).record(position=3, time=rig.now))
    rig.step()
    assert rig.trainer.learner.outcomes[-1].refused
    assert rig.trainer.status()["worth"]["labels"] == 16


def test_a_learner_that_was_asked_to_stop_says_so(rig):
    rig.step()
    assert not rig.plane.status()["learning"]["stopped"]
    rig.trainer.close()
    rig.trainer = None
    assert rig.plane.status()["health"]["sentence"] == "The learner is down: it was asked to stop."


def test_slices_by_a_column_that_is_none_are_refused_by_name(definition):
    with pytest.raises(ConfigurationError, match="'x', which is float32"):
        replace(definition, slices={"x": [1]}).new_slices()
