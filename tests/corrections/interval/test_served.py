"""Intervals as served: in the graph of any runtime, in answers, through swaps, releases and restarts."""

import asyncio
from contextlib import closing

import numpy as np
import onnx
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Calibration, Interval, Regression
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import id_of
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

BASE = """<ir_version: 8, opset_import: ["" : 13]>
rent (int64[N] zone, float[N] rooms) => (float[N] y) { y = Identity(rooms) }"""
ZONES = {"a": 1.0, "b": 40.0}


@pytest.fixture
def definition(tmp_path):
    path = tmp_path / "rent.onnx"
    onnx.save(onnx.parser.parse_model(BASE), path)
    return Definition(
        "rent", path, output="y", task=Regression(), corrections=[Calibration()], slices={"zone": list(ZONES)},
        interval=Interval(0.9, by="zone"),
    )  # fmt: skip


def rows(seed, count=200):
    rng = np.random.default_rng(seed)
    zone = rng.choice([*ZONES, "c"], count)
    rooms = rng.normal(size=count).astype(np.float32)
    noise = rng.normal(size=count) * np.array([ZONES.get(name, 5.0) for name in zone])
    return {"zone": np.array([id_of(name) for name in zone]), "rooms": rooms}, zone, (rooms + noise).astype(np.float32)


def test_answers_have_the_interval_of_their_slice_and_a_restart_goes_on_with_it(definition, tmp_path):
    settings = Settings.load(home=tmp_path / "home", grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0)
    plane = DataPlane(definition, settings, registry=CollectorRegistry())
    with closing(plane):
        with closing(Trainer(definition, settings)) as trainer:
            fresh = plane.score(rows(0)[0])
            assert np.isnan([fresh.bounds["lower"], fresh.bounds["upper"]]).all()
            inside = []
            for seed in range(1, 31):
                columns, zone, label = rows(seed)
                made = plane.score(columns)
                asyncio.run(plane.feedback([f"{made.impressions}.{row}" for row in range(len(label))], label))
                lower, upper = made.bounds["lower"], made.bounds["upper"]
                inside.append(np.where(np.isnan(lower), np.nan, (lower <= label) & (label <= upper)))
                while trainer.step():
                    pass
                plane.follower.follow()
            assert np.nanmean(inside[10:]) == pytest.approx(0.9, abs=0.03)
            widths = {name: (upper - lower)[zone == name].mean() for name in (*ZONES, "c")}
            assert widths["a"] < widths["c"] < widths["b"]
            report = trainer.status()["intervals"]
            assert report.keys() == {"a", "b", "other"}
            assert all(report[name]["coverage"] == pytest.approx(0.9, abs=0.05) for name in report)
            release = trainer.releases.make(trainer.learner, trainer.learner.position, 0.0)
            columns, *_ = rows(99)
            served = plane.score(columns)
            alone = onnxruntime.InferenceSession(release.path.read_bytes())
            found = alone.run(["score", "lower", "upper"], columns)
            for mine, theirs in zip((served.scores, *served.bounds.values()), found, strict=True):
                np.testing.assert_allclose(theirs, mine, rtol=1e-5, atol=1e-5)
            expected = trainer.learner.intervals.bounds(served.scores, columns)
            np.testing.assert_allclose(found[1:], expected, rtol=1e-5, atol=1e-5)
            empty = alone.run(["lower"], {"zone": np.empty(0, np.int64), "rooms": np.empty(0, np.float32)})
            assert empty[0].shape == (0,)
            state = trainer.learner.intervals.state()
        with closing(Trainer(definition, settings)) as again:
            while again.step():
                pass
            for name, array in again.learner.intervals.state().items():
                np.testing.assert_array_equal(array, state[name])


def test_a_named_request_that_is_repeated_gets_the_same_interval(definition, tmp_path):
    settings = Settings.load(home=tmp_path / "home", grpc_port=0, follow_seconds=3600.0)
    with closing(DataPlane(definition, settings, registry=CollectorRegistry())) as plane:
        columns, *_ = rows(3, 2)
        first, second = (plane.score(columns, request_id="order-1") for _ in range(2))
        assert first.bounds.keys() == second.bounds.keys() == {"lower", "upper"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"task": "binary"}, "predicts no number; leave it out"), ({"slices": {}}, r"by 'zone', which slices lacks; declare")],
)
def test_an_interval_that_does_not_fit_is_refused(changed, words, definition):
    fields = {
        name: getattr(definition, name) for name in ("name", "base", "output", "task", "corrections", "slices", "interval")
    }
    if changed.get("task"):
        fields |= {"output": None, "logit": "y"}
    with pytest.raises(ConfigurationError, match=words):
        Definition(**fields | changed).new_intervals()
