"""The operator's commands on a running service."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from riverdelta.lab.client import Http
from riverdelta.lab.server import serving
from riverdelta.storage.journal.ids import Ids

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


def send(server, method, path, body=None, kind="application/json"):
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()


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
    assert "learning continues" in command(home, "resume").stdout
    assert f"release {rows[-1]['release']} is the champion" in command(home, "promote", str(rows[-1]["release"])).stdout


def test_a_release_that_is_not_there_is_refused_with_those_that_are(ground):
    _, home = ground
    refused = command(home, "rollback", "99")
    assert refused.returncode == 1
    assert "there is no release 99; there are: 0" in refused.stderr


def test_a_rollback_over_http_is_served_by_every_worker_within_a_second(ground):
    server, home = ground
    _, position = teach(server, 1.0)
    until(server, lambda s: s["position"] >= position)
    status, made = send(server, "POST", "/admin/release", {})
    assert (status, json.loads(made)["obeyed"]) == (200, True)
    newest = json.loads(send(server, "GET", "/admin/releases")[1])["releases"][-1]
    teach(server, 1.0, times=1)
    until(server, lambda s: s["release"] == newest["release"])
    asked = time.monotonic()
    status, answer = send(server, "POST", "/admin/rollback", {"release": 0, "promote": True})
    told, seen = json.loads(answer), 0
    while seen < 8:  # two workers take turns at random
        assert time.monotonic() < asked + 1.0
        seen = seen + 1 if server.status()["release"] == 0 else 0
    assert (status, told["obeyed"], told["release"], told["champion"]) == (200, True, 0, 0)
    rows = json.loads(command(home, "releases", "--json").stdout)
    assert [row["release"] for row in rows if row["champion"]] == [0]


def test_diff_and_export_over_http_are_the_commands_own(ground, tmp_path):
    server, home = ground
    newest = json.loads(send(server, "GET", "/admin/releases")[1])["releases"][-1]["release"]
    status, compared = send(server, "GET", f"/admin/diff?a=0&b={newest}&id=user_id%3D5")
    assert status == 200
    assert json.loads(compared) == json.loads(command(home, "diff", "0", str(newest), "--id", "user_id=5", "--json").stdout)
    status, model = send(server, "GET", f"/admin/export?release={newest}")
    assert status == 200
    out = tmp_path / "merged.onnx"
    assert command(home, "export", "--release", str(newest), "-o", str(out)).returncode == 0
    assert model == out.read_bytes()


def test_a_form_of_another_site_changes_nothing(ground):
    server, _ = ground
    before = server.status()["learning"]["frozen"]
    status, _ = send(server, "POST", "/admin/freeze", {}, kind="text/plain")
    assert status == 415
    time.sleep(0.5)
    assert server.status()["learning"]["frozen"] == before


def test_ids_of_before_a_new_key_are_accepted_and_foreign_ones_are_not(ground):
    server, home = ground
    columns = {"user_id": np.full(4, 5), "item_id": np.arange(4), "hour": np.zeros(4, np.float32)}
    foreign = Ids(b"k" * 32)
    with closing(Http(server.port)) as client:
        old = client.score(columns)[1]
        rotated = command(home, "rotate-key")
        assert "the key was replaced" in rotated.stdout, rotated.stderr
        forged = foreign.issue(1, 1)
        items = [f"{old}.0", f"{forged}.0"]
        for again in ("accepted", "duplicate"):
            outcomes, _ = client.feedback(items, np.ones(2, np.float32))
            assert outcomes == [again, "bad_id"]
        new = client.score(columns)[1]
        assert client.feedback([f"{new}.1", f"{old}.1"], np.ones(2, np.float32))[0] == ["accepted"] * 2
    deadline, key = time.monotonic() + 20.0, (home / "ranker" / "journal" / "key").read_bytes()
    ours = Ids(key)
    while ours.parse(f"{new}.0") is None:  # every worker issues with the new key soon
        assert time.monotonic() < deadline
        time.sleep(0.1)
        with closing(Http(server.port)) as client:
            new = client.score(columns)[1]
            assert client.feedback([f"{new}.0"], np.ones(1, np.float32))[0] == ["accepted"]
    with closing(Http(server.port)) as client:
        assert client.feedback([f"{old}.2"], np.ones(1, np.float32))[0] == ["accepted"]
