"""A ranking service in one process: what is clicked rises, and a restart continues where it was."""

import asyncio
from contextlib import closing
from itertools import groupby
from operator import itemgetter

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Entity, Ranking
from riverdelta.core.errors import ConfigurationError, InvalidInput, Unavailable
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.journal.names import RowName

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


def click_log(requests, rng):
    """A log of (request id, position, item, click): shown by the base's noisy order, examined with 1 / (1 + position)."""
    relevance, log = np.array([0.05, 0.1, 0.2, 0.4, 0.9]), []
    for request in range(requests):
        order = np.argsort(np.arange(ITEMS) + 2.0 * rng.gumbel(size=ITEMS))
        clicks = rng.random(ITEMS) < relevance[order] / (1 + np.arange(ITEMS))
        log += [
            (f"visit-{request}", place, int(item), int(click))
            for place, (item, click) in enumerate(zip(order, clicks, strict=True))
        ]
    return log


@pytest.mark.parametrize("position_bias", ["learned", "sent"])
def test_a_click_log_sent_by_request_id_raises_the_ndcg_of_what_is_served_above_the_bases(scorer, position_bias):
    definition, given = scorer
    settings, log = Settings.load(**given, window_seconds=60.0), click_log(300, np.random.default_rng(5))
    plane = DataPlane(definition, settings, registry=CollectorRegistry())
    with closing(plane), closing(Trainer(definition, settings)) as trainer:
        for name, rows in groupby(log, key=itemgetter(0)):
            _, place, item, click = map(np.array, zip(*rows, strict=True))
            # The base prefers item 0, which nobody wants.
            plane.score({"item": item, "x": -1.0 * item.astype(np.float32)}, request_id=name)
            ids = [RowName(name, None, index) for index in range(ITEMS)]
            said = {"positions": place} if position_bias == "learned" else {"propensities": 1 / (1 + place)}
            asyncio.run(plane.feedback(ids, np.where(click, 1.0, np.nan), complete=True, **said))
            if int(name.removeprefix("visit-")) % 25 == 24:
                rise(trainer)
                plane.follower.follow()
        lists, measured = trainer.status()["lists"], trainer.status()["prequential"]["all"]
    clicked = len({name for name, _, _, click in log if click})
    assert (lists["lists"], lists["empty"]) == (clicked, 300 - clicked)
    assert measured["served"]["ndcg10"] > measured["base"]["ndcg10"] + 0.05
    assert measured["served"]["loss"] < measured["base"]["loss"]


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


def test_where_lists_wait_in_too_much_memory_only_what_completes_them_is_accepted(scorer):
    definition, given = scorer
    settings = Settings.load(**given, window_seconds=1e9, waiting_bytes=100)
    plane = DataPlane(definition, settings, registry=CollectorRegistry())
    with closing(plane), closing(Trainer(definition, settings, clock=lambda: 1e9)) as trainer:
        made, label = score(plane).impressions, np.float32([1, np.nan])
        ids = [[f"{made}.{row}" for row in rows] for rows in ([0, 1], [2, 3])]
        asyncio.run(plane.feedback(ids[0], label))
        rise(trainer)
        plane.follower.showings_bytes = trainer.status()["showings_bytes"]
        with pytest.raises(Unavailable, match='send feedback of lists later, with "complete", or raise the setting'):
            asyncio.run(plane.feedback(ids[1], label))
        assert set(asyncio.run(plane.feedback(ids[1], label, complete=True)).outcomes) == {"accepted"}
        rise(trainer)
        assert (trainer.status()["showings_bytes"], trainer.learner.examples) == (0, 1)
