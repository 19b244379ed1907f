"""Two scorers in one process: each is served, learns, publishes, swaps and is measured as it would be alone."""

import asyncio
from contextlib import ExitStack

import httpx
import numpy as np
import onnx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from riverdelta import Calibration, Entity, Linear
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.runtime import Runtime
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

#: Both read `x`, and `user` is a column of one and a hashed id of the other.
BASES = {
    "shop": """<ir_version: 8, opset_import: ["" : 17]>
shop (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }""",
    "search": """<ir_version: 8, opset_import: ["" : 17]>
search (float[N] x) => (float[N] p) { two = Constant<value = float {2.0}>()  z = Mul(x, two)  p = Sigmoid(z) }""",
}
TOKENS = {
    name: {f"{role}_tokens": f"{name}-{role}-token-of-sixteen" for role in ("score", "feedback", "admin")} for name in BASES
}
#: What does not depend on the clock or on the machine.
MEASURED = (
    "requests_total", "rows_scored_total", "feedback_total", "swaps_total", "freshness_seconds_count", "learned_position",
    "live_position", "examples_learned", "swap_number", "release_number", "prequential_loss", "gate_weight_ratio",
    "table_occupancy_ratio", "journal_position",
)  # fmt: skip


def definition(name, folder):
    path = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(BASES[name]), path)
    if name == "shop":
        columns, stack = {"price": "float32"}, [Calibration(), Entity("user", on=["price"], slots=256)]
        return Definition(name, path, logit="logit", columns=Schema.of(columns), corrections=stack)
    return Definition(name, path, probability="p", columns=Schema.of({"user": "int64"}), corrections=[Linear("user")])


class Scorer:
    """A scorer with its learner and its routes; `exchange` is a request and its feedback, `learn` all that follows."""

    def __init__(self, name, folder, registry):
        self.name, self.now, self.rng = name, 1_000.0, np.random.default_rng(len(name))
        self.definition = definition(name, folder)
        given = {"swap_min_seconds": 1e-9, "follow_seconds": 3600.0, "release_examples": 100, **TOKENS[name]}
        self.settings = Settings.load(home=folder / "home", grpc_port=0, **given)
        self.plane = DataPlane(self.definition, self.settings, clock=lambda: self.now, registry=registry)
        self.trainer = Trainer(self.definition, self.settings, clock=lambda: self.now)
        runtime = Runtime(self.definition)
        runtime.start(self.plane)
        routes = [*rest.routes(runtime), *oip_rest.routes(runtime)]
        self.app = Guard(Starlette(routes=routes), Policy(runtime).open(self.settings))

    def columns(self, rows=16):
        drawn = {"user": self.rng.integers(0, 20, rows).tolist(), "x": self.rng.normal(size=rows).tolist()}
        return drawn | ({"price": self.rng.normal(size=rows).tolist()} if self.name == "shop" else {})

    async def exchange(self):
        answer = await self.ask("/score", {"columns": self.columns()})
        ids = [f"{answer['impressions']}.{i}" for i in range(len(answer["scores"]))]
        labels = self.rng.integers(0, 2, len(ids)).tolist()
        fed = await self.ask("/feedback", {"items": [{"id": i, "label": y} for i, y in zip(ids, labels, strict=True)]})
        assert set(fed["outcomes"]) == {"accepted"}

    async def ask(self, path, body, status=200):
        transport = httpx.ASGITransport(self.app)
        headers = {"Authorization": f"Bearer {self.settings.admin_tokens.get_secret_value()}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def learn(self):
        self.now += 1.0
        while self.trainer.step():
            pass
        self.plane.follower.follow()
        self.plane.follower.mirror()

    def learned(self):
        """The tables in service, and what the learner keeps besides."""
        tables = {name: value.copy() for name, value in self.trainer.learner.stack.state().items()}
        return tables | {"score": self.plane.session.run(self.plane.schema.check(self.columns(), 100)[0]).score}

    def close(self):
        self.trainer.close()
        self.plane.close()


def life(scorers, times=8):
    """Let all of them have as many exchanges, at the same time, and learn in turn."""

    async def at_once():
        await asyncio.gather(*(scorer.exchange() for scorer in scorers))

    for _ in range(times):
        asyncio.run(at_once())
        for scorer in scorers:
            scorer.learn()
    return [scorer.learned() for scorer in scorers]


def measured(registry, name):
    return {
        (s.name, *sorted(s.labels.items())): s.value
        for family in registry.collect()
        for s in family.samples
        if s.name.removeprefix("riverdelta_") in MEASURED and s.labels["model"] == name
    }


@pytest.fixture
def make(tmp_path):
    with ExitStack() as stack:

        def one(name, folder, registry):
            (tmp_path / folder).mkdir(exist_ok=True)
            made = Scorer(name, tmp_path / folder, registry)
            stack.callback(made.close)
            return made

        yield one


def test_two_scorers_do_in_one_process_what_each_does_alone(make, tmp_path):
    registry = CollectorRegistry()
    together = [make(name, "together", registry) for name in BASES]
    found = dict(zip(BASES, life(together), strict=True))
    assert {path.name for path in (tmp_path / "together" / "home").iterdir()} == set(BASES)
    for name in BASES:
        alone = CollectorRegistry()
        (expected,) = life([make(name, name, alone)])
        assert expected.keys() == found[name].keys()
        for table, values in expected.items():
            assert np.array_equal(values, found[name][table]), table
        assert measured(registry, name) == measured(alone, name)
    for scorer in together:
        value = {key[0]: v for key, v in measured(registry, scorer.name).items()}
        assert value["riverdelta_examples_learned"] == 8 * 16
        assert value["riverdelta_live_position"] == scorer.plane.session.state.position > 0
        assert value["riverdelta_release_number"] >= 1


def test_no_scorer_takes_the_tokens_ids_or_columns_of_another(make):
    registry = CollectorRegistry()
    shop, search = (make(name, "together", registry) for name in BASES)

    async def exchanged():
        impressions = (await shop.ask("/score", {"columns": shop.columns(1)}))["impressions"]
        answer = await search.ask("/feedback", [{"id": f"{impressions}.0", "label": 1}], 422)
        assert answer["outcomes"] == ["bad_id"]
        assert "price" in (await search.ask("/score", {"columns": shop.columns(1)}, 400))["error"]["message"]
        search.settings = shop.settings
        await search.ask("/score", {"columns": search.columns(1)}, 401)

    asyncio.run(exchanged())


def test_a_scorer_that_is_made_again_beside_the_first_counts_on_and_serves_the_same_tables(make):
    registry = CollectorRegistry()
    first = make("shop", "together", registry)
    life([first], times=3)
    again = DataPlane(first.definition, first.settings, clock=lambda: first.now, registry=registry)
    try:
        columns = first.columns()
        assert np.array_equal(again.score(columns).scores, first.plane.score(columns).scores)
        assert registry.get_sample_value("riverdelta_rows_scored_total", {"model": "shop", "transport": "rest"}) == 5 * 16
    finally:
        again.close()
