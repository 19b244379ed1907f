"""Internals: every use of a private part of BentoML and of the servers that it starts, checked at start-up."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from operator import attrgetter
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import click

from riverdelta.core.errors import ConfigurationError

#: The versions of BentoML that have these private parts, as in pyproject.toml.
SUPPORTED = ">=1.4.32,<1.5"


@dataclass(frozen=True)
class Reach:
    """A private object: its module and name, and its expected shape in words and as a predicate."""

    module: str
    name: str
    shape: str
    fits: Callable[[Any], bool]

    def find(self) -> Any:
        """Return the object; raises `ConfigurationError` with BentoML's version if it is missing or does not fit."""
        try:
            if self.fits(found := attrgetter(self.name)(import_module(self.module))):
                return found
        except (ImportError, AttributeError, LookupError, TypeError, ValueError):
            pass
        raise ConfigurationError(
            f"BentoML {version('bentoml')} has no {self.module}.{self.name} that is {self.shape}, which riverdelta needs; "
            f"install a version that does: pip install 'bentoml{SUPPORTED}'"
        )


def _takes(*names: str) -> Callable[[Any], bool]:
    return lambda found: tuple(inspect.signature(found).parameters)[: len(names)] == names


def _offers(*names: str) -> Callable[[Any], bool]:
    return lambda found: all(callable(getattr(found, name)) for name in names)


def _asks(*names: str) -> Callable[[Any], bool]:
    return lambda found: {*names} <= {parameter.name for parameter in found.params}


def _setting(name: str, *kinds: type) -> Reach:
    shape = " or ".join(kind.__name__ for kind in kinds)
    return Reach(_CONTAINERS, f"BentoMLContainer.{name}", f"a setting of {shape}", lambda found: isinstance(found.get(), kinds))


_CONTAINERS = "bentoml._internal.configuration.containers"
_NONE = type(None)
PROBES = _setting("api_server_config.runner_probe.enabled", bool)
HOST = _setting("http.host", str)
PORT = _setting("http.port", int)
EXPORTER = _setting("tracing.exporter_type", str, _NONE)
EXCLUDED_URLS = _setting("tracing.excluded_urls", str, list, _NONE)
EXCLUSION = Reach(_CONTAINERS, "BentoMLContainer.tracing_excluded_urls", "a provider", _offers("get", "set"))
TRACER = Reach(_CONTAINERS, "BentoMLContainer.tracer_provider", "a provider", _offers("get"))
METRICS = Reach(_CONTAINERS, "BentoMLContainer.metrics_client", "a provider", _offers("get"))
PAGE = Reach("bentoml._internal.server.metrics.prometheus", "PrometheusClient.generate_latest", "a method", callable)
COUNTING = Reach(
    "bentoml._internal.server.http.instruments", "RunnerTrafficMetricsMiddleware", "ASGI middleware", _takes("app")
)
BUILD = Reach("_bentoml_sdk", "Service.to_asgi", "a method of (self, is_main)", _takes("self", "is_main"))
SERVICE = Reach("_bentoml_sdk", "Service.__init__", "of name, inner and path_prefix", lambda found: (
    {"name", "inner", "path_prefix"} <= inspect.signature(found).parameters.keys()
))  # fmt: skip
WORKER = Reach("_bentoml_impl.worker.service", "main", "a command with --fd", _asks("fd"))
SERVE = Reach(
    "bentoml_cli.serve",
    "serve_command",
    "a group whose serve takes bento, --host and --port",
    lambda found: _asks("bento", "host", "port")(found.commands["serve"]),
)
PROTOCOLS = Reach(
    "uvicorn.config", "HTTP_PROTOCOLS", "the places of protocols, with auto", lambda found: isinstance(found["auto"], str)
)
CONNECTION = Reach(
    "uvicorn.protocols.http.httptools_impl",
    "HttpToolsProtocol",
    "a protocol of httptools",
    _offers(
        *("connection_made", "connection_lost", "data_received", "handle_websocket_upgrade", "on_body", "on_message_begin"),
        *("on_headers_complete", "on_message_complete", "on_response_complete"),
    ),
)
SUPERVISOR = Reach(
    "bentoml._internal.utils.circus",
    "Arbiter",
    "a supervisor with an exit_stack",
    lambda found: (
        {"endpoint", "pubsub_endpoint"} <= inspect.signature(found.__base__).parameters.keys()
        and "exit_stack" in found.__init__.__code__.co_names
    ),
)
REACHES = tuple(each for each in list(globals().values()) if isinstance(each, Reach))


def check() -> None:
    """Raise `ConfigurationError` naming the first object that is missing or does not fit."""
    for reach in REACHES:
        # Command line and supervisor are slow to import: they are checked only in the processes that have them.
        if reach not in (SERVE, SUPERVISOR) or reach.module in sys.modules:
            reach.find()


def serve_arguments() -> dict[str, Any]:
    """Return the arguments of `bentoml serve` or its worker command, if this process runs one; {} otherwise."""
    context = click.get_current_context(silent=True)
    return context.params if context is not None else {}


def exported() -> bool:
    """Whether BentoML exports spans."""
    return EXPORTER.find().get() is not None


def timeout_of(name: str) -> float | None:
    """Return the limit on the time of a request to the service `name`, in seconds (`traffic.timeout`); None without one."""
    services = Reach(
        _CONTAINERS,
        "BentoMLContainer.config.services",
        f"a setting with the traffic of {name}",
        lambda found: isinstance(found.get()[name]["traffic"], dict),
    )
    return services.find().get()[name]["traffic"].get("timeout")


def around_applications(wrap: Callable[[Any, type, str, str], None]) -> None:
    """Call `wrap` with each application that BentoML builds from now on, its class, and the service's name and path prefix."""
    build = BUILD.find()
    if getattr(build, "riverdelta_wraps", None) is wrap:
        return

    def to_asgi(self: Any, is_main: bool = True) -> Any:
        app = build(self, is_main)
        wrap(app, self.inner, self.name, self.path_prefix or "")
        return app

    to_asgi.riverdelta_wraps = wrap  # type: ignore[attr-defined]
    SERVICE.find()
    import_module(BUILD.module).Service.to_asgi = to_asgi


def serve_by(protocol: str) -> None:
    """Let the workers of this service handle HTTP connections by the class `module:name`."""
    PROTOCOLS.find()["auto"] = protocol


def close_control_socket() -> None:
    """Put the control sockets of a supervisor that starts in this process into a folder that only its user may enter.

    BentoML binds them to ports of the loopback interface, where every local user can stop its workers without a password.
    """
    supervisor = SUPERVISOR.find()
    initialize = supervisor.__init__
    if getattr(initialize, "riverdelta", False):
        return

    def initialize_in_private(self: Any, *args: Any, **given: Any) -> None:
        folder = mkdtemp(prefix="riverdelta-control-")
        given |= {"endpoint": f"ipc://{folder}/control", "pubsub_endpoint": f"ipc://{folder}/events"}
        initialize(self, *args, **given)
        self.exit_stack.callback(rmtree, folder, ignore_errors=True)

    initialize_in_private.riverdelta = True  # type: ignore[attr-defined]
    supervisor.__init__ = initialize_in_private
