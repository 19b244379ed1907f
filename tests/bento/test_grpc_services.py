"""gRPC's own services, spoken by their libraries' clients: health checks and reflection; and the limits of a connection."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2

from riverdelta.bento import grpc_health, grpc_server
from riverdelta.bento.access import Role
from riverdelta.bento.endpoints import GRPC, HEALTH, REFLECTION
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Policy
from riverdelta.core.settings import Settings
from riverdelta.serving.oip.messages import SERVICE

SERVING, NOT_SERVING, UNKNOWN = (
    getattr(health_pb2.HealthCheckResponse, name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)
GRPC_PATHS = {row.name: row.path for row in GRPC.values()}
TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}


@asynccontextmanager
async def served(runtime, clock=time.monotonic, **given):
    """`given` are settings, or the tokens of roles."""
    named = {f"{name}_tokens" if name in TOKENS else name: value for name, value in given.items()}
    policy = Policy(runtime).open(Settings(**named), clock)
    server = GrpcServer(runtime, "127.0.0.1", 0, 100_000, policy)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, channel
    await server.stop()


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_is_serving_until_the_server_stops_and_a_watch_ends_then(runtime, service):
    async def watched():
        async with served(runtime) as (server, channel):
            stub, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service=service)
            watch = stub.Watch(asked)
            seen = [(await stub.Check(asked)).status, (await watch.read()).status]
            await server.stop()
            return [*seen, (await watch.read()).status, await watch.read(), await watch.code()]

    assert asyncio.run(watched()) == [SERVING, SERVING, NOT_SERVING, grpc.aio.EOF, grpc.StatusCode.OK]


def test_a_worker_has_only_so_many_watches(runtime, monkeypatch):
    monkeypatch.setattr(grpc_health, "_MOST_WATCHES", 2)

    async def watched():
        async with served(runtime) as (_, channel):
            stub, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            kept = [stub.Watch(asked) for _ in range(2)]
            for watch in kept:
                await watch.read()
            refused = await stub.Watch(asked).code()
            kept[0].cancel()
            while await (again := stub.Watch(asked)).read() is grpc.aio.EOF:  # until the server has seen the end of the first
                pass
            return refused, again.done()

    assert asyncio.run(watched()) == (grpc.StatusCode.UNAVAILABLE, False)


def test_a_service_that_does_not_exist_is_not_found_and_its_watch_says_unknown(runtime):
    async def asked():
        async with served(runtime) as (_, channel):
            stub, named = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service="ranker")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Check(named)
            return refused.value, (await stub.Watch(named).read()).status

    error, status = asyncio.run(asked())
    assert (error.code().name, status) == ("NOT_FOUND", UNKNOWN)
    assert f"there is no service 'ranker'; expected {SERVICE}" in error.details()


def test_health_is_open_and_reflection_asks_for_any_token(runtime):
    async def asked():
        async with served(runtime, **TOKENS) as (_, channel):
            health = health_pb2_grpc.HealthStub(channel)
            found = [(await health.Check(health_pb2.HealthCheckRequest())).status]
            found += [(await health.Watch(health_pb2.HealthCheckRequest()).read()).status]
            reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
            for token in (None, *TOKENS.values()):
                metadata = () if token is None else (("authorization", f"Bearer {token}"),)
                call = reflection.ServerReflectionInfo(
                    iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata
                )
                try:
                    found.append([service.name for service in (await call.read()).list_services_response.service])
                except grpc.aio.AioRpcError as error:
                    found.append(error.code().name)
        return found

    services = [HEALTH, REFLECTION, SERVICE]
    assert asyncio.run(asked()) == [SERVING, SERVING, "UNAUTHENTICATED", services, services, services]


def test_reflection_describes_every_method_as_tritons_client_knows_it(runtime):
    async def described():
        async with served(runtime) as (_, channel):
            asked = [
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in (SERVICE, HEALTH, REFLECTION)
            ]
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))
            return [file async for answer in call for file in answer.file_descriptor_response.file_descriptor_proto]

    pool = descriptor_pool.DescriptorPool()
    for file in asyncio.run(described()):
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
    ours, theirs = pool.FindServiceByName(SERVICE), service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name for method in ours.methods} >= {"ModelInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex"}
    for method in ours.methods:
        other = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name


HOSTILE = {
    "bytes that are no message": (b"\xff\xff", "INVALID_ARGUMENT", "not a valid grpc."),
    "text that is not UTF-8": (b"\x0a\x02\xff\xff\x22\x02\xff\xff", "INVALID_ARGUMENT", "not a valid grpc."),
    "a long name": (b"\x0a\xd0\x86\x03" + b"\x01" * 50_000, "RESOURCE_EXHAUSTED", "at most 8192 are accepted"),
}


@pytest.mark.parametrize(("sent", "code", "said"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("method", ["Check", "Watch", "ServerReflectionInfo"])
def test_what_is_no_request_is_refused_as_such(runtime, caplog, method, sent, code, said):
    async def asked():
        async with served(runtime) as (_, channel):
            path = GRPC_PATHS[method]
            if method == "Check":
                call = channel.unary_unary(path)(sent)
            elif method == "Watch":
                call = channel.unary_stream(path)(sent)
            else:
                call = channel.stream_stream(path)(iter([sent]))
            return (await call.code()).name, await call.details()

    found, details = asyncio.run(asked())
    assert (found, said in details, caplog.records) == (code, True, [])


def test_a_service_s_name_is_shortened(runtime):
    async def asked():
        async with served(runtime) as (_, channel):
            call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="\x01" * 8_000))
            return await call.code(), len(await call.details())

    code, length = asyncio.run(asked())
    assert (code.name, length < 250) == ("NOT_FOUND", True)


def test_each_message_of_a_stream_counts_against_the_rate_limit(runtime):
    async def asked():
        async with served(runtime, clock=lambda: 0.0, requests_per_second=3.0) as (_, channel):
            messages = [reflection_pb2.ServerReflectionRequest(list_services="") for _ in range(5)]
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(messages))
            answers = 0
            with suppress(grpc.aio.AioRpcError):
                while await call.read() is not grpc.aio.EOF:
                    answers += 1
            return answers, (await call.code()).name

    answers, code = asyncio.run(asked())
    assert (answers, code) == (3, "RESOURCE_EXHAUSTED")


def test_one_connection_has_at_most_256_calls_at_a_time_and_another_is_not_held_up(runtime):
    async def crowded():
        async with served(runtime) as (server, channel):
            stub, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            watches = [stub.Watch(asked) for _ in range(256)]
            for watch in watches:
                await watch.read()
            waiting = asyncio.ensure_future(stub.Check(asked).code())
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as another:
                await health_pb2_grpc.HealthStub(another).Check(asked)
            held_up = not waiting.done()
            watches[0].cancel()
            return held_up, await waiting

    assert asyncio.run(crowded()) == (True, grpc.StatusCode.OK)


def hurried(options, **times):
    """Return the options of the server with other times, in milliseconds."""
    assert {f"grpc.{name}" for name in times} <= dict(options).keys()
    return tuple((name, times.get(name.removeprefix("grpc."), value)) for name, value in options)


class Peer:
    """A client that speaks HTTP/2 in frames, and answers none of the server's pings."""

    def __init__(self, port):
        self._port = port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS))
        return self

    async def __aexit__(self, *exception):
        self._writer.close()

    async def ping(self, number):
        self._writer.write(frame(PING, number.to_bytes(8)))
        await self._writer.drain()

    async def frames(self):
        """Yield the type, the flags and the payload of each frame until the server closes the connection."""
        while True:
            try:
                head = await self._reader.readexactly(9)
                yield head[3], head[4], await self._reader.readexactly(int.from_bytes(head[:3]))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return


SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1


def frame(kind, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, 0]) + bytes(4) + payload


def test_a_connection_whose_client_answers_no_ping_is_closed(runtime, monkeypatch):
    monkeypatch.setattr(
        grpc_server, "_OPTIONS", hurried(grpc_server._OPTIONS, **{"keepalive_time_ms": 100, "http2.ping_timeout_ms": 100})
    )

    async def silent():
        async with served(runtime) as (server, _), Peer(server.port) as peer:
            return [(kind, flags) async for kind, flags, _ in peer.frames()]

    found = asyncio.run(asyncio.wait_for(silent(), 60))
    assert (PING, 0) in found


def test_a_client_that_pings_often_keeps_its_connection(runtime):
    async def pinging():
        async with served(runtime) as (server, _), Peer(server.port) as peer:
            answered = []
            # Without the options, the third ping ends the connection: too_many_pings.
            for number in range(2):
                await peer.ping(number)
                async for kind, flags, payload in peer.frames():
                    assert kind != GOAWAY, payload
                    if (kind, flags) == (PING, ACK):
                        answered.append(int.from_bytes(payload))
                        break
            return answered

    assert asyncio.run(asyncio.wait_for(pinging(), 60)) == [0, 1]


def test_an_old_connection_is_ended_and_the_client_opens_another_without_an_error(runtime, monkeypatch):
    ages = {"max_connection_age_ms": 100, "max_connection_age_grace_ms": 60_000}
    monkeypatch.setattr(grpc_server, "_OPTIONS", hurried(grpc_server._OPTIONS, **ages))

    async def long_lived():
        async with served(runtime) as (server, channel), Peer(server.port) as peer:
            stub, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            watch, found = stub.Watch(asked), []
            found.append((await watch.read()).status)
            told = await anext(payload async for kind, _, payload in peer.frames() if kind == GOAWAY)
            # The call in flight stays, and the next one goes out on a connection of its own.
            found.append((await stub.Check(asked)).status)
            watch.cancel()
            return found, told

    found, told = asyncio.run(asyncio.wait_for(long_lived(), 60))
    assert found == [SERVING, SERVING]
    assert b"max_age" in told
