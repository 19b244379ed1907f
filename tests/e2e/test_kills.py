"""kill -9 at the sidecar, at a worker, at everything: whatever was accepted is learned, once, and the tables are a replay's."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from riverdelta.core.settings import Settings
from riverdelta.lab.client import Http
from riverdelta.lab.server import free_port, serving
from riverdelta.learning.learner import new_learner
from riverdelta.learning.service import load
from riverdelta.storage.home import Home

ROOT = Path(__file__).parents[2]
TARGET = "service.service:Ranker"
#: Quick checkpoints, so that kills fall between them.
QUICK = {"RIVERDELTA_CHECKPOINT_SECONDS": "0.3", "RIVERDELTA_RELEASE_SECONDS": "2"}


class User:
    """Scores and feeds back, and keeps the ids that were accepted."""

    def __init__(self):
        self.accepted, self.failures, self.rng = set(), 0, np.random.default_rng(0)

    def exchange(self, server, rows=3):
        columns = {
            "user_id": self.rng.integers(0, 50, rows),
            "item_id": self.rng.integers(0, 50, rows),
            "hour": np.zeros(rows, np.float32),
        }
        try:
            with closing(Http(server.port)) as client:
                _, impressions, _ = client.score(columns)
                ids = [f"{impressions}.{i}" for i in range(rows)]
                outcomes, _ = client.feedback(ids, self.rng.integers(0, 2, rows).astype(np.float32))
        except (OSError, http.client.HTTPException):
            self.failures += 1
            return
        self.accepted |= {i for i, outcome in zip(ids, outcomes, strict=True) if outcome == "accepted"}


def is_scorer(process):
    with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
        command = " ".join(process.cmdline())
        return "_bentoml_impl.worker.service" in command and "Sidecar" not in command
    return False


def wait(condition, seconds=40.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            if condition():
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing came of it within {seconds} s")


def replayed(home):
    """(examples, digest) of the journal learned from its beginning, and the digest of the last checkpoint."""
    definition, settings = load(TARGET), Settings.load(home=home)
    folder = Home(definition, settings)
    learner, saved = new_learner(definition, settings), new_learner(definition, settings)
    segments = folder.reader()
    while records := segments.read(learner.position, 10_000):
        for sequence, record in records:
            learner.push(sequence, record)
    segments.close()
    saved.load(folder.checkpoints().load().arrays)
    return learner.examples, learner.stack.digest(), saved.stack.digest()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return tmp_path / "state"


def test_a_killed_sidecar_costs_freshness_and_nothing_else(home):
    user = User()
    with serving(ROOT, TARGET, home, QUICK) as server:
        for _ in range(3):
            for _ in range(10):
                user.exchange(server)
            victim = server.status()["learning"]["pid"]
            psutil.Process(victim).kill()
            for _ in range(10):
                user.exchange(server)
            wait(lambda v=victim: server.status()["learning"]["pid"] != v)
        wait(lambda: server.status()["learning"]["examples"] == len(user.accepted))
    assert user.failures == 0
    assert len(user.accepted) == 3 * 20 * 3
    examples, learned, saved = replayed(home)
    assert examples == len(user.accepted)
    assert learned == saved


def test_a_killed_worker_takes_no_accepted_feedback_with_it(home):
    user = User()
    with serving(ROOT, TARGET, home, QUICK) as server:
        for _ in range(2):
            for _ in range(15):
                user.exchange(server)
            scorers = [p for p in psutil.Process(server.process.pid).children(recursive=True) if is_scorer(p)]
            scorers[0].kill()
            for _ in range(15):
                user.exchange(server)
        wait(lambda: server.status()["learning"]["examples"] == len(user.accepted))
    assert len(user.accepted) > 100
    examples, learned, saved = replayed(home)
    assert examples == len(user.accepted)
    assert learned == saved


def test_when_everything_is_killed_the_next_start_learns_what_was_accepted(home):
    user = User()
    for _ in range(2):
        with serving(ROOT, TARGET, home, QUICK) as server:
            for _ in range(25):
                user.exchange(server)
            everyone = psutil.Process(server.process.pid)
            for process in [everyone, *everyone.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            server.process.wait()
    with serving(ROOT, TARGET, home, QUICK) as server:
        wait(lambda: server.status()["learning"]["examples"] == len(user.accepted))
    assert user.failures == 0
    examples, learned, saved = replayed(home)
    assert examples == len(user.accepted) == 2 * 25 * 3
    assert learned == saved


def test_a_second_server_on_the_same_folder_is_refused_with_the_firsts_pid(server, tmp_path):
    folders = {"RIVERDELTA_HOME": str(server.log.parent / "state"), "BENTOML_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bentoml", "serve", TARGET, "--host", "127.0.0.1", "--port", str(free_port())]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | folders, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f"in use by process {server.process.pid}" in done.stdout + done.stderr
    User().exchange(server)
