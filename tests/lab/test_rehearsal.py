"""A rehearsal serves and learns a stream as a service would, with labels as late as it says."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression

from riverdelta.cli.main import main
from riverdelta.cli.rehearsed import verdict
from riverdelta.lab.datasets import mq2008
from riverdelta.lab.tabular import fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Half-hours whose label is the sign of one number, which turns round after the first fifth."""
    folder, draw = tmp_path_factory.mktemp("electricity"), np.random.default_rng(0)
    numbers = draw.normal(size=(1_000, 5)).round(3)
    label = (numbers[:, 0] > 0) ^ (np.arange(1_000) >= 200)
    lines = (
        f"{at % 48 / 47:.4f},{','.join(map(str, row))},{int(y)}" for at, (row, y) in enumerate(zip(numbers, label, strict=True))
    )
    head = "period,nswprice,nswdemand,vicprice,vicdemand,transfer,class"
    (folder / "elec.csv").write_text("\n".join([head, *lines, ""]))
    return folder


def figures(folder, *options, name="electricity", work=None):
    where = ["--data", str(folder), "--work", str(work or folder)]
    arguments = ["replay", "--dataset", name, *where, "--json", *map(str, options)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_learning_repairs_a_base_whose_world_turned_round(folder):
    found = figures(folder)
    assert (found["base_rows"], found["rows"], found["lag_rows"]) == (200, 800, 48)
    assert found["stream"]["served"]["auc"] > 0.7 > 0.1 > found["stream"]["base"]["auc"]
    assert found["verdict"].startswith("Learning helps: accuracy")
    assert len(list(folder.glob("base-*.onnx"))) == 1


def test_labels_that_come_after_the_last_row_teach_nothing(folder):
    found = figures(folder, "--lag", 800)
    assert found["known"] == 0
    assert found["stream"]["served"] == found["stream"]["base"]
    assert (found["gate"]["gain"], found["gate"]["weight"]) == (0, 0.5)
    assert "does not help" in found["verdict"]
    assert "Only 0% of the labels were known" in found["verdict"]
    assert figures(folder, "--lag-seconds", 800 * 1_800) == found | {"lag_rows": 0, "lag_seconds": 800 * 1_800.0} | {
        "seconds": pytest.approx(found["seconds"], abs=60)
    }


def test_two_delays_at_once_are_refused(folder):
    arguments = ["replay", "--dataset", "electricity", "--data", str(folder), "--lag", "1", "--lag-seconds", "1"]
    done = CliRunner().invoke(main, [*arguments, "--work", str(folder)])
    assert done.exit_code == 2
    assert "give one of --lag and --lag-seconds" in done.output


def linear(self, first, path):
    fit(LinearRegression(), first, ("X",), path)


def test_lists_are_scored_after_the_stream_and_after_every_other_stream(tmp_path, monkeypatch):
    monkeypatch.setattr(mq2008, "_SESSIONS", 20)
    monkeypatch.setattr(mq2008.MQ2008, "train", linear)
    draw = np.random.default_rng(0)
    rows = np.column_stack([draw.integers(0, 3, 600), np.repeat(np.arange(50), 12), draw.random((600, 46))])
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", rows)
    found = figures(tmp_path, "--lag", 1, name="mq2008")
    others = ["seed 1", "seed 2", *(f"seed {at}, {how}" for how in ("no propensities", "positions") for at in range(3))]
    scored = ["test queries, after the stream", *(f"test queries, after the stream, {other}" for other in others)]
    assert set(found["held_out"]) == {*scored, *(f"the stream, prequential, {other}" for other in others)}
    measured = [each["served"]["ndcg10"] for each in found["held_out"].values()]
    assert all(0 < value <= 1 for value in measured)
    assert "(test queries, after the stream)" in found["verdict"]
    assert len({found["held_out"][name]["base"]["ndcg10"] for name in scored}) == 1


def test_the_verdict_names_the_baselines_it_loses_to_and_why():
    stream = {"base": {"mae": 3.0}, "served": {"mae": 2.0}, "last_label": {"mae": 0.5}, "last_period": {"mae": 2.5}}
    gate = {"gain": -3.0, "excess": 5.0, "bound": 20.0, "weight": 0.2}
    figures = {"measure": "mae", "stream": stream, "known": 1.0, "repeats": 0.994, "gate": gate, "decides": None}
    said = verdict(figures)
    assert said.startswith(
        "Learning helps: mae 3 → 2. In total the loss is 3 above that of the base. Its excess over the better"
    )
    assert "the gate's bound is 20, and at the end it mixes in 20%." in said
    assert "It loses to last_label (0.5). Not better: last_period (2.5)." in said
    assert "99.4% of the labels equal the one before" in said
    said = verdict(figures | {"stream": {"base": {"mae": 2.0, "loss": 3.0}, "served": {"mae": 2.0, "loss": 2.5}}})
    assert said.startswith("Learning does not help: mae 2 → 2. The loss, which it lowers, went 3 → 2.5. In total")
