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
from riverdelta.evaluation.gate import Gate
from riverdelta.lab.server import free_port
from riverdelta.learning.definition import Definition
from riverdelta.learning.joiner import Source
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.storage.registry import FolderRegistry

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

    def __init__(self, name, folder, entity=Entity, **settings):
        self.name, self.rng, self.label, self.shift = name, np.random.default_rng(len(name)), truth, 0.0
        path = folder / "ranker.onnx"
        if not path.exists():
            onnx.save(onnx.parser.parse_model(BASE), path)
        corrections = [Calibration(), Linear("user"), entity("user", on=["shop"], slots=256)]
        made = Definition(name, path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)
        self.settings = Settings.load(home=folder / "homes", grpc_port=0, **{**UNHURRIED, **settings})
        registry = CollectorRegistry()
        self.plane = DataPlane(made, self.settings, registry=registry)
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


def seldom(rng, x, scores):
    """Labels a fifth as often as the base has it."""
    return truth(rng, x, scores) & (rng.random(len(x)) < 0.2)


def never(rng, x, scores):
    """A stale stream of clicks."""
    return np.zeros(len(x), bool)


def spite(rng, x, scores):
    """Labels that are whatever the corrections made less likely than the base had it."""
    return scores < 1 / (1 + np.exp(-x))


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


def lose_the_learner(scorer):
    scorer.alive = False


def pause_the_learner(scorer):
    """Its checkpoints have no folder any more, but a file."""
    store = scorer.trainer.checkpoints
    moved = scorer.trainer.home.folder / "moved"
    moved.write_text("a file where a folder was")
    scorer.between.append(lambda: setattr(store, "registry", FolderRegistry(moved)))


def lose_sight_of_new_tables(scorer):
    scorer.plane.follower.follow = lambda: None


def see_old_records_alone(scorer, seconds=7.0):
    """The learner is behind by so many seconds, always."""
    read, seen = scorer.trainer.journal.read, []

    def late(after, rows):
        now = scorer.plane.clock()
        records = read(after, rows)
        seen.extend((now, sequence) for sequence, _ in records if not seen or sequence > seen[-1][1])
        known = [sequence for at, sequence in seen if at <= now - seconds]
        return [(sequence, record) for sequence, record in records if known and sequence <= known[-1]]

    scorer.trainer.journal.read = late


def read_nothing(scorer):
    """The learner reads no further, and the journal grows by hundreds of records."""
    scorer.trainer.journal.read = lambda after, rows: []

    async def burst():
        answer = scorer.plane.score({"user": [1] * 200, "x": [0.0] * 200, "shop": [0.0] * 200})
        for i in range(200):  # what comes together would be one record
            await scorer.plane.feedback([f"{answer.impressions}.{i}"], np.ones(1, np.float32))

    scorer.exchange = burst


def lose_impressions(scorer):
    """The learner finds no impression any more, in memory or in the journal."""
    waiting = scorer.trainer.learner.joiner.waiting
    scorer.between.append(lambda: vars(waiting).update(source=Source(), limit=0))


def label_again_what_is_retired(scorer):
    """Each request's labels are followed by those of the first one, whose part of the journal is soon retired."""
    post, exchange, sent = scorer._client.post, scorer.exchange, []

    async def remembered(path, json):
        if path == "/feedback":
            sent.append(json)
        return await post(path, json=json)

    async def twice():
        await exchange()
        await post("/feedback", json=sent[0])

    scorer._client.post, scorer.exchange = remembered, twice


def send_ids_of_another_service(scorer):
    """Each request's labels are followed by as many whose ids this service did not issue."""
    exchange = scorer.exchange

    async def twice():
        await exchange()
        answer = await scorer._client.post("/feedback", json=[{"id": "another.0", "label": 1}] * scorer.rows)
        assert answer.status_code == 422

    scorer.exchange = twice


def fill_the_journal(scorer):
    scorer.fed = False
    database = scorer.plane.journal.log._writer.newest._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")


def fill_the_disk(scorer):
    status = scorer.trainer._status
    describe = status.report
    status.report = lambda: describe() | {"disk_free_ratio": 0.03}


def shift_a_feature(scorer):
    scorer.shift = 3.0


def label_seldom(scorer):
    scorer.label = seldom


def stop_clicking(scorer):
    scorer.label = never


class Stuck(Gate):
    """A gate that guards nothing: what the corrections say is served, however they do."""

    weight = property(lambda self: 1.0)


def spite_the_corrections(scorer):
    scorer.label = spite
    scorer.trainer.learner.gate.__class__ = Stuck


def send_what_has_no_score(scorer):
    scorer.unscored = True


def send_what_it_cannot_score(scorer):
    scorer.odd = True


def slow_down(scorer):
    run = scorer.plane.session.run
    scorer.plane.session.run = lambda columns: (threading.Event().wait(0.35), run(columns))[1]


def skew_the_export(scorer):
    scorer.trainer.releases.definition.corrections[2].__class__.skew = 1.0
