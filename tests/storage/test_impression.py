"""One scored row, found again: what it was made of, which trace it belongs to, and what was fed back."""

import asyncio
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from riverdelta.cli.main import main
from riverdelta.core.errors import InvalidInput, NotFound
from riverdelta.core.losses import LOG_LOSS, Multiclass, Ranking
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.learning.service import load
from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.home import Home
from riverdelta.storage.impression import find
from riverdelta.storage.journal.ids import Ids
from riverdelta.storage.journal.names import RowName

SERVICE = f"{Path(__file__).parents[2] / 'service' / 'service.py'}:Ranker"
TRACE = "0af7651916cd43dd8448eb211c80319c"
COLUMNS = {"user_id": [7, 8, 9], "item_id": [1, 2, 3], "hour": [20.5, 21.5, 22.5]}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    return Home(load(SERVICE), Settings.load())


@pytest.fixture
def plane(home):
    with closing(DataPlane(home.definition, home.settings, registry=CollectorRegistry())) as made:
        yield made


def run(*arguments):
    return CliRunner().invoke(main, ["impression", "--service", SERVICE, *arguments])


def test_a_row_is_found_among_others_with_its_trace_its_features_and_its_label(home, plane):
    untraced = plane.score(COLUMNS)
    answer = plane.score(COLUMNS, [0.25, 0.5, 1.0], trace=TRACE)
    name = f"{answer.impressions}.1"
    taken = asyncio.run(plane.feedback([name, f"{answer.impressions}.2"], np.array([1.0, np.nan], np.float32)))
    assert taken.outcomes == ["accepted", "accepted"]
    found = find(home, name)
    assert (found["trace"], found["state"], found["propensity"]) == (TRACE, str(answer.state), 0.5)
    assert (found["label"], found["shown"]) == (1.0, None)
    assert {n: found["columns"][n] for n in COLUMNS} == {n: column[1] for n, column in COLUMNS.items()}
    assert len(found["columns"]["item_vec"]) == 8
    assert found["logits"]["base"] == pytest.approx(float(answer.base[1]))
    assert found["scores"]["served"] == pytest.approx(float(answer.scores[1]), abs=1e-6)
    assert found["scores"]["base"] == pytest.approx(LOG_LOSS.inverse_link(answer.base)[1, 0])
    shown = find(home, f"{answer.impressions}.2")
    assert shown["label"] is None
    assert shown["shown"] == pytest.approx(plane.clock(), abs=60)
    other = find(home, f"{untraced.impressions}.0")
    assert (other["trace"], other["label"], other["columns"]["user_id"]) == (None, None, 7)


def test_a_label_is_shown_with_its_weight_and_the_time_of_its_event(home, plane):
    name, event = plane.score(COLUMNS).impressions, plane.clock() - 60.0
    given = {"weights": [1.0, 2.5, 0.0], "times": [np.nan, event, np.nan]}
    asyncio.run(plane.feedback([f"{name}.{i}" for i in range(3)], np.ones(3, np.float32), **given))
    asyncio.run(plane.feedback([f"{name}.1"], np.ones(1, np.float32), weights=[9.0]))
    found = [find(home, f"{name}.{i}") for i in range(3)]
    assert [(one["weight"], one["event"]) for one in found] == [(1.0, None), (2.5, event), (0.0, None)]


def test_the_command_shows_the_same_to_people_and_to_programs(home, plane):
    answer = plane.score(COLUMNS, trace=TRACE)
    name = f"{answer.impressions}.0"
    asyncio.run(plane.feedback([name], np.zeros(1, np.float32)))
    assert json.loads(run(name, "--json").output) == find(home, name)
    pairs = (line.split("  ", 1) for line in run(name).output.splitlines())
    lines = {key.strip(): value.strip() for key, value in pairs}
    assert lines["trace"] == TRACE
    assert "user_id=7" in lines["columns"]


def test_a_row_is_found_by_its_client_s_ids(home, plane):
    answer = plane.score(COLUMNS, request_id="order-1723", row_ids=["a", "b", 7])
    one = plane.score({name: values[:1] for name, values in COLUMNS.items()}, request_id="order-1724")
    found = find(home, RowName("order-1723", "7"))
    assert found == find(home, f"{answer.impressions}.2") == find(home, RowName("order-1723", index=2))
    assert (found["request_id"], found["row_id"]) == ("order-1723", "7")
    assert json.loads(run("--request-id", "order-1723", "--row-id", "7", "--json").output) == found
    other = json.loads(run("--request-id", "order-1724", "--json").output)
    assert (other["impression"], other["row_id"]) == (f"{one.impressions}.0", None)
    for name, said in (
        (["order-1723"], "has 3 rows; say which one is meant: add its row_id"),
        (
            ["order-1723", "--row-id", "c"],
            "no such row: request_id 'order-1723', row_id 'c'; it was never scored",
        ),
        (["order-1725"], "the journal has no such request: request_id 'order-1725'; it was never scored"),
    ):
        assert said in run("--request-id", *name).output
    for wrong in ([], ["AAAA.0", "--request-id", "order-1723"], ["AAAA.0", "--index", "0"]):
        assert "name the row: ID.INDEX, or --request-id" in run(*wrong).output


def test_what_is_not_there_is_refused_with_what_is(home):
    with pytest.raises(NotFound, match="start the service once, or check RIVERDELTA_HOME"):
        find(home, "abc.0")
    with closing(DataPlane(home.definition, home.settings, registry=CollectorRegistry())) as plane:
        answer = plane.score(COLUMNS)
        with pytest.raises(InvalidInput, match=r"'abc\.0' is not an impression of 'ranker'"):
            find(home, "abc.0")
        forged = Ids(b"k" * 32).issue(1, 0)
        with pytest.raises(InvalidInput, match="is not an impression"):
            find(home, f"{forged}.0")
        never = plane._ids.issue(plane.journal.incarnation, 1_000)
        asyncio.run(plane.feedback([f"{answer.impressions}.0"], np.ones(1, np.float32)))
        with pytest.raises(NotFound, match="retention deleted it, or it was never durable"):
            find(home, f"{never}.0")
        with pytest.raises(NotFound, match="scored 3 rows; expected an index below that"):
            find(home, f"{answer.impressions}.3")
    refused = run(f"{never}.0")
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)


@pytest.mark.parametrize(("task", "label"), [(Multiclass(["cat", "owl"]), "owl"), (Ranking(), 1.0)])
def test_the_scores_of_a_list_are_those_of_all_its_rows_and_a_class_is_shown_by_name(tmp_path, task, label):
    shape = "N, 2" if task.outputs == 2 else "N"
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[{shape}] x) => (float[{shape}] y) {{ y = Neg(x) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "base.onnx")
    definition = Definition("one", tmp_path / "base.onnx", output="y", link="identity", task=task)
    home = Home(definition, Settings.load(home=tmp_path / "home", grpc_port=0, window_seconds=60.0 if task.lists else None))
    with closing(DataPlane(definition, home.settings, registry=CollectorRegistry(), home=home)) as plane:
        x = np.arange(6, dtype=np.float32).reshape(-1, 2) / 5
        answer = plane.score({"x": x if task.outputs == 2 else x[:, 0]})
        asyncio.run(plane.feedback([f"{answer.impressions}.2"], [label]))
        for row in range(3):
            found = find(home, f"{answer.impressions}.{row}")
            for name in ("base", "served"):
                assert found["scores"][name] == pytest.approx(answer.scores[row].tolist(), abs=1e-6)
        assert found["label"] == label
