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


def test_the_same_scorer_has_the_same_tables(folder, request):
    mine = definition(folder)
    done = rebase(mine, new(folder), folder / "ranker")
    assert done.unusable == 0
    trainer = Trainer(mine, new(folder), clock=lambda: NOW)
    # What lost more than the base is no champion yet.
    assert trainer.contest.challenger == (None if done.champion else 1)
    trainer.close()
    if done.swept:
        assert done.records + done.swept == done.position
        return
    learner = relearned(Home(mine, settings(folder)))
    made = mine.new_stack()
    made.load(part(Home(mine, new(folder)).releases().state(Home(mine, new(folder)).releases().get(1)), "stack"))
    assert (done.examples, done.learned, done.rollbacks) == (learner.examples, learner.learned, 1)
    # The journal goes back to a release that version 0.1 made with other limits of numbers: its tables are not compared.
    if "/0.1/" in str(request.node.callspec.params["folder"]):
        return
    if learner.joiner.window is None:
        assert made.digest() == learner.stack.digest()
    for name, array in learner.stack.state().items():
        # Weights of late and of sampled rows depend on what was served, which ONNX Runtime rounds differently.
        if array.dtype.kind == "f":
            np.testing.assert_allclose(made.state()[name], array, rtol=1e-4, atol=1e-4)


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
