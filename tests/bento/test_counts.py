"""Counts: every answered request is counted once, at its transport, its endpoint and what became of it, whatever it names."""

import asyncio
import random

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from riverdelta.bento import admin, oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.runtime import Runtime
from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

COLUMNS = {"user": [1, 2], "x": [0.5, 1], "shop": [0, 1]}
FEEDBACK = {"items": [{"id": "made-up.0", "label": 1}]}
KINDS = {"user": "INT64", "x": "FP32", "shop": "FP32"}
TENSORS = [{"name": n, "datatype": KINDS[n], "shape": [2], "data": column} for n, column in COLUMNS.items()]
ITEMS = [{"name": n, "datatype": k, "shape": [1], "data": d} for n, k, d in (("id", "BYTES", ["a.0"]), ("label", "FP32", [1]))]


class Served:
    """A worker's routes behind its guard, and its gRPC server, on one event loop."""

    def __init__(self, definition, home):
        self.registry, self.runtime = CollectorRegistry(), Runtime(definition)
        settings = Settings.load(home=home, max_bytes=100_000, max_rows=500)
        self.runtime.start(DataPlane(definition, settings, registry=self.registry))
        self.policy = Policy(self.runtime).open(settings)

        async def bentomls(request):
            return PlainTextResponse("well")

        async def parts(request):
            return StreamingResponse(iter([b"a", b"b", b"c"]))

        async def broken(request):
            raise ValueError("a fault of ours, outside of our routes")

        extra = [Route("/livez", bentomls), Route("/metrics", parts), Route("/docs.json", broken)]
        routes = [*rest.routes(self.runtime), *admin.routes(self.runtime), *oip_rest.routes(self.runtime), *extra]
        transport = httpx.ASGITransport(Guard(Starlette(routes=routes), self.policy), raise_app_exceptions=False)
        self.loop = asyncio.new_event_loop()
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.server = self.loop.run_until_complete(self._listen())
        self.channel = self.loop.run_until_complete(self._connect())

    async def _listen(self):
        server = GrpcServer(self.runtime, "127.0.0.1", 0, 100_000, self.policy)
        await server.start()
        return server

    async def _connect(self):
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}")

    def http(self, method, path, **body):
        return self.loop.run_until_complete(self.client.request(method, path, **body)).status_code

    def grpc(self, method, data=b""):
        async def call():
            try:
                await self.channel.unary_unary(f"/{SERVICE}/{method}")(data)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        return self.loop.run_until_complete(call())

    def close(self):
        self.loop.run_until_complete(self.channel.close())
        self.loop.run_until_complete(self.server.stop())
        self.loop.run_until_complete(self.client.aclose())
        self.loop.close()
        self.runtime.stop()

    def requests(self):
        """All that was counted, by transport, endpoint and outcome."""
        (counted,) = [family for family in self.registry.collect() if family.name == "riverdelta_requests"]
        found = {
            tuple(s.labels[name] for name in ("transport", "endpoint", "outcome")): s.value
            for s in counted.samples
            if s.name.endswith("_total")
        }
        return {labels: count for labels, count in found.items() if count}

    def series(self):
        return {(s.name, *sorted(s.labels.items())) for family in self.registry.collect() for s in family.samples}


@pytest.fixture(scope="module")
def served(definition, tmp_path_factory):
    made = Served(definition, tmp_path_factory.mktemp("counted"))
    yield made
    made.close()


HTTP = [
    ("POST", "/score", {"json": {"columns": COLUMNS}}, ("rest", "score", "ok")),
    ("POST", "/score", {"json": {"columns": {}}}, ("rest", "score", "invalid")),
    ("POST", "/score", {"content": b"x" * 200_000}, ("rest", "score", "too_large")),
    ("PUT", "/score", {}, ("rest", "other", "invalid")),
    ("POST", "/feedback", {"json": FEEDBACK}, ("rest", "feedback", "invalid")),
    ("GET", "/status", {}, ("rest", "status", "ok")),
    ("GET", "/metrics", {}, ("rest", "status", "ok")),
    ("GET", "/openapi.json", {}, ("rest", "metadata", "ok")),
    ("GET", "/docs.json", {}, ("rest", "metadata", "internal")),
    ("GET", "/livez", {}, ("rest", "health", "ok")),
    ("GET", "/admin/releases", {}, ("rest", "admin", "ok")),
    ("POST", "/admin/freeze", {}, ("rest", "admin", "invalid")),
    ("GET", "/made/up", {}, ("rest", "other", "invalid")),
    ("GET", "/v2", {}, ("oip_rest", "metadata", "ok")),
    ("GET", "/v2/models/ranker", {}, ("oip_rest", "metadata", "ok")),
    ("GET", "/v2/models/made-up", {}, ("oip_rest", "metadata", "invalid")),
    ("GET", "/v2/health/live", {}, ("oip_rest", "health", "ok")),
    ("GET", "/v2/models/ranker/ready", {}, ("oip_rest", "health", "ok")),
    ("POST", "/v2/models/ranker/infer", {"json": {"inputs": TENSORS}}, ("oip_rest", "score", "ok")),
    ("POST", "/v2/models/ranker-feedback/infer", {"json": {"inputs": ITEMS}}, ("oip_rest", "feedback", "invalid")),
    ("POST", "/v2/models/ranker-feedback/infer", {"json": {"inputs": []}}, ("oip_rest", "feedback", "invalid")),
]


def added(before, after):
    return {labels: count - before.get(labels, 0) for labels, count in after.items() if count != before.get(labels, 0)}


@pytest.mark.parametrize(("method", "path", "body", "labels"), HTTP)
def test_a_request_over_http_is_counted_once(served, method, path, body, labels):
    before = served.requests()
    served.http(method, path, **body)
    assert added(before, served.requests()) == {labels: 1}


def infer(model):
    return MESSAGES["ModelInferRequest"](model_name=model).SerializeToString()


GRPC = [
    ("ServerLive", b"", ("health", "ok")),
    ("ModelReady", MESSAGES["ModelReadyRequest"](name="ranker").SerializeToString(), ("health", "ok")),
    ("ServerMetadata", b"", ("metadata", "ok")),
    ("ModelMetadata", MESSAGES["ModelMetadataRequest"](name="made-up").SerializeToString(), ("metadata", "invalid")),
    ("ModelInfer", infer("ranker"), ("score", "invalid")),
    ("ModelInfer", infer("ranker-feedback"), ("feedback", "invalid")),
    ("ModelInfer", b"\xff", ("score", "invalid")),
    ("MadeUp", b"", ("other", "invalid")),
]


@pytest.mark.parametrize(("method", "data", "labels"), GRPC)
def test_a_call_over_grpc_is_counted_once(served, method, data, labels):
    before = served.requests()
    served.grpc(method, data)
    assert added(before, served.requests()) == {("grpc", *labels): 1}


def test_ten_thousand_made_up_names_leave_the_series_as_they_were(served):
    rng, names = random.Random(0), 0

    def name():
        nonlocal names
        names += 1
        return f"zq7{rng.getrandbits(64):x}"

    def everything(times):
        for _ in range(times):
            ids = [{"id": f"{name()}.{i}", "label": 1} for i in range(40)]
            served.http("POST", "/feedback", json={"items": ids})
            served.http("POST", "/score", json={"columns": {name(): [1], name(): [2]}})
            served.http("POST", "/score", json={"columns": {**COLUMNS, "user": [name(), name()]}})
            served.http(rng.choice(["GET", "POST", "PUT", "HEAD", name().upper()]), f"/{name()}/{name()}?{name()}=1")
            served.http("GET", f"/v2/models/{name()}/versions/{name()}")
            served.http("POST", f"/v2/models/{name()}/infer", json={"inputs": [{**TENSORS[0], "name": name()}]})
            served.http("GET", f"/admin/{name()}?{name()}=1")
        served.grpc("ModelInfer", infer(name()))
        served.grpc(name())

    everything(10)
    before, names = served.series(), 0
    everything(200)
    assert names >= 10_000
    assert served.series() == before
    assert not any("zq7" in str(series).lower() for series in before)
