"""Guard: access checks, rate limits and counts for every HTTP request and gRPC call."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import grpc
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from riverdelta.bento import internals
from riverdelta.bento.access import Access, Caller, Roles, is_loopback
from riverdelta.bento.endpoints import GRPC, OTHER_GRPC, Endpoint, http_endpoint
from riverdelta.bento.hosts import Hosts
from riverdelta.bento.http import answer_unknown, failure, headers, refusal
from riverdelta.bento.limits import Limit
from riverdelta.bento.page import door
from riverdelta.bento.runtime import Runtime, rows_of
from riverdelta.bento.series import label_by_route
from riverdelta.bento.tracing import HEADER, arrived, span
from riverdelta.core.errors import ConfigurationError, Disconnected, RiverdeltaError, Unauthenticated, Unavailable, Unsupported
from riverdelta.core.settings import Settings

_ATTRIBUTE = "riverdelta_policy"
_TRACE = HEADER.encode()
#: Prometheus finds the service by a name that this service does not know; so do probes, which need no role.
_OF_ANY_HOST = ("/metrics",)
_MOST_PATH = 100
#: The maximum number of slow answers at a time: their connections cannot be closed for others, and a download has a file too.
_MOST_SLOW = 16


@dataclass(slots=True)
class Visit:
    """An admitted request: its caller, and the limits of its rows and of its caller's requests."""

    caller: Caller
    limit: Limit | None
    requests: Limit | None = None
    #: The metric label, if it depends on the request's message.
    endpoint: str | None = None

    def again(self) -> None:
        """Count another request of the caller, such as a further message of a stream; raises `RateLimited`."""
        if self.requests is not None:
            self.requests.take(self.caller.source)

    def rows(self, brought: Any) -> None:
        """Count the rows of the request's columns or items against the limit.

        Raises `RateLimited`, or `TooLarge` for more rows than the limit ever permits at once.
        """
        if self.limit is not None:
            self.limit.take(self.caller.source, rows_of(brought))


_visit: ContextVar[Visit] = ContextVar("riverdelta_visit")


def visit() -> Visit:
    """Return the current request's visit; raises `LookupError` if no guard admitted it."""
    return _visit.get()


class Policy:
    """Admits or refuses each request to a worker, on all transports; until `open`, it admits only probes."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._runtime = runtime
        self._access: Access | None = None
        self._hosts: Hosts | None = None
        self._requests: Limit | None = None
        self._rows: Limit | None = None
        self._slow = 0
        #: Whether the service's HTTP application has a `Guard`.
        self.guarded = False
        #: BentoML's limit on the time of a request, in seconds (the service's `traffic.timeout`); None without one.
        self.timeout: float | None = None

    def open(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> Policy:
        """Start admitting requests; raises `ConfigurationError` if a token or a host is invalid. `clock` returns seconds."""
        access, requests, rows = Access.of(settings), settings.requests_per_second, settings.rows_per_second
        self._requests = Limit("RIVERDELTA_REQUESTS_PER_SECOND", "requests", requests, clock) if requests else None
        self._rows = Limit("RIVERDELTA_ROWS_PER_SECOND", "rows", rows, clock) if rows else None
        self._hosts = None if access.on else Hosts(settings.hosts)
        self._access = access
        return self

    def admit(
        self,
        roles: Roles,
        what: str,
        authorization: Sequence[str],
        peer: str,
        host: str | None,
        names: tuple[Sequence[str], Sequence[str], bool] | None = None,
    ) -> Visit:
        """Return the visit of a request for `what` from the address `peer` to our address `host`.

        `names` are what `Hosts.check` takes, None if it may have any: no browser sends gRPC, whose frames are HTTP/2.

        Raises `Unauthenticated`, `Forbidden` and `RateLimited`.
        """
        if self._access is None:
            raise Unavailable("the service is starting or stopping; try again")
        if not self._access.on and host is not None and not is_loopback(host):
            raise Unauthenticated(
                "this service has no tokens and accepts only loopback addresses; set RIVERDELTA_SCORE_TOKENS, "
                "RIVERDELTA_FEEDBACK_TOKENS and RIVERDELTA_ADMIN_TOKENS"
            )
        if self._hosts is not None and names is not None:
            self._hosts.check(*names)
        caller = self._access.caller(authorization, peer)
        caller.need(roles, what)
        visit = Visit(caller, self._rows, self._requests)
        visit.again()
        return visit

    @contextmanager
    def slow(self, row: Endpoint) -> Iterator[None]:
        """Count a request while it is answered if its answer is slow; raises `Unavailable` if too many are."""
        if row.slow and self._slow == _MOST_SLOW:
            raise Unavailable(f"this worker answers {_MOST_SLOW} downloads and admin requests, the maximum; try again")
        self._slow += row.slow
        try:
            yield
        finally:
            self._slow -= row.slow

    def count(self, row: Endpoint, visit: Visit | None, status: int, started: float) -> None:
        """Count a request answered with an HTTP status, and its time since `started` (`time.perf_counter`)."""
        if self._runtime is not None and self._runtime.ready:
            seconds = time.perf_counter() - started
            self._runtime.plane.metrics.answered(row.transport, _at(row, visit), status, seconds)


def _at(row: Endpoint, visit: Visit | None) -> str:
    return row.label if visit is None else visit.endpoint or row.label


def _given(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == header]


class Guard:
    """The outermost ASGI middleware, which also protects the routes that BentoML answers itself."""

    def __init__(self, app: ASGIApp, policy: Policy, prefix: str = "") -> None:
        self._app, self._policy, self._prefix = app, policy, prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an admitted request on, or answer with the refusal; count it when it is answered."""
        if scope["type"] == "lifespan":
            self._policy.guarded = True
            return await self._app(scope, receive, send)
        started, visit, status = time.perf_counter(), None, 0
        method, path = scope.get("method", ""), scope["path"].removeprefix(self._prefix)
        row = http_endpoint(method, path)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                self._policy.count(row, visit, status, started)
            await send(message)

        if row.roles is not None:
            authorization = _given(scope, b"authorization")
            if door.leads(method, path):
                authorization = door.as_bearer(authorization)
            (peer, _), (host, _) = scope.get("client") or ("", 0), scope.get("server") or (None, 0)
            names = None
            if row.path not in _OF_ANY_HOST:
                names = _given(scope, b"host"), _given(scope, b"origin"), row.label == "admin"
            what = f"{method} {scope['path'][:_MOST_PATH]}"
            try:
                _visit.set(visit := self._policy.admit(row.roles, what, authorization, peer, host, names))
                arrived(_given(scope, _TRACE))
            except Exception as error:  # any failure here is a refusal
                return await self._refuse(row, scope, receive, counted, failure(error, row.label))
        try:
            with self._policy.slow(row):
                return await self._app(scope, receive, counted)
        except Unavailable as error:
            await self._refuse(row, scope, receive, counted, error)

    async def _refuse(self, row: Endpoint, scope: Scope, receive: Receive, send: Send, shown: RiverdeltaError) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        answer = refusal(shown, row.transport)
        if door.leads(scope["method"], scope["path"].removeprefix(self._prefix)):
            given, body = door.refusal(shown, headers(shown))
            answer = Response(body, shown.http_status, given)
        await answer(scope, receive, send)


class Interceptor(grpc.aio.ServerInterceptor):
    """The same checks for every gRPC method, including unknown ones; turns a method's error into a status."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the method's handler behind the guard."""
        handler = await continuation(details)
        row = GRPC.get(details.method, OTHER_GRPC)

        @asynccontextmanager
        async def guarded(context: Any) -> AsyncIterator[None]:
            started, visit = time.perf_counter(), None
            metadata = context.invocation_metadata() or ()
            given, parents = ([v for k, v in metadata if k == key and isinstance(v, str)] for key in ("authorization", HEADER))
            try:
                if row.roles is not None:
                    _visit.set(visit := self._policy.admit(row.roles, details.method, given, _address(context.peer()), None))
                    arrived(parents)
                if handler is None:
                    raise Unsupported(f"{details.method} does not exist; server reflection lists what does")
                with span(details.method, parents):
                    yield
            except Exception as error:  # any failure here is a refusal; a method's error is answered too
                shown = failure(error, _at(row, visit))
                self._policy.count(row, visit, shown.http_status, started)
                await _abort(context, shown)
            except asyncio.CancelledError:
                # A client ends a stream so; the answer of another call is lost.
                status = 200 if handler is not None and handler.response_streaming else Disconnected.http_status
                self._policy.count(row, visit, status, started)
                raise
            self._policy.count(row, visit, 200, started)

        async def answer(request: Any, context: Any) -> Any:
            async with guarded(context):
                return await handler.unary_unary(request, context)

        async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
            async with guarded(context):
                async for one in (handler.stream_stream or handler.unary_stream)(request, context):
                    yield one

        kind, method = grpc.unary_unary_rpc_method_handler, cast(Any, answer)
        if handler is not None and handler.response_streaming:
            method = answers
            kind = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        reads, writes = getattr(handler, "request_deserializer", None), getattr(handler, "response_serializer", None)
        return kind(method, request_deserializer=reads, response_serializer=writes)


def set_guard(cls: type, policy: Policy) -> None:
    """Put a guard around the application of every BentoML service of `cls` when it is built.

    BentoML can add middleware only to a service, which does not exist yet when the class is decorated, and only inside its own
    middleware, which would count a series for every path requested.
    """
    setattr(cls, _ATTRIBUTE, policy)
    internals.around_applications(_guard)


def refuse_unguarded(policy: Policy) -> None:
    """Raise `ConfigurationError` if the application was built without its guard."""
    if not policy.guarded:
        raise ConfigurationError("the service was built without its guard; serve it with bentoml serve, or Service.to_asgi()")


def _guard(app: Any, cls: type, name: str, prefix: str) -> None:
    policy = getattr(cls, _ATTRIBUTE, None)
    if policy is not None:
        label_by_route(app)
        answer_unknown(app)
        policy.timeout = internals.timeout_of(name)
        app.add_middleware(Guard, policy=policy, prefix=prefix)


async def _abort(context: Any, error: RiverdeltaError) -> None:
    """End a gRPC call with an error's status; if a retry may succeed, the trailer says when (gRFC A6)."""
    wait = error.retry_after
    trailer = () if wait is None else (("grpc-retry-pushback-ms", str(math.ceil(1e3 * wait))),)
    await context.abort(getattr(grpc.StatusCode, error.grpc_status), str(error), trailer)


def _address(peer: str) -> str:
    """Return the address in gRPC's name of a peer.

    >>> _address("ipv4:127.0.0.1:5001"), _address("ipv6:%5B::1%5D:5001"), _address("unix:")
    ('127.0.0.1', '::1', 'unix:')
    """
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
