"""A small scorer on a home of its own, served and taught in this process."""

import asyncio
from concurrent.futures import wait

import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Calibration, Entity
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""


@pytest.fixture
def definition(tmp_path):
    path = tmp_path / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Entity("user", on=["shop"], slots=256)]
    return Definition("ranker", path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)


class Rig:
    """A dataplane and a trainer on one home, with a clock that tests turn."""

    def __init__(self, definition, home, **given):
        self.now = 1_000.0
        self.definition = definition
        self.settings = Settings.load(home=home, grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0, **given)
        self.plane = DataPlane(definition, self.settings, clock=lambda: self.now, registry=CollectorRegistry())
        self.trainer = None
        self.start()

    def start(self):
        self.trainer = Trainer(self.definition, self.settings, clock=lambda: self.now)

    def columns(self, rows, seed):
        rng = np.random.default_rng(seed)
        floats = [rng.normal(size=rows).astype(np.float32) for _ in range(2)]
        return {"user": rng.integers(0, 20, rows), "x": floats[0], "shop": floats[1]}

    def teach(self, rows=16, seed=0, labels=None):
        answer = self.plane.score(self.columns(rows, seed))
        labels = np.random.default_rng(seed).integers(0, 2, rows).astype(np.float32) if labels is None else labels
        return asyncio.run(self.plane.feedback([f"{answer.impressions}.{i}" for i in range(rows)], labels))

    def step(self, seconds=1.0):
        self.now += seconds
        # What is written beside the learning ends; where it fails that is noticed, and it is tried again.
        for _ in range(3):
            while self.trainer.step():
                pass
            saver = self.trainer._saver
            if not saver.writing and not saver.failed:
                break
            wait([saver._writing] if saver.writing else [])

    def restart(self, **given):
        """Start again on the same home with other settings; the clock goes on."""
        now = self.now
        self.close()
        self.__init__(self.definition, self.settings.home, **given)
        self.now = now
        self.step()

    def close(self):
        if self.trainer is not None:
            self.trainer.close()
        self.plane.close()


@pytest.fixture
def make_rig():
    made = []

    def make(*args, **given):
        made.append(Rig(*args, **given))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def rig(definition, tmp_path, request, make_rig):
    return make_rig(definition, tmp_path / "home", **getattr(request, "param", {}))
