"""The guard: every route and every method passes it, and what nobody mapped is closed."""

import asyncio
import re

import grpc
import httpx
import numpy as np
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from riverdelta.bento import oip_rest, rest
from riverdelta.bento.access import ADMIN, Role
from riverdelta.bento.endpoints import TABLE, Endpoint
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard, Policy, refuse_unguarded
from riverdelta.bento.http import application
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import id64
from riverdelta.core.settings import Settings
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}
GUARDED = {f"{role}_tokens": token for role, token in TOKENS.items()}
COLUMNS = {"user": [1, 2], "x": [0.5, 1], "shop": [0, 1]}
TENSORS = [
    {"name": "user", "datatype": "INT64", "shape": [2], "data": [1, 2]},
    {"name": "x", "datatype": "FP32", "shape": [2], "data": [0.5, 1]},
    {"name": "shop", "datatype": "FP32", "shape": [2], "data": [0, 1]},
]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ask(runtime, clock):
    """ask(method, path, role or token, server address, settings): one request through a guard of its own."""

    def build(policy):
        async def page(request):
            return PlainTextResponse("a page")

        extra = [Route(path, page) for path in ("/", "/metrics", "/livez", "/nobody/mapped", "/admin/anything")]
        return Guard(application([*rest.routes(runtime), *oip_rest.routes(runtime), *extra]), policy)

    guards = {}

    def call(method, path, token=None, base="http://127.0.0.1", given=GUARDED, **body):
        key = tuple(sorted(given.items()))
        app = guards.setdefault(key, build(Policy(runtime).open(Settings(**given), clock)))
        headers = {"Authorization": f"Bearer {TOKENS.get(token, token)}"} if token else {}

        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base) as client:
                return await client.request(method, path, headers=headers, **body)

        return asyncio.run(one())

    return call


PATHS = {
    ("POST", "/score"): Role.SCORE,
    ("POST", "/feedback"): Role.FEEDBACK,
    ("POST", "/v2/models/ranker/infer"): Role.SCORE,
    ("POST", "/v2/models/ranker/versions/1/infer"): Role.SCORE,
    ("POST", "/v2/models/ranker-feedback/infer"): Role.FEEDBACK,
    ("POST", "/v2/models/ranker%2Dfeedback/versions/1/infer"): Role.FEEDBACK,
    ("GET", "/nobody/mapped"): Role.ADMIN,
    ("GET", "/admin/anything"): Role.ADMIN,
    ("GET", "/not/there"): Role.ADMIN,
    ("OPTIONS", "/score"): Role.ADMIN,
    ("PUT", "/score"): Role.ADMIN,
    ("POST", "/score/"): Role.ADMIN,
    ("POST", "//score"): Role.ADMIN,
    ("POST", "/score%0A"): Role.ADMIN,
    ("GET", "/livez/"): Role.ADMIN,
}


def test_a_path_of_the_protocol_that_does_not_exist_is_so_for_any_token(ask):
    for method, path, status in (
        ("GET", "/v2/logging", 404),
        ("POST", "/v2/repository/models/ranker/load", 404),
        ("GET", "/v2/models/ranker/infer", 405),
        ("POST", "/v2/health/live", 405),
    ):
        assert ask(method, path).status_code == ask(method, path, "some-other-token-of-the-shop").status_code == 401
        for role in Role:
            answer = ask(method, path, role)
            assert (answer.status_code, "does not exist" in answer.json()["error"]) == (status, True), path


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_a_path_is_open_to_its_role_and_to_admin_alone(ask, method, path):
    without = ask(method, path)
    assert without.status_code == 401
    assert without.headers["WWW-Authenticate"] == "Bearer"
    assert ask(method, path, "some-other-token-of-the-shop").status_code == 401
    for role in Role:
        let_in = role in (Role.ADMIN, PATHS[method, path])
        assert (ask(method, path, role).status_code not in (401, 403)) == let_in, role


@pytest.mark.parametrize("path", ["/", "/metrics", "/status", "/v2", "/v2/models/ranker", "/v2/models/ranker/ready"])
def test_reading_takes_any_token_and_not_none(ask, path):
    for method in ("GET", "HEAD"):
        assert ask(method, path).status_code == 401
        assert [ask(method, path, role).status_code for role in Role] == [200] * 3


@pytest.mark.parametrize("path", ["/livez", "/v2/health/live", "/v2/health/ready"])
def test_probes_need_no_token_even_from_other_addresses(ask, path):
    assert ask("GET", path).status_code == 200
    assert ask("GET", path, given={}, base="http://10.0.0.7").status_code == 200


def test_without_tokens_loopback_is_open_and_every_other_address_closed(ask):
    assert ask("POST", "/score", given={}, json={"columns": COLUMNS}).status_code == 200
    answer = ask("POST", "/score", given={}, base="http://10.0.0.7", json={"columns": COLUMNS})
    assert answer.status_code == 401
    assert "RIVERDELTA_SCORE_TOKENS" in answer.text


def test_a_refusal_by_the_protocol_s_paths_has_the_protocol_s_body(ask):
    assert ask("GET", "/v2").json() == {"error": "the request has no Authorization headers; expected Bearer <token>"}
    assert ask("GET", "/status").json()["error"]["type"] == "Unauthenticated"


def test_a_forbidden_request_names_the_role_and_no_token(ask):
    answer = ask("POST", "/v2/models/ranker-feedback/infer", Role.SCORE, json={"inputs": []})
    assert answer.status_code == 403
    assert "needs a token of the role admin or feedback; this one has score" in answer.json()["error"]
    assert "of-the-shop" not in answer.text


def test_all_that_score_and_feedback_need_passes_with_their_tokens(ask):
    scored = ask("POST", "/score", Role.SCORE, json={"columns": COLUMNS}).json()
    items = [{"id": f"{scored['impressions']}.{i}", "label": 1} for i in range(2)]
    answer = ask("POST", "/feedback", Role.FEEDBACK, json={"items": items})
    assert answer.json()["outcomes"] == ["accepted", "accepted"]


def test_feedback_carries_who_sent_it(ask, runtime):
    def sources(token, given):
        name = ask("POST", "/score", given={}, json={"columns": COLUMNS}).json()["impressions"]
        before = runtime.plane.journal.last()
        ask("POST", "/feedback", token, given=given, json=[{"id": f"{name}.0", "label": 1}])
        tensors = [
            {"name": "id", "datatype": "BYTES", "shape": [1], "data": [f"{name}.1"]},
            {"name": "label", "datatype": "FP32", "shape": [1], "data": [1]},
        ]
        ask("POST", "/v2/models/ranker-feedback/infer", token, given=given, json={"inputs": tensors})
        records = [r for _, r in runtime.plane.journal.read(before, 100) if r.kind == "feedback"]
        return np.concatenate([r.source for r in records]).tolist()

    first, second = sources(Role.FEEDBACK, GUARDED)
    assert first == second
    assert sources(Role.ADMIN, GUARDED)[0] not in (0, first)
    assert sources(None, {}) == [id64("127.0.0.1")] * 2


def test_requests_over_the_limit_wait_and_probes_never_do(ask, clock):
    given = {**GUARDED, "requests_per_second": 2}
    statuses = [ask("GET", "/status", Role.SCORE, given=given).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    answer = ask("GET", "/status", Role.SCORE, given=given)
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["error"]["type"] == "RateLimited"
    assert ask("GET", "/status", Role.ADMIN, given=given).status_code == 200
    assert [ask("GET", "/livez", Role.SCORE, given=given).status_code for _ in range(5)] == [200] * 5
    clock.now = 1.0
    assert ask("GET", "/status", Role.SCORE, given=given).status_code == 200


@pytest.mark.parametrize(("path", "body"), [("/score", {"columns": COLUMNS}), ("/v2/models/ranker/infer", {"inputs": TENSORS})])
def test_rows_over_the_limit_wait_too(ask, path, body):
    given = {**GUARDED, "rows_per_second": 3}
    assert [ask("POST", path, Role.SCORE, given=given, json=body).status_code for _ in range(2)] == [200, 429]
    five = {"columns": {name: [1] * 5 for name in COLUMNS}}
    answer = ask("POST", "/score", Role.SCORE, given=given, json=five)
    assert answer.status_code == 413
    assert "at most 3 a second" in answer.text


def test_items_of_feedback_count_as_rows(ask):
    given = {**GUARDED, "rows_per_second": 3}
    items = [{"id": "a.0", "label": 1}] * 2
    assert [ask("POST", "/feedback", Role.FEEDBACK, given=given, json=items).status_code for _ in range(2)] == [422, 429]


def test_refusals_are_counted_by_their_endpoint(ask, registry):
    def count():
        labels = {"model": "ranker", "transport": "rest", "endpoint": "feedback", "outcome": "invalid"}
        return registry.get_sample_value("riverdelta_requests_total", labels) or 0

    before = count()
    ask("POST", "/feedback")
    assert count() == before + 1


def test_a_policy_that_is_not_open_lets_nobody_in():
    policy = Policy()

    async def never(scope, receive, send):
        raise AssertionError("let in")

    async def one():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(Guard(never, policy)), base_url="http://127.0.0.1"
        ) as client:
            return await client.post("/score")

    assert asyncio.run(one()).status_code == 503


def test_slow_answers_are_bounded_together_and_others_are_not(runtime, registry):
    """None of their connections can be closed for a new one."""
    policy, release = Policy(runtime).open(Settings()), asyncio.Event()

    async def waits(request):
        await release.wait()
        return PlainTextResponse("ok")

    slow = ["/static_content/swagger-ui-bundle.js", "/admin/export", "/assets/a/b.css", "/admin/releases"]
    app = Guard(application([Route(path, waits) for path in slow] + oip_rest.routes(runtime)), policy)

    async def crowded():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            held = [asyncio.create_task(client.get(slow[i % len(slow)])) for i in range(16)]
            while policy._slow < 16:
                await asyncio.sleep(0)
            refused = [await client.get(path) for path in slow]
            others = [(await client.get(path)).status_code for path in ("/v2", "/v2/health/live")]
            held[0].cancel()
            release.set()
            answered = [(await task).status_code for task in held[1:]]
            return refused, others, answered, (await client.get(slow[0])).status_code

    refused, others, answered, after = asyncio.run(crowded())
    assert [r.status_code for r in refused] == [503] * 4
    assert all(r.headers["retry-after"] for r in refused)
    assert (others, answered, after, policy._slow) == ([200, 200], [200] * 15, 200, 0)


def test_a_call_that_its_client_cancels_is_counted(runtime, registry, monkeypatch):
    begun = asyncio.Event()

    async def never(self, *given):
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr("riverdelta.bento.oip.Oip.infer", never)
    labels = {"model": "ranker", "transport": "grpc", "endpoint": "score", "outcome": "invalid"}

    def counted():
        return registry.get_sample_value("riverdelta_requests_total", labels) or 0.0

    async def cancelled():
        server = GrpcServer(runtime, "127.0.0.1", 0, 100_000)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            request = MESSAGES["ModelInferRequest"](model_name="ranker").SerializeToString()
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(request)
            await begun.wait()
            call.cancel()
            before = counted()
            while counted() == before:
                await asyncio.sleep(0.01)
        await server.stop()

    before = counted()
    asyncio.run(asyncio.wait_for(cancelled(), 20))
    assert counted() == before + 1


def test_a_websocket_is_closed_before_it_opens():
    async def never(scope, receive, send):
        raise AssertionError("let in")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/score", "headers": [], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    asyncio.run(Guard(never, Policy().open(Settings(**GUARDED)))(scope, None, send))
    assert [m["type"] for m in sent] == ["websocket.close"]


def test_a_prefix_of_the_service_is_taken_off_once(ask):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])
        await PlainTextResponse("")(scope, receive, send)

    guard = Guard(app, Policy().open(Settings(**GUARDED)), "/shop")

    async def one(path):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://127.0.0.1") as client:
            return (await client.get(path)).status_code

    assert [asyncio.run(one(path)) for path in ("/shop/livez", "/shop/status", "/shop/shop/livez")] == [200, 401, 401]
    assert seen == ["/shop/livez"]


def test_the_sidecar_s_shell_answers_probes_alone():
    from service.service import Ranker

    app = Ranker.dependencies["riverdelta_sidecar"].on.to_asgi(is_main=False)
    assert app.user_middleware[0].cls is Guard
    assert app.user_middleware[0].kwargs["policy"]._access is None


def test_an_application_without_its_guard_does_not_start():
    with pytest.raises(ConfigurationError, match="without its guard"):
        refuse_unguarded(Policy())


@pytest.fixture
def rpc(runtime):
    """rpc(method, bytes, metadata, settings): the answer of a gRPC server of its own, or its error."""

    def call(method, data=b"", metadata=(), given=GUARDED, times=1):
        async def one():
            server = GrpcServer(runtime, "127.0.0.1", 0, 100_000, Policy(runtime).open(Settings(**given)))
            await server.start()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                for _ in range(times):
                    try:
                        answer = await channel.unary_unary(f"/{SERVICE}/{method}")(data, metadata=metadata)
                    except grpc.aio.AioRpcError as error:
                        answer = error
                await server.stop()
            return answer

        return asyncio.run(one())

    return call


def bearer(role):
    return (("authorization", f"Bearer {TOKENS[role]}"),)


def code(answer):
    return answer.code().name if isinstance(answer, grpc.aio.AioRpcError) else "OK"


def infer(model):
    return MESSAGES["ModelInferRequest"](model_name=model).SerializeToString()


def test_every_grpc_method_asks_for_a_token_but_the_probes(rpc):
    methods = {name.removesuffix("Request") for name in MESSAGES if name.endswith("Request")}
    for method in methods:
        expected = "OK" if method in ("ServerLive", "ServerReady") else "UNAUTHENTICATED"
        assert code(rpc(method)) == expected, method
    assert code(rpc("ServerMetadata", metadata=bearer(Role.FEEDBACK))) == "OK"
    assert code(rpc("ServerMetadata", metadata=(("authorization", "Bearer some-other-token"),))) == "UNAUTHENTICATED"


def test_a_grpc_method_that_does_not_exist_is_unimplemented_for_any_token(rpc):
    assert code(rpc("Shutdown")) == "UNAUTHENTICATED"
    for role in Role:
        assert code(rpc("Shutdown", metadata=bearer(role))) == "UNIMPLEMENTED"


@pytest.mark.parametrize(("model", "own", "other"), [("ranker", "score", "feedback"), ("ranker-feedback", "feedback", "score")])
def test_over_grpc_the_role_is_that_of_the_model_in_the_message(rpc, model, own, other):
    assert code(rpc("ModelInfer", infer(model), bearer(Role(other)))) == "PERMISSION_DENIED"
    for role in (Role(own), Role.ADMIN):
        assert code(rpc("ModelInfer", infer(model), bearer(role))) == "INVALID_ARGUMENT"  # let in, and has no inputs


def test_over_grpc_too_the_limit_says_when_to_come_again(rpc):
    given = {**GUARDED, "requests_per_second": 0.001}
    answer = rpc("ServerMetadata", metadata=bearer(Role.SCORE), given=given, times=2)
    assert code(answer) == "RESOURCE_EXHAUSTED"
    assert int(dict(answer.trailing_metadata())["grpc-retry-pushback-ms"]) > 900_000
    assert code(rpc("ServerReady", given=given, times=5)) == "OK"


def requested(settings, row, **given):
    """The status of a request for a row of the table with these headers."""
    path = re.sub(r"\{[^}]*\}", "a", row.path)
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": row.method, "path": path, "headers": headers, "query_string": b""}
    scope |= {"client": ("127.0.0.1", 5001), "server": ("127.0.0.1", 3000)}
    sent = []

    async def passed(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(passed, Policy().open(settings))(scope, None, send))
    return sent[0]["status"]


HTTP = [row for row in TABLE if row.transport != "grpc"] + [Endpoint("GET", "/unknown", "rest", "other", ADMIN)]


@pytest.mark.parametrize("row", HTTP, ids=lambda row: f"{row.method} {row.path}")
def test_without_tokens_every_route_but_probes_and_metrics_asks_for_a_name_of_its_own(row):
    for_any = row.roles is None or row.path == "/metrics"
    settings = Settings(hosts="scorer.internal")
    assert requested(settings, row, host="evil.example") == (200 if for_any else 403)
    assert requested(settings, row, host="localhost", origin="http://evil.example") == (200 if for_any else 403)
    assert requested(settings, row) == (200 if for_any else 403)
    ours = requested(settings, row, host="scorer.internal:3000", origin="http://scorer.internal:3000")
    # A proxy passes on the names that it serves, and without tokens whoever reaches it would be an operator.
    assert ours == (403 if row.path.startswith("/admin") else 200)
    assert requested(settings, row, host="localhost:3000", origin="http://scorer.internal:3000") == 200


def test_with_tokens_the_token_decides_and_not_the_name():
    token = "a-token-of-an-operator"
    settings = Settings(admin_tokens=token)
    for row in HTTP:
        assert requested(settings, row, host="evil.example", authorization=f"Bearer {token}") == 200
