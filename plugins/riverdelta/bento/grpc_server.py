"""The gRPC server of each worker: the Open Inference Protocol v2, on a port that all workers share."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any

import grpc

from riverdelta.bento.address import target
from riverdelta.bento.connections import room
from riverdelta.bento.endpoints import GRPC, Endpoint
from riverdelta.bento.guard import Interceptor, Policy
from riverdelta.bento.oip import Oip, Shaped
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.schemas import HintedRequest
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.strict import unknown, validated
from riverdelta.serving.oip.messages import MESSAGES, SERVICE, parse
from riverdelta.serving.oip.tensors import Tensor, from_bytes, from_list, refuse_another_size, to_bytes

_GRACE_SECONDS = 5.0
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
        options = [("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", max_bytes)]
        # A client that connects and does not begin HTTP/2 must not take the files of others.
        options += [
            ("grpc.server_handshake_timeout_ms", int(1e3 * min(runtime.plane.settings.receive_seconds, _MOST_SECONDS))),
            ("grpc.max_allowed_incoming_connections", room() // 2),
        ]
        policy = policy or Policy(runtime).open(runtime.plane.settings)
        self._server = grpc.aio.server(options=options, interceptors=[Interceptor(policy)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
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
        """Wait for calls in flight, at most 5 seconds."""
        await self._server.stop(_GRACE_SECONDS)

    def _handlers(self) -> dict[str, Any]:
        oip = self._oip
        methods: dict[str, Callable[[Any], Any]] = {  # by `Endpoint.name`
            "ServerLive": lambda request: {"live": True},
            "ServerReady": lambda request: {"ready": self._runtime.ready},
            "ModelReady": lambda request: {"ready": bool(oip.model(request.name, request.version))},
            "ServerMetadata": lambda request: oip.server(),
            "ModelMetadata": lambda request: oip.model(request.name, request.version),
            "ModelInfer": self._infer,
        }
        return {
            row.name: grpc.unary_unary_rpc_method_handler(
                self._answering(row, methods[row.name]), response_serializer=row.gives.SerializeToString
            )
            for row in GRPC.values()
        }

    def _answering(self, row: Endpoint, method: Callable[[Any], Any]) -> Callable[[bytes, Any], Awaitable[Any]]:
        runtime = self._runtime

        async def answer(data: bytes, context: Any) -> Any:
            # Parsed here: gRPC would report bytes that cannot be parsed as a server error.
            most = runtime.sizes.values if runtime.ready else None
            made = method(await runtime.read(len(data), parse, row.takes, data, most))
            return row.gives(**(await made if isawaitable(made) else made))

        return answer

    async def _infer(self, request: Any) -> dict[str, Any]:
        self._oip.permit(request.model_name)
        size, expect = request.ByteSize(), partial(self._oip.expect, request.model_name, request.model_version)
        tensors = await self._runtime.read(size, _read, request, expect)
        wanted = [output.name for output in request.outputs]
        made = await self._oip.infer("grpc", request.model_name, request.model_version, tensors, wanted, size)
        output = MESSAGES["InferOutputTensor"]
        return {
            "model_name": request.model_name,
            "model_version": "1",
            "id": request.id,
            "outputs": [output(name=t.name, datatype=t.datatype, shape=t.data.shape) for t in made],
            "raw_output_contents": [to_bytes(t) for t in made],
        }


def _read(request: Any, expect: Callable[[list[Shaped]], None]) -> list[Tensor]:
    given = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in request.parameters.items()
    }
    validated(HintedRequest, {"parameters": given}, "the request")
    expect([(entry.name, entry.datatype, entry.shape) for entry in request.inputs])
    for what, entry in (*(("input", i) for i in request.inputs), *(("output", o) for o in request.outputs)):
        if entry.parameters:
            # The protocol's parameters of tensors concern binary data after JSON, which gRPC does not have.
            raise unknown(next(iter(entry.parameters)), (), f"the {what} {entry.name!r} (parameters)")
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
            raise InvalidInput(f"input {entry.name!r} of datatype {entry.datatype!r} needs raw_input_contents")
        else:
            if other := [name for name in filled if name != _CONTENTS[entry.datatype]]:
                raise InvalidInput(
                    f"input {entry.name!r} of datatype {entry.datatype} has {other[0]}; expected {_CONTENTS[entry.datatype]}"
                )
            data = getattr(entry.contents, _CONTENTS[entry.datatype])
            refuse_another_size(entry.name, len(data), math.prod(shape))
            tensors.append(from_list(entry.name, entry.datatype, shape, list(data)))
    return tensors
