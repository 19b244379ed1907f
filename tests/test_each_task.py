"""A service of each task in one process: it begins as its base, learns labels in the task's own form, releases and restarts."""

import asyncio
from contextlib import closing
from itertools import count

import numpy as np
import onnx
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Calibration, Count, Entity, Multiclass, Ranking, Regression
from riverdelta.core.losses.log_loss import LogLoss
from riverdelta.core.records import Control
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home

GASES = ("acetone", "ammonia", "ethanol")
ROWS, PLACES = 8, 8
NUMBER = "(float[N] y) { y = Mul(x, x) }"
CLASSES = """(float[N,3] y) {
    last = Constant<value = int64[1] {1}>()  each = Unsqueeze(x, last)
    slopes = Constant<value = float[3] {0.5, 0.0, -0.5}>()  y = Mul(each, slopes) }"""


def of_place(place):
    """Each place has a level of its own, which no base knows."""
    return place % 3


#: The loss, what its base gives for x, the labels of places and levels as a client sends them, and measures of its report.
TASKS = {
    "binary": (LogLoss(), NUMBER, lambda level: (level == 2).astype(np.float32), {"loss", "auc"}),
    "multiclass": (Multiclass(GASES), CLASSES, lambda level: [GASES[k] for k in level], {"loss", "accuracy", "macro_f1"}),
    "regression": (Regression(), NUMBER, lambda level: 300.0 * level.astype(np.float32), {"loss", "mae", "rmse", "r2", "bias"}),
    "count": (Count(), NUMBER, lambda level: 4 * level, {"loss", "deviance", "mae"}),
    "ranking": (Ranking(), NUMBER, lambda level: (level == 2).astype(np.float32), {"loss", "ndcg10", "mrr"}),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]


@pytest.fixture
def home(task, tmp_path):
    loss, body, *_ = task
    path = tmp_path / "places.onnx"
    head = """<ir_version: 8, opset_import: ["" : 18]> places (int64[N] place, float[N] x) => """
    onnx.save(onnx.parser.parse_model(head + body), path)
    corrections = [Calibration(), Entity("place", slots=64)]
    definition = Definition("places", path, output="y", link="identity", corrections=corrections, task=loss)
    given = {"window_seconds": 60.0} if loss.lists else {}
    quick = {"grpc_port": 0, "swap_min_seconds": 1e-9, "follow_seconds": 3600.0}
    return Home(definition, Settings.load(home=tmp_path / "home", **quick, **given))


def rows(seed):
    rng = np.random.default_rng(seed)
    return {"place": rng.permutation(PLACES)[:ROWS], "x": rng.uniform(0, 1, ROWS).astype(np.float32)}


def caught_up(trainer):
    while trainer.step():
        pass


def test_a_service_begins_as_its_base_learns_releases_swaps_and_restarts(task, home):
    loss, _, label, measures = task
    definition, settings = home.definition, home.settings
    alone = onnxruntime.InferenceSession(definition.base)
    plane = DataPlane(definition, settings, registry=CollectorRegistry(), home=home)
    # The clock is slow: a tick of it would be a record after the last label.
    with closing(plane), closing(Trainer(definition, settings, clock=count(1e9, 1e-6).__next__, home=home)) as trainer:
        columns = rows(0)
        (base,) = alone.run(None, columns)
        fresh = plane.session.run(columns)
        assert fresh.served.tobytes() == fresh.corrected.tobytes() == fresh.base.tobytes() == base.tobytes()
        np.testing.assert_allclose(fresh.score.ravel(), definition.loss.inverse_link(base).ravel(), rtol=1e-6)
        swap = plane.session.state.swap
        for seed in range(25):
            columns = rows(seed)
            answer = plane.score(columns)
            ids = [f"{answer.impressions}.{row}" for row in range(ROWS)]
            sent = label(of_place(columns["place"]))
            told = asyncio.run(plane.feedback(ids, sent, **({"complete": True} if loss.lists else {})))
            assert set(told.outcomes) == {"accepted"}
            caught_up(trainer)
            plane.follower.follow()
        assert plane.session.state.swap > swap
        assert plane.session.state.position == trainer.learner.position
        trainer.journal.write(Control("release", {}, 0.0))
        caught_up(trainer)
        plane.follower.follow()
        status = trainer.status()
        of = status["prequential"]["all"]
        assert of["served"]["loss"] < of["base"]["loss"]
        assert measures <= of["served"].keys()
        assert status["gate"]["skipped"] == 0
        released = onnxruntime.InferenceSession(home.releases().intact().path)
        live = plane.score(rows(99)).scores
        np.testing.assert_allclose(released.run(["score"], rows(99))[0], live, rtol=1e-5, atol=1e-6)
        learned = trainer.learner.examples, trainer.learner.stack.digest()
        assert learned[0] == (25 if loss.lists else 25 * ROWS)
    with closing(Trainer(definition, settings, home=home)) as again:
        assert (again.learner.examples, again.learner.stack.digest()) == learned
