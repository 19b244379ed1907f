"""One caller's large request: it is refused before it is read, or read where it does not keep others waiting."""

import asyncio
import json
import threading
from urllib.parse import quote

import grpc
import httpx
import numpy as np
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from riverdelta.bento import grpc_server, http, oip, oip_rest, rest
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy
from riverdelta.core import errors
from riverdelta.serving.oip.messages import MESSAGES
from riverdelta.storage.journal.ids import Ids

ROWS = 500  # the limit of these tests' scorer
SCORE, FEEDBACK = "/v2/models/ranker/infer", "/v2/models/ranker-feedback/infer"
ONE = {"columns": {"user": [1], "x": [0.5], "shop": [1.0]}}


def tensors(**data):
    """Inputs of a name, a datatype and values each."""
    inputs = [{"name": n, "datatype": t, "shape": [len(v)], "data": v} for n, (t, v) in data.items()]
    return {"inputs": inputs}


def long_ids(rows):
    return [f"user-{i:040}" for i in range(rows)]


FULL = {
    "/score": ("rest._asked", {"columns": {"user": long_ids(ROWS), "x": [0.5] * ROWS, "shop": [1.0] * ROWS}}),
    "/feedback": ("rest._items", [{"id": name, "label": 1} for name in long_ids(ROWS)]),
    SCORE: ("oip_rest._read", tensors(user=("BYTES", long_ids(ROWS)), x=("FP32", [0.5] * ROWS), shop=("FP32", [1.0] * ROWS))),
    FEEDBACK: ("oip_rest._read", tensors(id=("BYTES", long_ids(ROWS)), label=("FP32", [1.0] * ROWS))),
}


def held(monkeypatch, where, size):
    """Hold calls with a body of at least `size` bytes until `release` is set; `reached` says that one came."""
    reached, release = threading.Event(), threading.Event()
    module, name = where.split(".")
    module = {"rest": rest, "oip_rest": oip_rest, "oip": oip, "grpc_server": grpc_server}[module]
    act = getattr(module, name)

    def hold(*given):
        if any(isinstance(part, bytes) and len(part) >= size for part in given):
            reached.set()
            assert release.wait(30), "the event loop waited for a large request"
        return act(*given)

    monkeypatch.setattr(module, name, hold)
    return reached, release


@pytest.fixture
def app(runtime):
    policy = Policy(runtime).open(runtime.plane.settings)
    return Guard(Starlette(routes=[*rest.routes(runtime), *oip_rest.routes(runtime)]), policy)


@pytest.mark.parametrize("path", FULL)
def test_another_request_is_answered_while_a_large_one_is_read(app, monkeypatch, path):
    where, value = FULL[path]
    body = json.dumps(value).encode()
    reached, release = held(monkeypatch, where, len(body))

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            large = [asyncio.create_task(client.post(path, content=body)) for _ in range(3)]
            assert await asyncio.to_thread(reached.wait, 30)
            small = await client.post("/score", json=ONE)
            waiting = [task.done() for task in large]
            release.set()
            return small.status_code, waiting, [(await task).status_code for task in large]

    # Nobody issued the ids of the feedback.
    assert asyncio.run(run()) == (200, [False] * 3, [422 if "feedback" in path else 200] * 3)


def test_another_call_is_answered_while_a_large_message_is_parsed(runtime, monkeypatch):
    request = MESSAGES["ModelInferRequest"](model_name="ranker")
    for name, datatype, field, values in (
        ("user", "BYTES", "bytes_contents", [name.encode() for name in long_ids(ROWS)]),
        ("x", "FP32", "fp32_contents", [0.5] * ROWS),
        ("shop", "FP32", "fp32_contents", [1.0] * ROWS),
    ):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[ROWS])
        getattr(tensor.contents, field).extend(values)
    body = request.SerializeToString()
    reached, release = held(monkeypatch, "grpc_server.parse", len(body))

    async def run():
        server = GrpcServer(runtime, "127.0.0.1", 0, 1 << 20)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            infer, live = (channel.unary_unary(f"/inference.GRPCInferenceService/{m}") for m in ("ModelInfer", "ServerLive"))
            large = asyncio.create_task(_answer(infer, body))
            assert await asyncio.to_thread(reached.wait, 30)
            small, waiting = await live(b""), large.done()
            release.set()
            answer = MESSAGES["ModelInferResponse"].FromString(await large)
        await server.stop()
        return small, waiting, len(np.frombuffer(answer.raw_output_contents[0], np.float32))

    assert asyncio.run(run()) == (b"\x08\x01", False, ROWS)


async def _answer(infer, body):
    return await infer(body)


@pytest.mark.parametrize(
    ("path", "body"),
    {
        "string ids": ("/score", b'{"columns":{"user":[' + b'"a",' * 20_000 + b'"a"]}}'),
        "empty lists": ("/score", b'{"columns":{"user":[' + b"[]," * 20_000 + b"[]]}}"),
        "unknown keys": ("/score", b"{" + b'"a":1,' * 15_000 + b'"a":1}'),
        "items": ("/feedback", b"[" + b"{}," * 20_000 + b"{}]"),
        "empty BYTES": (SCORE, b'{"inputs":[{"data":[' + b'"",' * 20_000 + b'""]}]}'),
        "inputs": (SCORE, b'{"inputs":[' + b"{}," * 20_000 + b"{}]}"),
        "outputs": (FEEDBACK, b'{"outputs":[' + b"{}," * 20_000 + b"{}]}"),
    }.values(),
)
def test_a_body_with_more_values_than_its_rows_may_have_is_not_parsed(send, monkeypatch, path, body):
    parsed = []
    monkeypatch.setattr(orjson, "loads", lambda data: parsed.append(data))
    answer = send("POST", path, content=body)
    assert (answer.status_code, parsed) == (413, [])
    assert "RIVERDELTA_MAX_ROWS" in answer.text


def test_rows_are_counted_before_a_column_is_converted(send, runtime, monkeypatch):
    columns = {"user": list(range(ROWS + 1)), "x": [0.5], "shop": [1.0]}
    monkeypatch.setattr("riverdelta.core.features.leaves", None)
    answer = send("POST", "/score", json={"columns": columns})
    assert answer.status_code == 413
    assert "column 'user' has 501 rows; at most 500 rows are accepted in one request (RIVERDELTA_MAX_ROWS)" in answer.text


@pytest.mark.parametrize("shape", [[ROWS + 1], [1, ROWS + 1], [ROWS + 1, 0], [ROWS, 2]])
@pytest.mark.parametrize("binary", [True, False])
def test_a_tensor_s_shape_is_checked_before_its_data_are_read(send, monkeypatch, shape, binary):
    for read in ("from_list", "from_bytes"):
        monkeypatch.setattr(oip_rest, read, None)
    data = {"parameters": {"binary_data_size": 0}} if binary else {"data": []}
    answer = send("POST", SCORE, json={"inputs": [{"name": "user", "datatype": "BYTES", "shape": shape, **data}]})
    assert answer.status_code == 413
    assert f"input 'user' has shape {shape}; at most 500 rows" in answer.text


def test_a_body_of_options_is_short(send):
    answer = send("POST", "/v2/repository/index", content=b" " * 9_000)
    assert (answer.status_code, "has 9000 bytes; at most 8192 are accepted" in answer.text) == (413, True)


def sent(runtime, size, begun=None, go_on=None):
    """Read a body of `size` bytes; after its first half set `begun` and wait for `go_on`."""

    async def stream():
        yield bytes(size // 2)
        if begun:
            begun.set()
            await go_on.wait()
        yield bytes(size - size // 2)

    request = Request({"type": "http", "headers": []})
    request.stream = stream
    return http.read_body(request, runtime)


@pytest.mark.parametrize("how", ["received", "abandoned"])
def test_large_bodies_that_come_at_once_are_bounded_together_and_small_ones_always_pass(runtime, how):
    most = runtime.plane.settings.max_bytes

    async def run():
        begun, go_on = [asyncio.Event() for _ in range(16)], asyncio.Event()
        large = [asyncio.create_task(sent(runtime, most, each, go_on)) for each in begun]
        await asyncio.gather(*(each.wait() for each in begun))
        with pytest.raises(errors.Unavailable, match="8 times RIVERDELTA_MAX_BYTES") as refused:
            await sent(runtime, 50_000)
        assert refused.value.retry_after
        with pytest.raises(errors.Unavailable):
            await runtime.read(50_000, len, b"")
        assert len(await sent(runtime, 8_000)) == 8_000
        for task in large if how == "abandoned" else large[8:]:
            task.cancel()
        await asyncio.wait(large[8:])
        go_on.set()
        await asyncio.wait(large)
        assert len(await sent(runtime, most)) == most
        assert await runtime.read(most, len, b"abc") == 3

    asyncio.run(run())


@pytest.mark.parametrize("name", ["a" * 90_000, "user" * 20_000, "ä" * 40_000, "\\n" * 20_000])
@pytest.mark.parametrize("path", ["/score", "/feedback", SCORE, FEEDBACK, "output", "model"])
def test_a_long_name_is_compared_with_nothing_and_not_repeated(send, monkeypatch, path, name):
    compared = []
    monkeypatch.setattr(errors, "get_close_matches", lambda name, *given, **more: compared.append(len(name)) or [])
    body = {
        "/score": {"columns": {name: [1]}},
        "/feedback": [{"id": "a.0", name: 1}],
        SCORE: tensors(**{name: ("FP32", [1])}),
        FEEDBACK: tensors(**{name: ("FP32", [1])}),
        "output": {"inputs": [], "outputs": [{"name": name}]},
        "model": tensors(),
    }[path]
    at = {"output": SCORE, "model": f"/v2/models/{quote(name[:9_000])}/infer"}.get(path, path)
    answer = send("POST", at, content=json.dumps(body, ensure_ascii=False))
    assert answer.status_code in (400, 404)
    assert all(length <= 100 for length in compared)
    assert len(answer.content) < 700


def test_ids_that_nobody_issued_read_the_keys_once_a_request(tmp_path, monkeypatch):
    ids, reads = Ids.load(tmp_path / "key", 0.0), []
    monkeypatch.setattr("riverdelta.storage.journal.ids._version", lambda path: reads.append(path))
    forged = [f"{Ids(bytes(32)).issue(1, request)}.0" for request in range(100)]
    assert ids.parse_all([*forged, ids.issue(1, 2) + ".3"]) == [None] * 100 + [(1, 2, 3)]
    assert len(reads) == 1
