"""The demo, for real and small: a MovieLens folder made by the simulator, a served Bento, and what it leaves behind."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from riverdelta.lab.simulator import Simulation

KEYS = """events auc_base auc_served log_loss_base log_loss_served freshness_p50_s freshness_p99_s lag_rows_p50 lag_rows_p99
    swaps releases parity_max_error requests failed_requests data merged_model""".split()


@pytest.fixture(scope="module")
def movielens(tmp_path_factory):
    """A folder in the layout of latest-small, whose later users the base has not seen and who differ much."""
    folder = tmp_path_factory.mktemp("data") / "ml-made-up"
    folder.mkdir()
    stream = Simulation(rows=6_000, users=80, items=200, user=4.0, start=0.05, bias=0.0, seed=1).generate().stream
    columns = (stream.columns["user_id"], stream.columns["item_id"], stream.label, stream.time)
    rows = "".join(f"{u},{i},{3 + 2 * y},{t:.0f}\n" for u, i, y, t in zip(*columns, strict=True))
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    films = "".join(f'{i},"Film, The ({i})",{"Drama" if i % 2 else "Comedy|War"}\n' for i in range(200))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    return folder


def riverdelta(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "riverdelta", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def made(movielens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = riverdelta("demo", "--data", movielens, "--events", 1200, "--clients", 4, "--json", cwd=folder)
    return folder, json.loads(done.stdout), done.stderr


def test_it_writes_every_figure_that_it_promises(made):
    _, figures, _ = made
    assert list(figures) == KEYS
    assert (figures["events"], figures["failed_requests"]) == (1200, 0)
    assert figures["parity_max_error"] <= 1e-4
    assert figures["swaps"] > 10


def test_serving_with_feedback_beats_the_frozen_base(made):
    _, figures, _ = made
    assert figures["log_loss_served"] < figures["log_loss_base"]


def test_it_says_where_the_data_came_from_and_what_to_do_next(made):
    folder, _, shown = made
    assert "ml-made-up (--data)" in shown
    assert f"riverdelta replay --journal {folder / 'riverdelta-demo'}" in shown


def test_the_merged_model_runs_in_plain_onnx_runtime(made):
    _, figures, _ = made
    session = onnxruntime.InferenceSession(figures["merged_model"], providers=["CPUExecutionProvider"])
    score = session.run(["score"], {"user_id": np.array([1, 2]), "item_id": np.array([3, 4])})[0]
    assert ((score > 0) & (score < 1)).all()


def test_replaying_its_journal_gives_its_tables_bit_for_bit(made):
    folder, figures, _ = made
    replayed = json.loads(riverdelta("replay", "--journal", "riverdelta-demo", "--json", cwd=folder).stdout)
    assert replayed["tables_equal"] is True
    assert replayed["events"] == 1200
    assert abs(replayed["auc_served"] - figures["auc_served"]) < 0.01


def test_replay_without_a_server_comes_near_the_demo(made, movielens):
    folder, figures, _ = made
    offline = json.loads(riverdelta("replay", movielens, "--events", 1200, "--lag", 8, "--json", cwd=folder).stdout)
    assert abs(offline["log_loss_served"] - figures["log_loss_served"]) < 0.03
    assert offline["examples_per_second"] > 0
