"""Endpoints: the table of all routes and gRPC methods; access checks, routes, OpenAPI and metric labels come from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from pydantic import BaseModel

from riverdelta.bento import inference, schemas
from riverdelta.bento.access import ADMIN, ANY, FEEDBACK, SCORE, Roles
from riverdelta.learning.commands import COMMANDS
from riverdelta.serving.oip.messages import MESSAGES, SERVICE

#: gRPC's own services.
HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
_PARAMETER = re.compile(r"\\\{\w+(:path)?\\\}")


@dataclass(frozen=True)
class Endpoint:
    """A row of the table: an HTTP route, or a gRPC method.

    Parameters
    ----------
    method, path
        The HTTP method, and the path, in which `{name}` matches one segment and `{name:path}` several.
    transport
        `rest`, `oip_rest` or `grpc`; it decides the format of errors.
    label, or_label
        The metric label of a request, and the one that its message may select instead.
    roles
        The roles of which a caller needs one; None: no token needed and no rate limit.
    name
        The name of its handler; empty if BentoML answers.
    summary
        Its summary in OpenAPI; empty if it is not documented.
    takes, gives
        The models of the request body and the response, or of the gRPC messages; None: no body, and any object.
    query
        The model of the query; None: no parameters.
    statuses
        The HTTP statuses of a response besides those that every route may have.
    content
        The content type of a successful response.
    """

    method: str
    path: str
    transport: str
    label: str
    roles: Roles | None
    name: str = ""
    summary: str = ""
    takes: Any = None
    gives: Any = None
    query: type[BaseModel] | None = None
    statuses: tuple[int, ...] = ()
    content: str = "application/json"
    or_label: str = ""

    @property
    def labels(self) -> set[str]:
        """The metric labels that its requests may have."""
        return {self.label, self.or_label} - {""}

    @property
    def slow(self) -> bool:
        """Whether an answer may be large or may wait for another process."""
        return self.label == "admin" or "{file" in self.path

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The paths of this row; a parameter of one segment does not match a slash."""
        parts = _PARAMETER.sub(lambda found: ".+" if found[1] else "[^/]+", re.escape(self.path))
        return re.compile(parts, re.DOTALL)


def _http(
    method: str, path: str, name: str, label: str, roles: Roles | None, summary: str = "", gives: Any = None, **more: Any
) -> Endpoint:
    transport = "oip_rest" if path.startswith("/v2") else "rest"
    return Endpoint(method, path, transport, label, roles, name, summary, gives=gives, **more)


_get, _post = partial(_http, "GET"), partial(_http, "POST")


def _grpc(name: str, label: str, roles: Roles | None, or_label: str = "") -> Endpoint:
    takes, gives = MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"]
    return Endpoint("POST", f"/{SERVICE}/{name}", "grpc", label, roles, name, takes=takes, gives=gives, or_label=or_label)


def _model(stem: str) -> tuple[Endpoint, ...]:
    about, ready = inference.message("ModelMetadataResponse"), inference.ModelReady
    config, statistics = inference.message("ModelConfig"), inference.message("ModelStatisticsResponse")
    return (
        # The model decides whether it scores or takes feedback: `Oip.permit` checks the role and sets the metric label.
        _post(
            f"{stem}/infer", "infer", "score", ANY, "Score, or take feedback.",
            inference.InferResponse, takes=inference.InferRequest, statuses=(404, 409, 413, 415, 422), or_label="feedback",
        ),
        _get(stem, "model", "metadata", ANY, "A model's metadata.", about, statuses=(404,)),
        _get(f"{stem}/ready", "model_ready", "health", ANY, "Whether a model is ready.", ready, statuses=(404,)),
        _get(f"{stem}/config", "config", "metadata", ANY, "A model's configuration.", config, statuses=(404,)),
        _get(f"{stem}/stats", "stats", "metadata", ANY, "A model's statistics of one worker.", statistics, statuses=(404,)),
    )  # fmt: skip


TABLE: tuple[Endpoint, ...] = (
    _post(
        "/score", "score", "score", SCORE, "Score a block of rows.", schemas.ScoreResponse,
        takes=schemas.ScoreRequest, statuses=(409, 413, 415),
    ),
    _post(
        "/feedback", "feedback", "feedback", FEEDBACK, "Take labels of scored rows.",
        schemas.FeedbackResponse, takes=schemas.FeedbackRequest, statuses=(413, 415, 422),
    ),
    _get("/status", "status", "status", ANY, "The state of the service."),
    _get("/openapi.json", "openapi", "metadata", ANY, "This document."),
    _get("/", "page", "metadata", ANY),
    _get("/admin/releases", "releases", "admin", ADMIN, "The releases.", schemas.ReleasesResponse),
    _get(
        "/admin/diff", "diff", "admin", ADMIN, "The coefficients that changed most.", schemas.DiffResponse,
        query=schemas.DiffQuery, statuses=(404,),
    ),
    _get(
        "/admin/export", "export", "admin", ADMIN, "A release as one self-contained ONNX file.",
        query=schemas.ExportQuery, statuses=(404, 501), content="application/octet-stream",
    ),
    *(
        _post(
            f"/admin/{name}", name, "admin", ADMIN, command.summary(),
            schemas.CommandResponse, takes=schemas.body_of(command), statuses=(202, 404, 409, 413, 415),
        )
        for name, command in COMMANDS.items()
    ),
    _get("/v2", "server", "metadata", ANY, "The server's metadata.", inference.message("ServerMetadataResponse")),
    _get("/v2/health/live", "live", "health", None, "Whether the server runs.", inference.message("ServerLiveResponse")),
    _get(
        "/v2/health/ready", "ready", "health", None, "Whether the server takes requests.",
        inference.message("ServerReadyResponse"),
    ),
    _get(
        "/v2/models/stats", "all_stats", "metadata", ANY, "The statistics of all models of one worker.",
        inference.message("ModelStatisticsResponse"),
    ),
    _post(
        "/v2/repository/index", "index", "metadata", ANY, "The models, and whether they are ready.", inference.IndexResponse,
        takes=inference.IndexRequest, statuses=(413, 415),
    ),
    *_model("/v2/models/{name}"),
    *_model("/v2/models/{name}/versions/{number}"),
    _grpc("ServerLive", "health", None),
    _grpc("ServerReady", "health", None),
    _grpc("ModelReady", "health", ANY),
    _grpc("ServerMetadata", "metadata", ANY),
    _grpc("ModelMetadata", "metadata", ANY),
    _grpc("ModelInfer", "score", ANY, or_label="feedback"),
    _grpc("ModelConfig", "metadata", ANY),
    _grpc("ModelStatistics", "metadata", ANY),
    _grpc("RepositoryIndex", "metadata", ANY),
    *(
        Endpoint("POST", f"/{HEALTH}/{name}", "grpc", "health", None, name, takes=HealthCheckRequest, gives=HealthCheckResponse)
        for name in ("Check", "Watch")
    ),
    Endpoint(
        "POST", f"/{REFLECTION}/ServerReflectionInfo", "grpc", "metadata", ANY, "ServerReflectionInfo",
        takes=ServerReflectionRequest, gives=ServerReflectionResponse,
    ),
    # BentoML answers these.
    _get("/metrics", "", "status", ANY),
    *(_get(path, "", "metadata", ANY) for path in ("/docs.json", "/schema.json")),
    *(_get(f"/{folder}/{{file:path}}", "", "metadata", ANY) for folder in ("static_content", "assets")),
    *(_get(path, "", "health", None) for path in ("/livez", "/readyz", "/healthz")),
)  # fmt: skip
#: A path that is not in the table needs the admin role, because the class may have it; /v2 and gRPC are the protocol's.
OTHER = Endpoint("", "other", "rest", "other", ADMIN)
OTHER_OIP, OTHER_GRPC = (Endpoint("", "other", transport, "other", ANY) for transport in ("oip_rest", "grpc"))
GRPC = {row.path: row for row in TABLE if row.transport == "grpc"}
_HTTP = [row for row in TABLE if row.transport != "grpc"]
_EXACT = {(row.method, row.path): row for row in _HTTP if "{" not in row.path}
_PATTERNS = [row for row in _HTTP if "{" in row.path]
#: The metric labels of endpoints, by transport.
LABELS = {
    transport: sorted({label for row in (*TABLE, OTHER) if row.transport == transport for label in row.labels})
    for transport in ("rest", "oip_rest", "grpc")
}


def http_endpoint(method: str, path: str) -> Endpoint:
    """Return the row of an HTTP request.

    >>> http_endpoint("GET", "/livez").roles, http_endpoint("GET", "/livez/").label
    (None, 'other')
    >>> http_endpoint("POST", "/v2/models/ranker/infer").path
    '/v2/models/{name}/infer'
    """
    method = "GET" if method == "HEAD" else method
    found = _EXACT.get((method, path))
    if found is not None:
        return found
    for row in _PATTERNS:
        if row.method == method and row.pattern.fullmatch(path):
            return row
    return OTHER_OIP if path.startswith("/v2") else OTHER


def template(path: str) -> str | None:
    """Return the path template that matches a path, for any method; None if there is none.

    >>> template("/v2/models/ranker/versions/3")
    '/v2/models/{name}/versions/{number}'
    """
    return next((row.path for row in _PATTERNS if row.pattern.fullmatch(path)), None)
