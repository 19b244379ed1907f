"""The dataplane: what it refuses, and what it keeps."""

import asyncio
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from riverdelta.core.errors import InvalidInput, TooLarge, Unavailable
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig, definition

__all__ = ["definition"]


@pytest.fixture
def rig(definition, tmp_path):
    made = Rig(definition, tmp_path / "home", max_rows=100)
    yield made
    made.close()


def test_an_impression_keeps_what_the_corrections_read_and_what_was_served(rig):
    columns = rig.columns(5, 0)
    answer = rig.plane.score(columns, propensity=[0.5] * 5)
    rig.plane.journal.feedback(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0, np.float32), 0.0).result(5)
    rig.plane.close()
    (record,) = [r for _, r in rig.trainer.journal.read(0, 100) if isinstance(r, Impressions)]
    assert set(record.columns) == {"user", "shop"}
    assert np.array_equal(record.columns["shop"], columns["shop"])
    assert np.allclose(1 / (1 + np.exp(-record.served[:, 0])), answer.scores, atol=1e-6)
    assert record.propensity.tolist() == [0.5] * 5
    rig.plane.close = lambda: None


@pytest.mark.parametrize("propensity", [[0.0] * 3, [1.5] * 3, [0.5], "x", [float("nan")] * 3])
def test_a_propensity_that_is_none_is_refused(rig, propensity):
    with pytest.raises(InvalidInput, match="propensity"):
        rig.plane.score(rig.columns(3, 0), propensity=propensity)


def test_too_many_rows_and_too_many_items_are_refused_with_the_limit(rig):
    with pytest.raises(TooLarge, match="101 rows; at most 100"):
        rig.plane.score(rig.columns(101, 0))
    with pytest.raises(TooLarge, match="101 items; at most 100"):
        asyncio.run(rig.plane.feedback(["x"] * 101, np.ones(101, np.float32)))


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5, np.inf])
def test_a_label_that_is_none_is_refused_by_its_item(rig, label):
    with pytest.raises(InvalidInput, match="item 1 has the label"):
        asyncio.run(rig.plane.feedback(["a.0", "b.0"], np.array([1, label], np.float32)))


def test_the_status_needs_no_learner(rig):
    status = rig.plane.status()
    assert status["state"] == "0+0" or status["swap"] >= 0
    assert status["journal"]["error"] is None


COLUMNS = {"user": np.arange(100), "x": np.ones(100, np.float32), "shop": np.zeros(100, np.float32)}


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def plane(definition, registry, tmp_path):
    """A dataplane that follows quickly, and a registry of its own."""
    made = DataPlane(definition, Settings.load(home=tmp_path / "quick", follow_seconds=0.005), registry=registry)
    yield made
    made.close()


def wait(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of it within {seconds} s"
        time.sleep(0.01)


def test_on_a_full_disk_scoring_goes_on_feedback_is_put_off_and_status_and_metrics_say_so(plane, registry):
    db = plane.journal.log._writer.newest._db
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
    wait(lambda: plane.score(COLUMNS) and plane.journal.health().error is not None)
    answer = plane.score(COLUMNS)
    assert answer.scores.shape == (100,)
    with pytest.raises(Unavailable, match="check that its disk has room"):
        asyncio.run(plane.feedback([f"{answer.impressions}.0"], np.ones(1, np.float32)))
    assert "full" in plane.status()["journal"]["error"]
    wait(lambda: registry.get_sample_value("riverdelta_journal_failing", {"model": "ranker"}) == 1)
    assert registry.get_sample_value("riverdelta_journal_errors_total", {"model": "ranker", "kind": "full_disk"}) == 1
    db.execute("PRAGMA max_page_count = 1000000")
    wait(lambda: registry.get_sample_value("riverdelta_journal_failing", {"model": "ranker"}) == 0)
    assert asyncio.run(plane.feedback([f"{answer.impressions}.0"], np.ones(1, np.float32))).outcomes == ["accepted"]
