"""The dataplane: what it refuses, and what it keeps."""

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Entity
from riverdelta.core.errors import InvalidInput, TooLarge, Unavailable
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.impression import find

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


TENSORS = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, int32[N] age, bool[N] new, uint8[N, 3] pixels, float16[N, 2, 2] grid, double[N, L] history)
  => (float[N] logit) {
  wide = Cast<to = 1>(history)
  logit = ReduceMean<axes = [1], keepdims = 0>(wide)
}"""


def test_with_keep_inputs_every_input_is_in_the_journal_as_it_was_sent_and_in_nobody_s_memory(tmp_path):
    path = tmp_path / "tensors.onnx"
    onnx.save(onnx.parser.parse_model(TENSORS), path)
    definition = Definition("ranker", path, "logit", corrections=[Entity("user", slots=8)], keep_inputs=True)
    rig, rng = Rig(definition, tmp_path / "home"), np.random.default_rng(0)
    sent = [
        {
            "user": rng.integers(0, 9, 4),
            "age": rng.integers(-9, 9, 4).astype(np.int32),
            "new": rng.random(4) < 0.5,
            "pixels": rng.integers(0, 256, (4, 3)).astype(np.uint8),
            "grid": rng.random((4, 2, 2)).astype(np.float16),
            "history": rng.random((4, length)),
        }
        for length in (1, 5, 5)
    ]
    answers = [rig.plane.score(columns) for columns in sent]
    ids = [f"{answer.impressions}.{i}" for answer in answers for i in range(4)]
    asyncio.run(rig.plane.feedback(ids, np.ones(12, np.float32)))
    rig.step()
    assert rig.trainer.learner.examples == 12
    shelves = rig.trainer.learner.joiner.waiting._shelves.values()
    assert {name for shelf in shelves for name in shelf.names if name.startswith("column/")} == {"column/user"}
    records = [record for _, record in rig.trainer.journal.read(0, 100) if isinstance(record, Impressions)]
    kept = [
        {n: c[record.request == request] for n, c in record.columns.items()}
        for record in records
        for request in set(record.request)
    ]
    for columns, back in zip(sent, kept, strict=True):
        assert {n: (c.dtype, c.tolist()) for n, c in back.items()} == {n: (c.dtype, c.tolist()) for n, c in columns.items()}
    described = find(rig.plane.home, ids[5])["columns"]
    assert described["grid"] == sent[1]["grid"][1].tolist()
    rig.close()


def test_a_home_that_keeps_inputs_from_some_start_on_learns_what_it_would_have_learned(definition, tmp_path):
    digests = []
    for later in (False, True):
        home = tmp_path / f"home-{later}"
        for seed, keeps in enumerate((False, later, False)):
            rig = Rig(replace(definition, keep_inputs=keeps), home)
            rig.teach(32, seed)
            rig.step()
            records = [r for _, r in rig.trainer.journal.read(0, 1000) if isinstance(r, Impressions)]
            assert ("x" in records[-1].columns) == keeps
            rig.close()
        assert rig.trainer.learner.examples == 96
        digests.append(rig.trainer.learner.stack.digest())
    assert digests[0] == digests[1]


OPEN = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N, 2] x) => (float[N, 1] logit) <float[2, 1] w = {0.5, -1.5}> { logit = MatMul(x, w) }"""


@pytest.mark.parametrize("written", [-1, 0, None])
def test_a_batch_axis_that_is_written_as_minus_1_or_0_or_not_at_all_takes_any_number_of_rows(tmp_path, written):
    model = onnx.parser.parse_model(OPEN)
    for value in (*model.graph.input, *model.graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        axis.Clear()
        if written is not None:
            axis.dim_value = written
    (tmp_path / "open.onnx").write_bytes(model.SerializeToString())
    definition = Definition("ranker", tmp_path / "open.onnx", corrections=[Entity("user", slots=8)])
    rig = Rig(definition, tmp_path / "home")
    for rows in (1, 5):
        x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        scores = rig.plane.score({"user": np.arange(rows), "x": x}).scores
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(x @ [0.5, -1.5]))), atol=1e-6)
    rig.close()


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


@pytest.mark.parametrize(
    ("ahead", "alive", "silent"), [(3.0, True, 0.0), (-3.0, True, 3.0), (-60.0, False, 60.0), (3_600.0, False, None)]
)
def test_a_learner_whose_status_is_dated_in_the_future_is_not_alive(rig, ahead, alive, silent):
    rig.step()
    rig.trainer.home.write_status(rig.trainer.status() | {"time": rig.now + ahead})
    found = rig.plane.status()
    assert (found["sidecar"]["alive"], found["sidecar"]["silent_seconds"]) == (alive, silent)
    assert ("in the future" in found["health"]["sentence"]) is (silent is None)


@pytest.mark.parametrize("status", ["[1]", "{}", '{"time": null}', '{"time": "now"}', "7"])
def test_a_status_file_without_a_time_is_none(rig, status):
    (rig.plane.home.folder / "status.json").write_text(status)
    assert rig.plane.status()["learning"] == {}
    rig.plane.follower.mirror()
