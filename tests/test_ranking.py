"""A ranking service in one process: what is clicked rises, and a restart continues where it was."""

import asyncio
import inspect
from contextlib import closing

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Entity, Ranking
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.settings import Settings
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

BASE = """<ir_version: 8, opset_import: ["" : 18]>
shop (int64[N] item, float[N] x) => (float[N] y) { half = Constant<value = float {0.5}>() y = Mul(x, half) }"""
ITEMS, CLICKED = 5, 3


@pytest.fixture
def scorer(tmp_path):
    path = tmp_path / "shop.onnx"
    onnx.save(onnx.parser.parse_model(BASE), path)
    task = Ranking(positions=ITEMS)
    definition = Definition("shop", path, output="y", link="identity", corrections=[Entity("item", slots=64)], task=task)
    given = {"home": tmp_path / "home", "grpc_port": 0, "swap_min_seconds": 1e-9, "follow_seconds": 3600.0}
    return definition, given


def score(plane):
    return plane.score({"item": np.arange(ITEMS), "x": np.zeros(ITEMS, np.float32)})


def rise(trainer):
    while trainer.step():
        pass


@pytest.mark.skipif("group" not in inspect.signature(Prequential.update).parameters, reason="lists are not measured yet")
def test_clicks_on_an_item_raise_it_and_a_restart_learns_the_list_that_waited(scorer):
    definition, given = scorer
    settings = Settings.load(**given, window_seconds=60.0)
    plane = DataPlane(definition, settings, registry=CollectorRegistry())
    with closing(plane):
        with closing(Trainer(definition, settings, clock=lambda: 1e9)) as trainer:
            first = score(plane).scores
            np.testing.assert_allclose(first, 1 / ITEMS, atol=1e-6)
            for _ in range(30):
                made = score(plane).impressions
                ids, place = [f"{made}.{row}" for row in range(4)], np.arange(4)
                label = np.float32([np.nan, np.nan, np.nan, 1])
                answer = asyncio.run(plane.feedback(ids, label, positions=place, complete=True))
                assert set(answer.outcomes) == {"accepted"}
                rise(trainer)
                plane.follower.follow()
            after = score(plane).scores
            assert after.argmax() == CLICKED
            assert after[CLICKED] > 1.1 * first[CLICKED]
            # Item 4 was never shown.
            assert (after[:3] < after[4]).all()
            report = trainer.status()["lists"]
            assert (report["lists"], report["items"], report["examination"]["lists"]) == (30, 0, 30)
            waits = score(plane).impressions
            asyncio.run(plane.feedback([f"{waits}.0", f"{waits}.1"], np.float32([np.nan, 1])))
            rise(trainer)
            assert trainer.status()["lists"]["items"] == 2
        with closing(Trainer(definition, settings, clock=lambda: 1e11)) as again:
            rise(again)
            again.step()
            rise(again)
            assert (again.status()["lists"]["lists"], again.status()["lists"]["items"]) == (31, 0)


def test_a_ranker_without_a_window_does_not_start_and_only_lists_take_what_belongs_to_them(scorer, tmp_path):
    definition, given = scorer
    with pytest.raises(ConfigurationError, match="export RIVERDELTA_WINDOW_SECONDS=3600"):
        DataPlane(definition, Settings.load(**given), registry=CollectorRegistry())
    settings = Settings.load(**given, window_seconds=60.0)
    with closing(DataPlane(definition, settings, registry=CollectorRegistry())) as plane:
        ids, label = [f"{score(plane).impressions}.0"], np.float32([1])
        with pytest.raises(InvalidInput, match="item 0 has the propensity 0; expected above 0"):
            plane.read_feedback(ids, label, propensities=[0.0])
        with pytest.raises(InvalidInput, match="item 0 has the position -1; expected 0 to"):
            plane.read_feedback(ids, label, positions=[-1])
