"""Scorers that live in this process, each with its learner, its routes and its metrics, and a fault that can be planted."""

import asyncio
import re
import threading

import httpx
import numpy as np
import onnx
from prometheus_client import CollectorRegistry, start_http_server
from starlette.applications import Starlette
from test_alerts import rules

from riverdelta import Calibration, Entity, Linear
from riverdelta.bento import rest
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.runtime import Runtime
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.lab.server import free_port
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

#: A base with faults of its own: it cannot score an odd number of rows, and returns NaN where x is 1e30.
BASE = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) {
  two = Constant<value = int64[2] {2, -1}>()
  one = Constant<value = int64[1] {-1}>()
  big = Constant<value = float {1e30}>()
  none = Constant<value = float {0.0}>()
  pairs = Reshape(x, two)
  flat = Reshape(pairs, one)
  huge = Mul(x, big)
  odd = Mul(huge, none)
  logit = Add(flat, odd)
}"""

#: Many of them share a processor: each looks, swaps and saves less often than it would alone.
UNHURRIED = {
    "follow_seconds": 0.5,
    "swap_min_seconds": 0.5,
    "checkpoint_seconds": 2.0,
    "release_seconds": 20.0,
    "drift_reference_examples": 1_024,
}


class Skewed(Entity):
    """An entity whose export disagrees with what it learned, while `skew` is not 0."""

    skew = 0.0

    def export(self, nodes, columns, offset):
        return nodes.add("Add", super().export(nodes, columns, offset), nodes.constant(self.skew, np.float32))


class Scorer:
    """A service in small, under the name of its fault; `settings` are those that it runs with."""

    #: Rows of a request, whether some have one more, whether one has no score, and whether labels are sent.
    rows, odd, unscored, fed = 128, False, False, True
    #: The seconds that a request takes, as its metrics have it: how long it really takes is up to the machine.
    took = 0.01

    def __init__(self, name, folder, entity=Entity, corrected=True, **settings):
        self.name, self.rng, self.label, self.shift = name, np.random.default_rng(len(name)), truth, 0.0
        path = folder / "ranker.onnx"
        if not path.exists():
            onnx.save(onnx.parser.parse_model(BASE), path)
        corrections = [Calibration(), Linear("user"), entity("user", on=["shop"], slots=256)] if corrected else []
        made = Definition(name, path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)
        self.settings = Settings.load(home=folder / "homes", grpc_port=0, **{**UNHURRIED, **settings})
        registry = CollectorRegistry()
        self.plane = DataPlane(made, self.settings, registry=registry)
        answered = self.plane.metrics.answered
        self.plane.metrics.answered = lambda *given: answered(*given[:-1], self.took)
        self.trainer = Trainer(made, self.settings)
        runtime = Runtime(made)
        runtime.start(self.plane)
        policy = Policy(runtime).open(self.settings)
        transport = httpx.ASGITransport(Guard(Starlette(routes=rest.routes(runtime)), policy))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.port = free_port()
        # What no rule asks for is left out: to write all of it for all of them would take a processor.
        shown = registry.restricted_registry(asked())
        self._http, self._thread = start_http_server(self.port, "127.0.0.1", shown)
        #: What the learner's thread does next, between two of its steps.
        self.between = []
        self.alive, self._stopping = True, threading.Event()
        self._learning = threading.Thread(target=self._learn)
        self._learning.start()

    async def exchange(self):
        """Score a block and feed it back, as the fault would have it."""
        rows = self.rows + (self.odd and bool(self.rng.random() < 0.2))
        x, shop = self.rng.normal(size=(2, rows)).astype(np.float32)
        x[: int(self.unscored)] = 1e30
        columns = {"user": self.rng.integers(0, 30, rows), "x": x, "shop": shop + np.float32(self.shift)}
        body = {"columns": {name: column.tolist() for name, column in columns.items()}}
        answer = (await self._client.post("/score", json=body)).json()
        if "scores" in answer and self.fed:
            label = self.label(self.rng, x, np.array(answer["scores"]))
            items = [{"id": f"{answer['impressions']}.{i}", "label": int(y)} for i, y in enumerate(label)]
            await self._client.post("/feedback", json={"items": items})

    def close(self):
        """End everything that it began."""
        self._stopping.set()
        self._learning.join()
        self.trainer.close()
        self.plane.close()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _learn(self):
        while not self._stopping.wait(0.3):
            while self.between:
                self.between.pop()()
            while self.alive and not self._stopping.is_set() and self.trainer.step():
                pass


def asked():
    """The names of all series that the rules ask for."""
    texts = [rule["expr"] for rule in rules()]
    return sorted({name for text in texts for name in re.findall(r"riverdelta_[a-z0-9_]+", text)})


def truth(rng, x, scores):
    """Labels that the base gets right."""
    return rng.random(len(x)) < 1 / (1 + np.exp(-x))


async def _all(scorers, stop, pause):
    async def one(scorer):
        await asyncio.sleep(pause * scorers.index(scorer) / len(scorers))
        while not stop.is_set():
            await scorer.exchange()
            await asyncio.sleep(pause)

    await asyncio.gather(*map(one, scorers))


class Traffic:
    """Requests to all scorers, one after another for each, until `close`."""

    def __init__(self, scorers, pause=0.7):
        self._stop, self.error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, args=(scorers, pause))
        self._thread.start()

    def _run(self, scorers, pause):
        try:
            asyncio.run(_all(scorers, self._stop, pause))
        except BaseException as error:
            self.error = error

    def close(self):
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error
