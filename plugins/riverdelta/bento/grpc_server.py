"""The gRPC server of each worker, on a port that all share: the Open Inference Protocol v2, health checks and reflection."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from functools import partial
from inspect import isawaitable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from riverdelta.bento.address import target
from riverdelta.bento.connections import room
from riverdelta.bento.endpoints import GRPC, HEALTH, REFLECTION, Endpoint
from riverdelta.bento.grpc_health import Health
from riverdelta.bento.guard import Interceptor, Policy, visit
from riverdelta.bento.http import MOST_OPTIONS
from riverdelta.bento.inference import HintedRequest
from riverdelta.bento.oip import Oip, Shaped
from riverdelta.bento.runtime import Runtime
from riverdelta.core.errors import ConfigurationError, InvalidInput, TooLarge, short
from riverdelta.core.strict import unknown, validated
from riverdelta.serving.oip.messages import MESSAGES, POOL, SERVICE, parse
from riverdelta.serving.oip.tensors import Tensor, from_bytes, from_list, refuse_another_size, to_bytes

_GRACE_SECONDS = 5.0
#: Limits of one connection; times in milliseconds. By default gRPC limits no streams, never pings, and ends the connection of a
#: client that pings more often than every 5 minutes ("too_many_pings").
_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # what closes the connection; `grpc.keepalive_timeout_ms` does not
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # A connection stays with one worker: when it is opened again, another may take it.
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
)
#: gRPC takes times in milliseconds, as an int32.
_MOST_SECONDS = 2e6
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


class GrpcServer:
    """A `grpc.aio` server on the worker's event loop, with the same data plane as REST."""

    def __init__(self, runtime: Runtime, host: str, port: int, max_bytes: int, policy: Policy | None = None) -> None:
        """Listen on `host:port`; `policy` is the worker's, by default a new one from the data plane's settings."""
        self._runtime, self._oip = runtime, Oip(runtime)
        self._health = Health(lambda: runtime.ready)
        options = [*_OPTIONS, ("grpc.max_receive_message_length", max_bytes)]
        # A client that connects and does not begin HTTP/2 must not take the files of others.
        options += [
            ("grpc.server_handshake_timeout_ms", int(1e3 * min(runtime.plane.settings.receive_seconds, _MOST_SECONDS))),
            ("grpc.max_allowed_incoming_connections", room() // 2),
        ]
        policy = policy or Policy(runtime).open(runtime.plane.settings)
        self._server = grpc.aio.server(options=options, interceptors=[Interceptor(policy)])
        for service, handlers in self._handlers().items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            self.port: int = self._server.add_insecure_port(target(host, port))
        except (RuntimeError, OSError) as error:
            raise ConfigurationError(
                f"gRPC cannot listen on {host}:{port} ({error}); set RIVERDELTA_GRPC_PORT, or grpc_port= of @online"
            ) from None

    async def start(self) -> None:
        """Begin to take calls."""
        await self._server.start()

    async def stop(self) -> None:
        """Report that no calls are taken, and wait for those in flight, at most 5 seconds."""
        self._health.stop()
        await self._server.stop(_GRACE_SECONDS)

    def _handlers(self) -> dict[str, dict[str, Any]]:
        """Return the handlers of methods by service and name."""
        oip = self._oip
        methods: dict[str, Callable[..., Any]] = {  # by `Endpoint.name`
            "ServerLive": lambda request: {"live": True},
            "ServerReady": lambda request: {"ready": self._runtime.ready},
            "ModelReady": lambda request: {"ready": bool(oip.model(request.name, request.version)) and self._runtime.ready},
            "ServerMetadata": lambda request: oip.server(),
            "ModelMetadata": lambda request: oip.model(request.name, request.version),
            "ModelInfer": self._infer,
            "ModelConfig": lambda request: {"config": oip.config(request.name, request.version)},
            "ModelStatistics": lambda request: oip.statistics(request.name, request.version),
            "RepositoryIndex": lambda request: {"models": oip.index(request.ready)},
            "Check": self._health.check,
            "Watch": self._health.watch,
            "ServerReflectionInfo": reflection.aio.ReflectionServicer((SERVICE, HEALTH, REFLECTION), POOL).ServerReflectionInfo,
        }
        handlers: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in GRPC.values():
            answer, kind = self._answering(row, methods[row.name]), grpc.unary_unary_rpc_method_handler
            if row.name == "Watch":
                answer, kind = self._watching(row, methods[row.name]), grpc.unary_stream_rpc_method_handler
            elif row.name == "ServerReflectionInfo":
                answer, kind = self._reflecting(row, methods[row.name]), grpc.stream_stream_rpc_method_handler
            made = kind(answer, response_serializer=row.gives.SerializeToString)
            handlers[row.path.split("/")[1]][row.name] = made
        return handlers

    def _answering(self, row: Endpoint, method: Callable[..., Any]) -> Callable[[bytes, Any], Any]:
        async def answer(data: bytes, context: Any) -> Any:
            request = await self._parsed(row, data)
            made = method(request, len(data)) if method == self._infer else method(request)
            return row.gives(**(await made if isawaitable(made) else made))

        return answer

    def _watching(self, row: Endpoint, method: Callable[[Any], AsyncIterator[Any]]) -> Callable[[bytes, Any], Any]:
        async def answer(data: bytes, context: Any) -> AsyncIterator[Any]:
            async for made in method(await self._parsed(row, data)):
                yield row.gives(**made)

        return answer

    def _reflecting(self, row: Endpoint, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., Any]:
        async def parsed(messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            first = True
            async for data in messages:
                if not first:  # the first was counted when it was admitted
                    visit().again()
                first = False
                yield await self._parsed(row, data)

        return lambda messages, context: method(parsed(messages), context)

    async def _parsed(self, row: Endpoint, data: bytes) -> Any:
        if row.name != "ModelInfer" and len(data) > MOST_OPTIONS:
            raise TooLarge(f"the request of {row.name} has {len(data)} bytes; at most {MOST_OPTIONS} are accepted")
        # Parsed here: gRPC would report bytes that cannot be parsed as a server error.
        return await self._runtime.read(len(data), parse, row.takes, data, self._runtime.sizes.values)

    async def _infer(self, request: Any, size: int) -> dict[str, Any]:
        model = self._oip.permit(request.model_name, request.model_version)
        tensors = await self._runtime.read(size, _read, request, partial(self._oip.expect, model))
        wanted = [output.name for output in request.outputs]
        made = await self._oip.infer("grpc", model, tensors, wanted, size)
        output = MESSAGES["InferOutputTensor"]
        return {
            "model_name": request.model_name,
            "model_version": "1",
            "id": request.id,
            "outputs": [output(name=t.name, datatype=t.datatype, shape=t.data.shape) for t in made],
            "raw_output_contents": [to_bytes(t) for t in made],
        }


def _parameters(entry: Any) -> dict[str, Any]:
    """Return the parameters of a message that have a value."""
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in entry.parameters.items()}
    return {name: getattr(entry.parameters[name], choice) for name, choice in chosen.items() if choice is not None}


def _read(request: Any, expect: Callable[[list[Shaped]], None]) -> list[Tensor]:
    validated(HintedRequest, {"parameters": _parameters(request)}, "the request")
    expect([(entry.name, entry.datatype, entry.shape) for entry in request.inputs])
    for what, entry in (*(("input", i) for i in request.inputs), *(("output", o) for o in request.outputs)):
        if given := _parameters(entry):
            # The protocol's parameters of tensors concern binary data after JSON, which gRPC does not have.
            raise unknown(next(iter(given)), (), f"the {what} {short(entry.name)} (parameters)")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs; expected one per input, or none")
    tensors = []
    for i, entry in enumerate(request.inputs):
        shape, filled = list(entry.shape), [field.name for field, _ in entry.contents.ListFields()]
        if raw:
            if filled:
                raise InvalidInput(f"input {entry.name!r} has {filled[0]} and raw_input_contents; expected one of the two")
            tensors.append(from_bytes(entry.name, entry.datatype, shape, raw[i]))
        elif entry.datatype not in _CONTENTS:
            raise InvalidInput(f"input {entry.name!r} of datatype {short(entry.datatype)} needs raw_input_contents")
        else:
            if other := [name for name in filled if name != _CONTENTS[entry.datatype]]:
                raise InvalidInput(
                    f"input {entry.name!r} of datatype {entry.datatype} has {other[0]}; expected {_CONTENTS[entry.datatype]}"
                )
            data = getattr(entry.contents, _CONTENTS[entry.datatype])
            refuse_another_size(entry.name, len(data), math.prod(shape))
            tensors.append(from_list(entry.name, entry.datatype, shape, list(data)))
    return tensors
