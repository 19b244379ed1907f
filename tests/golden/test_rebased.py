"""A home that a released version wrote is rebased: to the same scorer with the same tables, and to another that serves."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from scorer import definition, settings

from relearned import relearned
from riverdelta import Calibration, Linear
from riverdelta.core.arrays import part
from riverdelta.core.errors import ConfigurationError
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.rebase import rebase
from riverdelta.storage.home import Home

NOW = 10_000.0
HOMES = sorted(folder.parent for folder in Path(__file__).parent.glob("*/*/ranker"))


@pytest.fixture(params=HOMES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def folder(request, tmp_path):
    return Path(shutil.copytree(request.param, tmp_path / "home"))


def new(folder):
    return settings(folder).model_copy(update={"home": folder.parent / "new"})


def tables(home):
    """Return the tables of a home's first release."""
    store, made = home.releases(), home.definition.new_stack()
    made.load(part(store.state(store.get(1)), "stack"))
    return made


def test_the_same_scorer_has_what_its_journal_teaches_as_scored_again(folder):
    home = Home(definition(folder), new(folder))
    done = rebase(home.definition, home.settings, folder / "ranker")
    assert done.unusable == 0
    if done.swept:
        assert done.records + done.swept == done.position
    else:
        learner = relearned(home)
        assert tables(home).digest() == learner.stack.digest()
        assert (done.examples, done.learned, done.rollbacks) == (learner.examples, learner.learned, 1)
    trainer = Trainer(home.definition, home.settings, clock=lambda: NOW)
    # What lost more than the base is no champion yet.
    assert trainer.contest.challenger == (None if done.champion else 1)
    trainer.close()


@pytest.mark.parametrize("folder", [each for each in HOMES if each.name in ("explicit", "swept")], indirect=True)
def test_it_comes_to_the_same_tables_each_time(folder):
    digests = set()
    for name in ("new", "newer"):
        home = Home(definition(folder), settings(folder).model_copy(update={"home": folder.parent / name}))
        rebase(home.definition, home.settings, folder / "ranker")
        digests.add(tables(home).digest())
    assert len(digests) == 1


def test_another_scorer_serves_and_takes_the_label_of_a_row_of_before(folder):
    changed = replace(definition(folder), corrections=[Calibration(), Linear("user", "shop", slots=128)])
    done = rebase(changed, new(folder), folder / "ranker")
    trainer = Trainer(changed, new(folder), clock=lambda: NOW)
    plane = DataPlane(changed, new(folder), clock=lambda: NOW, registry=CollectorRegistry())
    ids = json.loads((folder / "last.json").read_text())["ids"]
    outcomes = asyncio.run(plane.feedback(ids, np.ones(len(ids), np.float32))).outcomes
    assert {str(outcome) for outcome in outcomes} <= {"accepted", "late"}
    while trainer.step():
        pass
    assert trainer.paused is None
    assert trainer.learner.examples > done.examples
    trainer.close()
    plane.close()


@pytest.mark.parametrize("kind", ["explicit", "silence"])
def test_a_home_of_0_1_is_not_rebased_with_another_label_mode(tmp_path, kind):
    folder = Path(shutil.copytree(Path(__file__).parent / "0.1" / kind, tmp_path / "home"))
    other = (
        {"labels": "silence", "window_seconds": 30.0} if kind == "explicit" else {"labels": "explicit", "window_seconds": None}
    )
    with pytest.raises(ConfigurationError, match=f"was written by version 0.1 with RIVERDELTA_LABELS={kind}"):
        rebase(definition(folder), new(folder).model_copy(update=other), folder / "ranker")
    assert not (folder.parent / "new").exists()
