"""The follower: what a worker does with damaged tables and lasting faults, and what it times."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig, definition

__all__ = ["definition"]

COLUMNS = {"user": np.arange(100), "x": np.ones(100, np.float32), "shop": np.zeros(100, np.float32)}


@pytest.fixture
def rig(definition, tmp_path):
    made = Rig(definition, tmp_path / "home", max_rows=100)
    yield made
    made.close()


@pytest.fixture
def plane(definition, tmp_path):
    """A dataplane that follows quickly."""
    settings = Settings.load(home=tmp_path / "quick", follow_seconds=0.005)
    made = DataPlane(definition, settings, registry=CollectorRegistry())
    yield made
    made.close()


def wait(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of it within {seconds} s"
        time.sleep(0.01)


def test_a_damaged_state_is_passed_over_and_the_present_one_goes_on(rig):
    rig.teach()
    rig.step()
    rig.plane.follower.follow()
    present = rig.plane.session.state
    rig.teach(seed=1)
    rig.step()
    newest = max((rig.plane.home.folder / "live").glob("*.live"))
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    rig.plane.follower.follow()
    assert rig.plane.session.state == present
    assert rig.plane.score(rig.columns(2, 0)).scores.shape == (2,)


def test_a_worker_that_scores_nothing_does_not_gather_what_it_would_have_timed(plane):
    for _ in range(1_000):
        plane.follower._unseen.append(np.zeros(3))
    assert len(plane.follower._unseen) < 1_000
    plane.score(COLUMNS)
    assert not plane.follower._unseen


def test_a_fault_that_lasts_is_logged_once_and_following_goes_on_after_it(plane, caplog, monkeypatch):
    looks, well = [], threading.Event()

    def follow():
        looks.append(well.is_set())
        if not well.is_set():
            raise OSError("the folder is gone")

    monkeypatch.setattr(plane.follower, "follow", follow)
    wait(lambda: len(looks) >= 20)
    assert caplog.text.count("following the live tables failed") == 1
    well.set()
    wait(lambda: looks[-1])
