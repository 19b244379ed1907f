"""Series: a request is counted at its route, is answered as it came, and a scrape reads the workers' files once."""

import asyncio
from types import SimpleNamespace

import bentoml
import httpx
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from riverdelta.bento import series
from riverdelta.bento.series import label_by_route, write_page_once


class Counting:
    """Stands in for BentoML's: notes the path that a request would be counted at."""

    seen = []

    def __init__(self, app, **given):
        self.app, self.given = app, given

    async def __call__(self, scope, receive, send):
        Counting.seen.append(scope["path"] if scope["type"] == "http" else scope["type"])
        await self.app(scope, receive, send)


@pytest.fixture
def ask(monkeypatch):
    """ask(path): the answer of an application with routes of several kinds, and the path it was counted at."""
    monkeypatch.setattr(series, "_Theirs", Counting)

    async def echo(request):
        return PlainTextResponse(request.scope["path"])

    ours = Starlette(routes=[Route("/score", echo, methods=["POST", "GET"]), Route("/v2/models/{name}", echo)])
    theirs = Starlette(routes=[Route("/{rest:path}", echo)])
    routes = [Route("/predict", echo), Route("/livez", echo), Mount("/shop", theirs), Mount("/", ours)]
    app = Starlette(routes=routes, middleware=[Middleware(Counting, namespace="shop", skip_paths=["/livez"])])
    label_by_route(app)

    async def call(path):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            Counting.seen.clear()
            return (await client.get(path)).text, Counting.seen[0]

    return call


@pytest.mark.parametrize(
    ("path", "counted"),
    [
        ("/predict", "/predict"),
        ("/livez", "/livez"),
        ("/score", "/score"),
        ("/nothing", "other"),
        ("/livez/nothing", "other"),
        ("/shop/any/thing", "/shop"),
        ("/shopping", "other"),
        ("/v2/models/ranker", "/v2/models/{name}"),
        ("/v2/models/ranker/versions/3/infer", "/v2/models/{name}/versions/{number}/infer"),
        ("/v2/models/a%2Fb/ready", "other"),
        ("/v2/models/a%0Ab/ready", "/v2/models/{name}/ready"),
    ],
)
def test_a_request_is_counted_at_its_route_and_answered_at_its_path(ask, path, counted):
    answer, seen = asyncio.run(ask(path))
    assert seen == counted
    assert answer in (path, "Not Found")
    assert (answer == path) == (path in ("/predict", "/livez", "/score", "/shop/any/thing", "/v2/models/ranker"))


def test_bentomls_own_application_counts_by_route():
    @bentoml.service
    class Plain:
        @bentoml.api
        def predict(self, x: int) -> int:
            return x

    app = Plain.to_asgi()
    assert any(m.cls is series._Theirs for m in app.user_middleware)
    label_by_route(app)
    (counting,) = [m for m in app.user_middleware if m.cls is series._Counting]
    label = counting.kwargs["label"]
    assert [label(p) for p in ("/predict", "/metrics", "/readyz", "/made/up")] == ["/predict", "/metrics", "/readyz", "other"]


@pytest.fixture
def client(monkeypatch):
    """Stand in for BentoML's client of Prometheus."""
    made = SimpleNamespace(generate_latest=None)
    monkeypatch.setattr(type(BentoMLContainer.metrics_client), "get", lambda self: made)
    return made


def test_a_scrape_puts_the_files_together_once(client, monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    read, collect = [], MultiProcessCollector.collect
    monkeypatch.setattr(MultiProcessCollector, "collect", lambda self: read.append(1) or collect(self))
    write_page_once()
    assert client.generate_latest() == b""
    assert read == [1]


def test_the_page_of_one_process_alone_stays_bentomls(client, monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    write_page_once()
    assert client.generate_latest is None
