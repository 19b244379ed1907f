"""The gRPC server: raw and typed tensors, hostile bytes, one port for many workers."""

import asyncio
import socket

import grpc
import numpy as np
import pytest

from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.core.errors import ConfigurationError, Unavailable
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

ROWS = {"user": np.array([1, 2]), "x": np.array([0.5, 1], np.float32), "shop": np.zeros(2, np.float32)}
KINDS = {"user": ("INT64", "int64_contents"), "x": ("FP32", "fp32_contents"), "shop": ("FP32", "fp32_contents")}


@pytest.fixture
def infer(runtime):
    """infer(bytes): the answer of a server that is started for it."""

    def call(data, method="ModelInfer"):
        async def one():
            server = GrpcServer(runtime, "127.0.0.1", 0, 100_000)
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                try:
                    return await channel.unary_unary(f"/{SERVICE}/{method}")(data)
                finally:
                    await server.stop()

        return MESSAGES[f"{method}Response"].FromString(asyncio.run(one()))

    return call


def tensors(typed):
    made = []
    for name, data in ROWS.items():
        datatype, field = KINDS[name]
        contents = {"contents": MESSAGES["InferTensorContents"](**{field: data.tolist()})} if typed else {}
        made.append(MESSAGES["InferInputTensor"](name=name, datatype=datatype, shape=[2], **contents))
    return made


def request(typed=False, raw=None, **given):
    contents = [] if typed else [a.tobytes() for a in ROWS.values()] if raw is None else raw
    given = {"model_name": "ranker", "inputs": tensors(typed), "raw_input_contents": contents, **given}
    return MESSAGES["ModelInferRequest"](**given).SerializeToString()


def test_raw_and_typed_tensors_get_the_same_scores(infer):
    raw, typed = infer(request()), infer(request(typed=True, id="r-1"))
    assert raw.raw_output_contents[0] == typed.raw_output_contents[0]
    assert [o.name for o in raw.outputs] == ["score", "base_logit", "impressions", "state"]
    assert typed.id == "r-1"


def test_hints_are_accepted_and_change_nothing(infer):
    hints = {
        "priority": MESSAGES["InferParameter"](uint64_param=2**64 - 1),
        "timeout": MESSAGES["InferParameter"](int64_param=5),
    }
    hinted, plain = infer(request(parameters=hints)), infer(request())
    assert hinted.raw_output_contents[0] == plain.raw_output_contents[0]


HOSTILE = {
    "bytes that are no message": (b"\xff\xff\xff", "INVALID_ARGUMENT", "not a valid inference.ModelInferRequest"),
    "fewer raw tensors than inputs": (request(raw=[b"1"]), "INVALID_ARGUMENT", "1 raw_input_contents for 3"),
    "raw bytes of another length": (request(raw=[b"1", b"2", b"3"]), "INVALID_ARGUMENT", "'user' has 1 bytes"),
    "a negative shape": (
        request(inputs=[MESSAGES["InferInputTensor"](name="user", datatype="INT64", shape=[-2])], raw=[b""]),
        "INVALID_ARGUMENT",
        "sizes of at least 0",
    ),
    "a shape of 2,000 axes": (
        request(inputs=[MESSAGES["InferInputTensor"](name="user", datatype="INT64", shape=[2**62] * 2_000)], raw=[b""]),
        "INVALID_ARGUMENT",
        "input 'user' has 2000 axes; expected at most 8",
    ),
    "a type without typed contents": (
        request(typed=True, inputs=[MESSAGES["InferInputTensor"](name="x", datatype="FP16", shape=[2])]),
        "INVALID_ARGUMENT",
        "needs raw_input_contents",
    ),
    "a name of 50,000 letters": (request(model_name="é" * 20_000), "NOT_FOUND", "there is no model"),
    "a parameter": (
        request(parameters={"sequence_id": MESSAGES["InferParameter"](int64_param=3)}),
        "INVALID_ARGUMENT",
        "expected no 'sequence_id', because no request depends on an earlier one",
    ),
    "an unknown parameter": (
        request(parameters={"delta": MESSAGES["InferParameter"](int64_param=3)}),
        "INVALID_ARGUMENT",
        "the request (parameters) has 'delta'; allowed: priority, timeout",
    ),
    "a priority of text": (
        request(parameters={"priority": MESSAGES["InferParameter"](string_param="high")}),
        "INVALID_ARGUMENT",
        "the request: parameters.priority is 'high'; expected an integer of at least 0",
    ),
    "classification of an output": (
        request(
            outputs=[
                MESSAGES["InferRequestedOutputTensor"](
                    name="score", parameters={"classification": MESSAGES["InferParameter"](int64_param=3)}
                )
            ]
        ),
        "INVALID_ARGUMENT",
        "the output 'score' (parameters) has 'classification'; allowed: nothing",
    ),
    "a field that the protocol lacks": (
        request() + b"\xf8\x07\x01",
        "INVALID_ARGUMENT",
        "has 3 bytes of fields",
    ),
    "another version": (request(model_version="2"), "NOT_FOUND", "no version '2'"),
    "a message over the limit": (request(id="x" * 100_001), "RESOURCE_EXHAUSTED", "larger than max"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_call_is_refused_with_its_status_and_reason(infer, name):
    data, status, message = HOSTILE[name]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        infer(data)
    assert (refused.value.code().name, message in refused.value.details()) == (status, True), refused.value.details()


LONG = "\x01" * 50_000
TENSOR, OUTPUT = MESSAGES["InferInputTensor"], MESSAGES["InferRequestedOutputTensor"]
PARAMETER = {"a": MESSAGES["InferParameter"](bool_param=True)}
NAMES = {
    "a model": request(model_name=LONG),
    "an input": request(inputs=[TENSOR(name=LONG)], raw=[]),
    "a datatype": request(inputs=[TENSOR(name="user", datatype=LONG, shape=[1])], raw=[]),
    "a raw datatype": request(inputs=[TENSOR(name="user", datatype=LONG, shape=[1])], raw=[b""]),
    "an output": request(outputs=[OUTPUT(name=LONG)]),
    "an output with a parameter": request(outputs=[OUTPUT(name=LONG, parameters=PARAMETER)]),
    "a parameter": request(parameters={LONG: PARAMETER["a"]}),
    "a parameter of a sequence": request(parameters={"sequence_" + LONG: PARAMETER["a"]}),
}


@pytest.mark.parametrize("data", NAMES.values(), ids=NAMES)
def test_a_name_of_any_length_is_shortened(infer, data):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        infer(data)
    assert "\\x01\\x01" in refused.value.details()
    assert len(refused.value.details()) < 600


def test_many_small_numbers_are_refused_before_they_are_parsed(infer):
    """Packed, a number has one byte in a message and eight in an array."""
    data = request(
        typed=True, inputs=[TENSOR(name="user", contents=MESSAGES["InferTensorContents"](int64_contents=[1] * 60_000))]
    )
    with pytest.raises(grpc.aio.AioRpcError, match="has more than 4524 fields"):
        infer(data)


def test_bytes_that_are_no_health_request_are_refused_too(infer):
    with pytest.raises(grpc.aio.AioRpcError, match=r"not a valid inference\.ServerLiveRequest"):
        infer(b"\xff", "ServerLive")


def test_several_workers_share_the_port_and_a_port_that_is_anothers_is_named(runtime):
    async def both():
        first = GrpcServer(runtime, "127.0.0.1", 0, 100_000)
        await first.start()
        second = GrpcServer(runtime, "127.0.0.1", first.port, 100_000)
        await second.start()
        assert second.port == first.port
        await first.stop()
        await second.stop()
        listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        taken = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{taken} .* RIVERDELTA_GRPC_PORT"):
            GrpcServer(runtime, "127.0.0.1", taken, 100_000)
        listener.close()
        await listener.wait_closed()

    asyncio.run(both())


def test_feedback_of_which_every_item_is_refused_for_good_is_an_invalid_argument(infer):
    raw = [b"".join(len(text).to_bytes(4, "little") + text for text in (b"a.0", b"nonsense")), np.ones(2, np.float32).tobytes()]
    kinds = {"id": "BYTES", "label": "FP32"}
    inputs = [MESSAGES["InferInputTensor"](name=name, datatype=kind, shape=[2]) for name, kind in kinds.items()]
    with pytest.raises(grpc.RpcError) as error:
        infer(request(model_name="ranker-feedback", inputs=inputs, raw_input_contents=raw))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no item is accepted, and nothing is stored: 2 bad_id;" in error.value.details()


def test_feedback_that_is_put_off_is_unavailable_and_says_when_to_come_again(infer, runtime, monkeypatch):
    async def owed(*_):
        raise Unavailable("the process that scored these rows is alive and has not stored them")

    monkeypatch.setattr(runtime.plane, "store", owed)
    items = {"id": ("BYTES", b"\3\0\0\0a.0"), "label": ("FP32", np.ones(1, np.float32).tobytes())}
    inputs = [MESSAGES["InferInputTensor"](name=name, datatype=kind, shape=[1]) for name, (kind, _) in items.items()]
    with pytest.raises(grpc.RpcError) as error:
        infer(request(model_name="ranker-feedback", inputs=inputs, raw_input_contents=[raw for _, raw in items.values()]))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"


def test_a_connection_that_does_not_begin_the_protocol_is_closed(runtime, monkeypatch):
    monkeypatch.setattr(runtime.plane, "settings", runtime.plane.settings.model_copy(update={"receive_seconds": 0.2}))

    def stall(port):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"PRI")
            while connection.recv(1000):
                pass
        return True

    async def run():
        server = GrpcServer(runtime, "127.0.0.1", 0, 1 << 20)
        await server.start()
        closed = await asyncio.to_thread(stall, server.port)
        await server.stop()
        return closed

    assert asyncio.run(run())
