"""A home of lists: the command line carries it over and forgets ids in it, and counts lists."""

import asyncio
import json
from contextlib import closing

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from riverdelta.cli.main import main
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home

BASE = """<ir_version: 8, opset_import: ["" : 18]>
shop (int64[N] user, int64[N] item, float[N] x) => (float[N] y) { y = Neg(x) }"""
SERVICE = """import bentoml
from riverdelta import Entity, Ranking, online


@bentoml.service
@online(
    base="shop.onnx", output="y", link="identity", name="shop", task=Ranking(positions=4),
    corrections=[Entity("item", slots=64), Entity("user", slots=64)],
)
class Shop: ...
"""
LISTS, ROWS, GONE = 30, 4, 0x5EED_0BAD_F00D


def settings():
    return Settings.load(grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0)


def columns(user):
    return {"user": np.full(ROWS, user), "item": np.arange(ROWS), "x": np.zeros(ROWS, np.float32)}


def caught_up(trainer):
    while trainer.step():
        pass


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """A folder with a ranking service whose home has learned lists of three users: item 3 is clicked; one list waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("RIVERDELTA_WINDOW_SECONDS", "3600")
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "shop.onnx")
    (tmp_path / "service.py").write_text(SERVICE)
    definition = load("service.py:Shop")
    with (
        closing(DataPlane(definition, settings(), registry=CollectorRegistry())) as plane,
        closing(Trainer(definition, settings())) as trainer,
    ):
        for number in range(LISTS + 1):
            made = plane.score(columns((GONE, 8, 9)[number % 3])).impressions
            ids, label = [f"{made}.{row}" for row in range(ROWS)], np.float32([np.nan, np.nan, np.nan, 1])
            asyncio.run(plane.feedback(ids, label, positions=np.arange(ROWS), complete=number < LISTS))
            caught_up(trainer)
            plane.follower.follow()
    return definition


def run(*arguments):
    done = CliRunner().invoke(main, [*map(str, arguments), "--service", "service.py:Shop"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_changed_stack_learns_the_lists_again_and_what_waits_is_completed_in_the_new_home(taught, tmp_path):
    old = tmp_path / "state" / "shop.old"
    old.with_name("shop").rename(old)
    service = tmp_path / "service.py"
    service.write_text(SERVICE.replace('Entity("user", slots=64)', 'Entity("user", slots=128)'))
    said = run("rebase", "--from", old)
    assert f"learned: {LISTS} of {LISTS} lists" in said
    assert "loss per list" in said
    (first,) = [line.split() for line in said.splitlines() if line.startswith("base, alone")]
    assert first[2] == str(LISTS)
    assert "rows" not in said.replace("same rows", "")
    with closing(Trainer(load("service.py:Shop"), settings())) as trainer:
        caught_up(trainer)
        lists = trainer.status()["lists"]
        assert (lists["lists"], lists["items"], lists["examination"]["lists"]) == (LISTS, ROWS, LISTS)
        after = trainer.learner.stack.predict(columns(8), np.zeros((ROWS, 1), np.float32))[:, 0]
        assert after.argmax() == ROWS - 1


def test_an_id_is_forgotten_with_its_lists_that_wait_and_other_rows_of_lists_stay(taught, monkeypatch):
    monkeypatch.setattr("riverdelta.metrics.learner.STALE_SECONDS", 0.0)  # no learner runs, and none has just ended
    answer = json.loads(run("forget", f"user={GONE}", "--json"))
    assert answer["removed"]["rows"] == ROWS * (LISTS // 3 + 1)
    home = Home(taught, settings())
    files = [path for path in home.folder.rglob("*") if path.is_file()]
    assert [path for path in files if np.int64(GONE).tobytes() in path.read_bytes()] == []
    with closing(Trainer(taught, settings())) as trainer:
        caught_up(trainer)
        assert (trainer.status()["lists"]["items"], trainer.learner.examples) == (0, LISTS)
        entity = trainer.learner.stack.predict(columns(GONE), np.zeros((ROWS, 1), np.float32))
        fresh = trainer.learner.stack.predict(columns(1_000_003), np.zeros((ROWS, 1), np.float32))
        np.testing.assert_array_equal(entity, fresh)
