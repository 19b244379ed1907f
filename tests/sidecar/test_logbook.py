"""Logbook: what was asked for and what happened, bounded, and the same after a restart."""

import json

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt
from riverdelta.learning.commands import Release, Resume, Rollback
from riverdelta.sidecar.logbook import ENTRIES, Logbook
from riverdelta.sidecar.operator import Operator


def test_it_keeps_the_last_entries_and_no_long_ones():
    book = Logbook()
    for i in range(ENTRIES + 5):
        book.note(i, 0.0, "x" * 1_000, {"reason": "y" * 10_000, "nested": [[1]] * 1_000, "by": i})
    entries = book.report()["events"]
    assert [e["position"] for e in entries] == list(range(5, ENTRIES + 5))
    assert entries[-1]["details"] == {"reason": "y" * 300, "by": ENTRIES + 4}
    assert len(json.dumps(entries)) < 20_000


def test_controls_are_noted_with_what_came_of_them_and_survive_a_restart(rig):
    operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
    rig.teach(rows=64)
    operator.ask(Release())
    rig.step()
    operator.ask(Rollback(release=0, freeze=True))
    operator.ask(Resume())
    rig.step()
    told = [(e["action"], e["details"].get("release")) for e in rig.trainer.status()["events"]]
    assert told == [("release", 1), ("rollback", 0), ("resume", None)]
    assert rig.trainer.status()["history"]["examples"] == [64]
    before = rig.trainer.status()
    rig.trainer.close()
    rig.start()
    after = rig.trainer.status()
    assert after["events"][: len(before["events"])] == before["events"]
    assert after["history"] == before["history"]


def test_the_breaker_is_noted_once_when_it_opens_and_once_when_it_closes(rig):
    for seed in range(40):
        rig.teach(rows=64, seed=seed)
    for seed in range(20):
        rig.teach(rows=64, seed=seed, labels=np.zeros(64, np.float32))
    rig.step()
    opened = rig.trainer.status()["events"]
    assert [e["action"] for e in opened] == ["breaker opened"]
    assert opened[0]["details"]["reason"] == rig.trainer.learner.admission.breaker.reason
    Operator(rig.trainer.home, rig.trainer.journal).ask(Resume())
    rig.step()
    assert [e["action"] for e in rig.trainer.status()["events"][1:]] == ["resume", "breaker closed"]


@pytest.mark.parametrize("rig", [{"serve": "base"}], indirect=True)
def test_in_shadow_mode_the_corrections_are_judged_though_the_base_is_served(rig):
    for seed in range(30):
        rig.teach(rows=32, seed=seed, labels=np.ones(32, np.float32))
        rig.step()
        rig.plane.follower.follow()
    worth = rig.trainer.status()["worth"]
    assert worth["labels"] == 960
    assert worth["gain"]["lower"] > 0
    assert rig.trainer.status()["prequential"]["all"]["served"] == rig.trainer.status()["prequential"]["all"]["base"]


def test_a_broken_one_is_refused():
    with pytest.raises(Corrupt):
        Logbook().load({"entries": np.frombuffer(b"[", np.uint8)})
