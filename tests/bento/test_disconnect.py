"""A client that goes away in the middle of a request: no traceback and no answer, and the next client is served."""

import asyncio
import logging
import socket
import struct
import threading
import time
from contextlib import suppress

import grpc
import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette

from riverdelta.bento import admin, oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

PATHS = {"/score": ("rest", "score"), "/feedback": ("rest", "feedback"), "/v2/models/ranker/infer": ("oip_rest", "score")}


@pytest.fixture
def port(runtime):
    """The port of a real server with the scorer's routes behind the guard."""
    policy = Policy(runtime).open(runtime.plane.settings)
    app = Guard(Starlette(routes=[*rest.routes(runtime), *oip_rest.routes(runtime), *admin.routes(runtime)]), policy)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def invalid(registry, path):
    transport, endpoint = PATHS[path]
    labels = {"model": "ranker", "transport": transport, "endpoint": endpoint, "outcome": "invalid"}
    return registry.get_sample_value("riverdelta_requests_total", labels) or 0.0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_away_in_mid_body_is_counted_and_leaves_no_traceback(port, registry, caplog, path, reset):
    before = invalid(registry, path)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n\r\n".encode() + b'{"columns": ')
        time.sleep(0.1)  # so that the request has begun
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 20
    while invalid(registry, path) == before:
        assert time.monotonic() < deadline, "the request is not counted"
        time.sleep(0.01)
    assert httpx.get(f"http://127.0.0.1:{port}/status").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_goes_away_in_mid_download_leaves_no_open_file_and_no_traceback(
    port, monkeypatch, tmp_path, caplog, reset
):
    size, opened = 64 << 20, []

    async def packed(merged):
        with (tmp_path / "large").open("wb") as file:
            file.truncate(size)
        opened.append((tmp_path / "large").open("rb"))
        return opened[0]

    monkeypatch.setattr(admin, "packed", packed)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /admin/export HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in client.recv(1_000)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 20
    while not opened[0].closed:
        assert time.monotonic() < deadline, "the file is still open"
        time.sleep(0.01)
    assert httpx.get(f"http://127.0.0.1:{port}/status").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


def test_a_grpc_call_that_is_cancelled_leaves_no_traceback(runtime, monkeypatch, caplog):
    begun = asyncio.Event()

    async def slow(*_):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(runtime.plane, "store", slow)
    raw = [b"\3\0\0\0a.0", np.ones(1, np.float32).tobytes()]
    kinds = {"id": "BYTES", "label": "FP32"}
    inputs = [MESSAGES["InferInputTensor"](name=name, datatype=kind, shape=[1]) for name, kind in kinds.items()]
    data = MESSAGES["ModelInferRequest"](
        model_name="ranker-feedback", inputs=inputs, raw_input_contents=raw
    ).SerializeToString()

    async def cancelled():
        server = GrpcServer(runtime, "127.0.0.1", 0, 100_000)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(data)
            await begun.wait()
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            ready = await channel.unary_unary(f"/{SERVICE}/ServerReady")(b"")
            await server.stop()
        return MESSAGES["ServerReadyResponse"].FromString(ready).ready

    assert asyncio.run(cancelled())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []
