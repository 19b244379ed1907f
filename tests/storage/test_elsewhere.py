"""A home whose log and registry are not ours: a service scores, learns and swaps on them as on a folder."""

import asyncio
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from riverdelta.checks import MemoryLog, MemoryRegistry
from riverdelta.core.records import Control
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home
from riverdelta.storage.impression import find
from riverdelta.storage.registry import FolderRegistry

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import definition

__all__ = ["definition"]


@pytest.fixture
def home(definition, tmp_path):
    log, settings = MemoryLog(), Settings.load(home=tmp_path / "home", swap_min_seconds=1e-9, follow_seconds=3600.0)
    return Home(definition, settings, open_log=lambda folder: log, registry=MemoryRegistry(tmp_path / "models"))


def teach(plane, seed):
    rng = np.random.default_rng(seed)
    columns = {"user": rng.integers(0, 20, 16), "x": rng.normal(size=16).astype("f"), "shop": rng.normal(size=16).astype("f")}
    answer = plane.score(columns)
    ids = [f"{answer.impressions}.{row}" for row in range(16)]
    labels = rng.integers(0, 2, 16).astype(np.float32)
    assert set(asyncio.run(plane.feedback(ids, labels)).outcomes) == {"accepted"}
    return ids, labels, answer.state


def test_a_service_and_its_learner_run_on_a_log_and_a_registry_in_memory(home):
    plane = DataPlane(home.definition, home.settings, registry=CollectorRegistry(), home=home)
    with closing(plane), closing(Trainer(home.definition, home.settings, home=home)) as trainer:
        for seed in range(3):
            ids, labels, state = teach(plane, seed)
            while trainer.step():
                pass
            plane.follower.follow()
            assert plane.session.state.swap > state.swap
            assert plane.session.state.position == trainer.learner.position == plane.journal.last()
        assert find(home, ids[4])["label"] == labels[4]
        trainer.journal.write(Control("release", {}, 0.0))
        while trainer.step():
            pass
        trainer.save()
        learned = trainer.learner.stack.digest()
        assert [release.number for release in home.releases().all() if release.verify()] == [0, 1]
    with closing(Trainer(home.definition, home.settings, home=home)) as again:
        assert (again.learner.examples, again.learner.stack.digest()) == (48, learned)
    assert {path.name for path in home.folder.iterdir()} & {"live", "releases", "checkpoints"} == set()
    assert {path.suffix for path in (home.registry.folder / "releases").iterdir()} == {".onnx"}


class Full(FolderRegistry):
    """A registry whose disk is full at one call."""

    def __init__(self, folder, call, name):
        super().__init__(folder)
        self.fails = {(call, name)}

    def write(self, name, *pieces, durable=True):
        self._fail("write", name)
        super().write(name, *pieces, durable=durable)

    def delete(self, name):
        self._fail("delete", name)
        super().delete(name)

    def _fail(self, call, name):
        if (call, name) in self.fails:
            self.fails.clear()
            raise OSError(28, "no space left on device")


@pytest.mark.parametrize(("call", "name"), [("write", "live/head"), ("delete", "live/000000000001.live")])
def test_where_publishing_fails_half_way_the_learner_goes_on_and_publishes_later(definition, tmp_path, monkeypatch, call, name):
    monkeypatch.setattr("riverdelta.sidecar.trainer._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("riverdelta.storage.registry.live._DELTAS_PER_FULL", 1)
    settings = Settings.load(home=tmp_path / "home", swap_min_seconds=1e-9, follow_seconds=3600.0)
    home = Home(definition, settings, registry=Full(tmp_path / "home" / definition.name, call, name))
    plane = DataPlane(definition, settings, registry=CollectorRegistry(), home=home)
    with closing(plane), closing(Trainer(definition, settings, home=home)) as trainer:
        for seed in range(5):
            teach(plane, seed)
            for _ in range(3):
                while trainer.step():
                    pass
            plane.follower.follow()
        assert home.registry.fails == set()
        assert plane.session.state.position == trainer.learner.position
