"""gRPC's own services, spoken by their libraries' clients: health checks and reflection; and the limits of a connection."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2

from riverdelta.bento.access import Role
from riverdelta.bento.endpoints import HEALTH, REFLECTION
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Policy
from riverdelta.core.settings import Settings
from riverdelta.serving.oip.messages import SERVICE

SERVING, NOT_SERVING, UNKNOWN = (
    getattr(health_pb2.HealthCheckResponse, name) for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)
TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}


@asynccontextmanager
async def served(runtime, **tokens):
    policy = Policy(runtime).open(Settings(**{f"{role}_tokens": token for role, token in tokens.items()}))
    server = GrpcServer(runtime, "127.0.0.1", 0, 100_000, policy)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, channel
    await server.stop()


class Switch:
    """A runtime whose readiness a test changes."""

    def __init__(self, runtime):
        self._runtime, self.ready = runtime, True

    def __getattr__(self, name):
        return getattr(self._runtime, name)


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_follows_readiness_and_a_watch_ends_when_the_server_stops(runtime, service):
    async def watched():
        switch = Switch(runtime)
        async with served(switch) as (server, channel):
            stub, asked = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service=service)
            watch = stub.Watch(asked)
            seen = [(await stub.Check(asked)).status, (await watch.read()).status]
            switch.ready = False
            seen += [(await watch.read()).status, (await stub.Check(asked)).status]
            switch.ready = True
            seen += [(await watch.read()).status]
            await server.stop()
            seen += [(await watch.read()).status, await watch.read(), await watch.code()]
        return seen

    ended = [NOT_SERVING, grpc.aio.EOF, grpc.StatusCode.OK]
    assert asyncio.run(watched()) == [SERVING, SERVING, NOT_SERVING, NOT_SERVING, SERVING, *ended]


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


def test_bytes_that_are_no_health_request_are_refused_as_such(runtime):
    async def asked():
        async with served(runtime) as (_, channel):
            for kind, method in ((channel.unary_unary, "Check"), (channel.unary_stream, "Watch")):
                call = kind(f"/{HEALTH}/{method}")(b"\xff")
                yield await call.code(), await call.details()

    async def all_of_them():
        return [one async for one in asked()]

    for code, details in asyncio.run(all_of_them()):
        assert (code.name, "not a valid grpc.health.v1.HealthCheckRequest" in details) == ("INVALID_ARGUMENT", True)


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
