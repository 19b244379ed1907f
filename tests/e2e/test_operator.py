"""The operator's commands on a running service."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from riverdelta.lab.client import Http
from riverdelta.lab.server import serving

ROOT = Path(__file__).parents[2]
TARGET = "service.service:Ranker"


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    home = tmp_path_factory.mktemp("operated") / "state"
    with serving(ROOT, TARGET, home, {"RIVERDELTA_RELEASE_EXAMPLES": "60"}) as server:
        yield server, home


def command(home, *arguments):
    environment = os.environ | {"RIVERDELTA_HOME": str(home)}
    line = [sys.executable, "-m", "riverdelta", arguments[0], "--service", TARGET, *arguments[1:]]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def teach(server, label, times=30):
    columns = {"user_id": np.full(4, 5), "item_id": np.arange(4), "hour": np.zeros(4, np.float32)}
    with closing(Http(server.port)) as client:
        for _ in range(times):
            scores, impressions, _ = client.score(columns)
            _, position = client.feedback([f"{impressions}.{i}" for i in range(4)], np.full(4, label, np.float32))
    return scores, position


def until(server, condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition(server.status()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_releases_roll_back_freeze_and_resume(ground):
    server, home = ground
    _, position = teach(server, 1.0)
    until(server, lambda s: s["position"] >= position and s["learning"]["releases"] >= 2)
    taught, _ = teach(server, 1.0, times=1)
    rows = json.loads(command(home, "releases", "--json").stdout)
    assert rows[0]["champion"]
    assert rows[-1]["examples"] >= 60
    assert "champion" in command(home, "releases").stdout

    done = command(home, "rollback", "0", "--freeze")
    assert "release 0 serves again as 0+" in done.stdout, done.stderr
    assert "learning is frozen" in done.stdout
    until(server, lambda s: s["release"] == 0, seconds=1.0)
    with closing(Http(server.port)) as client:
        columns = {"user_id": np.full(4, 5), "item_id": np.arange(4), "hour": np.zeros(4, np.float32)}
        assert (client.score(columns)[0] < taught).all()
    assert "learning goes on" in command(home, "resume").stdout
    assert f"release {rows[-1]['release']} is the champion" in command(home, "promote", str(rows[-1]["release"])).stdout


def test_a_release_that_is_not_there_is_refused_with_those_that_are(ground):
    _, home = ground
    refused = command(home, "rollback", "99")
    assert refused.returncode == 1
    assert "there is no release 99; there are: 0" in refused.stderr
