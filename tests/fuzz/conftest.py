"""What damages bytes and what bounds an example, for every fuzz test; and a scorer in this process.

Each test tries 100 examples, or fewer where one takes long, the same ones in every run. RIVERDELTA_FUZZ_EXAMPLES sets another
number, and then each run tries others. A long run, of an hour or more:

    RIVERDELTA_FUZZ_EXAMPLES=3000 nice python -m pytest -q tests/fuzz --hypothesis-seed=1
"""

import asyncio
import contextlib
import os
import resource
import signal
import threading
from pathlib import Path

import httpx
import onnx
import pytest
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from riverdelta import Calibration, Entity
from riverdelta.bento import oip_rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.bento.runtime import Runtime
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane

EXAMPLES = os.environ.get("RIVERDELTA_FUZZ_EXAMPLES")
settings.register_profile(
    "fuzz",
    max_examples=int(EXAMPLES or 100),
    derandomize=EXAMPLES is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
BYTES, SECONDS = 1 << 30, 60
RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x, float[N, 2] vec, bool[N] on, int8[N] small) => (float[N] logit) {
  one = Constant<value = int64[1] {1}>()  sum = ReduceSum<keepdims = 0>(vec, one)  yes = Cast<to = 1>(on)
  few = Cast<to = 1>(small)  a = Add(x, sum)  b = Add(a, yes)  logit = Add(b, few)
}"""


def damaged(data, edits):
    """Return `data` after edits (way, place, byte): a flip, another byte, a cut, a part doubled or dropped, a wide number."""
    for way, place, byte in edits:
        at = place % max(len(data), 1)
        head, tail = data[:at], data[at + 1 :]
        if way == 0 and data:
            data = head + bytes([data[at] ^ (1 << byte % 8)]) + tail
        elif way == 1:
            data = head + bytes([byte]) + tail
        elif way == 2:
            data = head
        elif way == 3:
            data = data[: at + byte] + data[at:]
        elif way == 4:
            data = head + data[at + byte :]
        else:
            data = head + bytes([255 - byte % 2]) * 4 + data[at + 4 :]
    return data


@contextlib.contextmanager
def bounds():
    """End what hangs, and refuse the memory that an example of a few kB can never need."""

    def late(*_):
        raise AssertionError(f"this example was not done after {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def damage():
    """`damaged`, as a fixture: these files are no package."""
    return damaged


@pytest.fixture(scope="session")
def bounded():
    """`bounds`, as a fixture."""
    return bounds


@pytest.fixture(scope="session")
def loop():
    """An event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fuzzed", daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def scorer(tmp_path_factory):
    """A scorer of five inputs of five types, one more column and string ids."""
    path = tmp_path_factory.mktemp("base") / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Entity("user", on=["shop"], slots=256)]
    definition = Definition("ranker", path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)
    settings = Settings.load(home=tmp_path_factory.mktemp("home"), max_bytes=100_000, max_rows=500)
    runtime = Runtime(definition)
    runtime.start(DataPlane(definition, settings, registry=CollectorRegistry()))
    yield runtime
    runtime.stop()


@pytest.fixture(scope="session")
def client(scorer, loop):
    """A client of its routes of the Open Inference Protocol, behind its guard; it belongs to the loop."""
    app = Guard(Starlette(routes=oip_rest.routes(scorer)), Policy(scorer).open(scorer.plane.settings))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    yield client
    asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(30)


@pytest.fixture(scope="session")
def port(scorer, loop):
    """The port of its gRPC server."""

    async def start():
        server = GrpcServer(scorer, "127.0.0.1", 0, 100_000)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield server.port
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
