"""A scorer in this process: its dataplane, its HTTP routes and its gRPC server, without BentoML around them."""

import asyncio

import httpx
import onnx
import pytest
from prometheus_client import CollectorRegistry

from riverdelta import Calibration, Entity
from riverdelta.bento import oip_rest, rest
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.http import application
from riverdelta.bento.runtime import Runtime
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""


@pytest.fixture(scope="session")
def definition(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Entity("user", on=["shop"], slots=256)]
    return Definition("ranker", path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)


@pytest.fixture(scope="session")
def registry():
    return CollectorRegistry()


@pytest.fixture(scope="session")
def runtime(definition, registry, tmp_path_factory):
    made = Runtime(definition)
    settings = Settings.load(home=tmp_path_factory.mktemp("home"), max_bytes=100_000, max_rows=500)
    made.start(DataPlane(definition, settings, registry=registry))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def send(runtime):
    """send(method, path, **what httpx takes): one request through the guard and the routes of the module's `runtime`."""
    policy = Policy(runtime).open(runtime.plane.settings)
    app = Guard(application([*rest.routes(runtime), *oip_rest.routes(runtime)]), policy)

    def call(method, path, **given):
        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **given)

        return asyncio.run(one())

    return call
