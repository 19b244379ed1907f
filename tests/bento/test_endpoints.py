"""The table of endpoints: it has every route and method that is served and no other, and the roles of what it lacks."""

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Mount, Route, WebSocketRoute

from riverdelta.bento.access import ADMIN, ANY
from riverdelta.bento.endpoints import GRPC, LABELS, OTHER, OTHER_OIP, REFLECTION, TABLE, http_endpoint, template
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Guard
from riverdelta.bento.http import mounted
from riverdelta.learning.commands import COMMANDS
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

#: What BentoML serves in place of static_content and docs.json where its new index page is on.
ELSEWHERE = {("GET", "/assets/{file:path}")}
HTTP = [row for row in TABLE if row.transport != "grpc"]


def routes_of(routes):
    """The (method, path) of routes and of those mounted; the files of a mount are a path with a parameter."""
    for route in routes:
        if isinstance(route, Mount):
            yield from routes_of(route.routes) if route.routes else [("GET", f"{route.path}/{{file:path}}")]
        elif not isinstance(route, WebSocketRoute):
            yield from ((method, route.path) for method in (route.methods or {"GET"}))


@pytest.fixture(scope="module")
def application():
    from service.service import Ranker

    return Ranker.to_asgi()


def test_every_route_of_the_real_application_is_in_the_table_and_the_reverse(application):
    assert application.user_middleware[0].cls is Guard
    served = {(method, path) for method, path in routes_of(application.routes) if method != "HEAD"}
    assert served | ELSEWHERE == {(row.method, row.path) for row in HTTP}


def test_every_method_of_the_grpc_service_is_in_the_table_and_the_reverse(runtime):
    async def handlers():
        return GrpcServer(runtime, "127.0.0.1", 0, 100_000)._handlers()

    served = {f"/{service}/{name}" for service, named in asyncio.run(handlers()).items() for name in named}
    # Reflection's library has its own handlers.
    assert served | {f"/{REFLECTION}/ServerReflectionInfo"} == GRPC.keys()
    of_the_protocol = {f"{row.name}Request" for row in GRPC.values() if row.path.startswith(f"/{SERVICE}/")}
    assert of_the_protocol == {name for name in MESSAGES if name.endswith("Request")}


def test_a_path_leads_to_its_own_row_alone():
    for row in HTTP:
        path = re.sub(r"\{\w+(:path)?\}", "x", row.path)
        assert http_endpoint(row.method, path) is row
        others = [other for other in HTTP if other.method == row.method and other.pattern.fullmatch(path)]
        assert others == [row] or (row.path == "/v2/models/stats" and others == [row, http_endpoint("GET", "/v2/models/x")])


def test_an_endpoint_is_open_only_where_it_is_a_probe():
    assert {row.path for row in HTTP if row.roles is None} == {
        "/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready",
    }  # fmt: skip
    assert {row.name for row in GRPC.values() if row.roles is None} == {"ServerLive", "ServerReady", "Check", "Watch"}
    assert {row.roles for row in TABLE if row.path.startswith("/admin")} == {ADMIN}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("OPTIONS", "/score"),
        ("PUT", "/score"),
        ("POST", "/score/"),
        ("POST", "//score"),
        ("POST", "/score\n"),
        ("POST", "/admin/releases"),
        ("GET", "/admin/rollback"),
        ("GET", "/admin/other"),
        ("GET", "/static_content/"),
        ("GET", "/v2/models/ranker/infer"),
        ("POST", "/v2/models/ranker/infer\n"),
        ("GET", "/v2/models/a/b"),
        ("GET", "/v2/models/"),
        ("GET", ""),
    ],
)
def test_what_the_table_lacks_needs_the_admin_role_but_below_v2_where_no_class_has_a_path(method, path):
    row = http_endpoint(method, path)
    assert row == (OTHER_OIP if path.startswith("/v2/") else OTHER)
    assert (row.label, row.roles) == ("other", ANY if path.startswith("/v2/") else ADMIN)


PIECES = st.sampled_from(
    ["/", "score", "v2", "models", "ranker", "infer", "ready", "versions", "1", "admin", "\n", "%2F", ".", "é"]
)


@settings(max_examples=300)
@given(st.sampled_from(["GET", "POST", "PUT", "HEAD", "get", ""]), st.lists(PIECES, max_size=9).map("".join))
def test_any_path_is_a_row_whose_pattern_it_has_or_none(method, path):
    row = http_endpoint(method, path)
    if row in TABLE:
        assert row.pattern.fullmatch(path)
        assert row.method == method.replace("HEAD", "GET")
        assert template(path) in (None if "{" not in row.path else row.path, None)
    else:
        assert row in (OTHER, OTHER_OIP)


def test_files_are_read_with_any_token():
    assert http_endpoint("GET", "/static_content/a/index.js").roles == ANY


def test_every_command_has_a_row_with_its_summary():
    rows = {row.name: row for row in TABLE if row.name in COMMANDS and row.method == "POST"}
    assert rows.keys() == COMMANDS.keys()
    assert all(issubclass(rows[name].takes, command) for name, command in COMMANDS.items())
    assert all(rows[name].summary == command.summary() for name, command in COMMANDS.items())


def test_a_handler_without_a_row_is_refused():
    with pytest.raises(AssertionError, match="without a row"):
        mounted({"scroe": None})


def test_series_exist_for_what_may_be_counted():
    assert LABELS["rest"] == ["admin", "feedback", "health", "metadata", "other", "score", "status"]
    assert LABELS["oip_rest"] == LABELS["grpc"] == ["feedback", "health", "metadata", "score"]


def test_routes_are_of_starlette(runtime):
    async def score(request):
        raise NotImplementedError

    (route,) = mounted({"score": score})
    assert isinstance(route, Route)
    assert (route.path, route.methods) == ("/score", {"POST"})
