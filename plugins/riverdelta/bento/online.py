"""@online: turns a class into a scorer that learns, for BentoML to serve."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TypeVar

import bentoml
from starlette.applications import Starlette

from riverdelta.bento import admin, internals, oip_rest, rest
from riverdelta.bento.address import refuse_exposed
from riverdelta.bento.claim import claim, without_traceback
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Policy, refuse_unguarded, set_guard
from riverdelta.bento.page import page
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.series import write_page_once
from riverdelta.bento.sidecar import Supervisor
from riverdelta.bento.tracing import flush, present, trace_only_where_exported
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.logs import use_json
from riverdelta.core.losses import Loss
from riverdelta.core.settings import Settings
from riverdelta.corrections.base import Correction
from riverdelta.evaluation.drift import Response
from riverdelta.learning.definition import ATTRIBUTE, Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.journal import PATIENCE_SECONDS

T = TypeVar("T")
#: The part of a request's time that its feedback may wait for rows.
_PATIENCE = 0.8


def online(
    base: str | Path,
    *,
    task: str | Loss = "binary",
    logit: str | None = None,
    probability: str | None = None,
    taps: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    corrections: Sequence[Correction] = (),
    on_drift: Response | None = None,
    slices: Mapping[str, Sequence[str | int]] | None = None,
    keep_inputs: bool = False,
    name: str | None = None,
    grpc_port: int | None = None,
) -> Callable[[type[T]], type[T]]:
    """Make the decorated class a scorer: a frozen base, and corrections that learn from feedback while it serves.

    `base` is the path of an ONNX file (relative to the service's file) or a BentoML model tag with one ONNX file. `task` names
    the loss that corrections lower, or is one (see `riverdelta.core.losses`). `logit` or `probability` names the output to
    correct. `taps` names inner tensors as features, `columns` declares columns that the base
    lacks. `on_drift` is what the learner does at a drift alarm: `Adapt()`, `Freeze()`, or nothing. `slices`, as in
    {"country": ["de", "fr"]}, names values of id columns whose loss and calibration are shown apart. `name` is the scorer's
    name in the Open Inference Protocol and of its folder; by default the class's, in lower case. `grpc_port` is where this
    scorer serves gRPC (0: nowhere), in place of `RIVERDELTA_GRPC_PORT`: several scorers in one Bento need a port each.

    `keep_inputs=True` has the journal keep every column of each scored request, not only those that corrections and slices
    read: `riverdelta rebase` can then carry what was learned to another base, or to corrections that read more. It is off by
    default, as inputs may be personal data. They are deleted with the journal's rows, by
    `RIVERDELTA_JOURNAL_MAX_AGE_SECONDS` and `RIVERDELTA_JOURNAL_MAX_BYTES`. Turned on or off, it applies to what is scored from
    then on, and the home stays valid.

    Goes under `@bentoml.service`. Adds POST /score, POST /feedback, GET /status, /v2 and gRPC, and a sidecar that learns.
    Raises `ConfigurationError` or `ModelError` at import when anything does not fit.
    """

    @without_traceback()
    def decorate(cls: type[T]) -> type[T]:
        module = sys.modules[cls.__module__]
        folder = Path(getattr(module, "__file__", None) or ".").resolve().parent
        definition = Definition(
            name=name or cls.__name__.lower(),
            base=_locate(base, folder),
            logit=logit,
            probability=probability,
            taps=dict(taps or {}),
            columns=Schema.of(columns or {}),
            corrections=tuple(corrections),
            on_drift=on_drift,
            slices={column: tuple(values) for column, values in (slices or {}).items()},
            task=task,
            keep_inputs=keep_inputs,
            service=f"{_spelled(module)}:{cls.__name__}",
        )
        # Every column is there, or the import fails here and says which is not.
        definition.new_stack()
        definition.new_slices()
        setattr(cls, ATTRIBUTE, definition)
        _equip(cls, definition, {} if grpc_port is None else {"grpc_port": grpc_port})
        return cls

    return decorate


def _spelled(module: ModuleType) -> str:
    """What `--service` takes for a module: its file, as seen from where the home is looked for, or its name in a package."""
    file = getattr(module, "__file__", None)
    if file is None or module.__package__:
        return module.__name__
    path = Path(file).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _locate(base: str | Path, folder: Path) -> Path:
    path = folder / base
    if path.is_file() or path.suffix == ".onnx":
        return path
    try:
        model = bentoml.models.get(str(base))
    except (bentoml.exceptions.NotFound, bentoml.exceptions.BentoMLException, ValueError):
        raise ConfigurationError(
            f"base is {str(base)!r}, which is neither a file beside the service ({path}) nor a BentoML model tag; "
            f"give the path of an ONNX file, or save the model with bentoml.models.create"
        ) from None
    found = sorted(Path(model.path).glob("*.onnx"))
    if len(found) != 1:
        raise ConfigurationError(f"the BentoML model {base} has {len(found)} .onnx files; expected one")
    return found[0]


def _equip(cls: type, definition: Definition, own: Mapping[str, Any]) -> None:
    """Give the class its routes, its hooks and its sidecar; `own` are settings that are not those of the environment."""
    internals.check()
    trace_only_where_exported()
    runtime = Runtime(definition)
    policy = Policy(runtime)
    held: dict[str, Any] = {}
    users_word = getattr(cls, "__is_ready__", None)

    # Workers work where the service was imported, which need not be where `bentoml serve` was typed.
    here = Path.cwd()

    @without_traceback()
    def deploy() -> None:
        settings = Settings.load(**own)
        held["claim"] = claim(definition, settings.model_copy(update={"home": here / settings.home}))

    async def start(self: Any) -> None:
        # A learner that is down must not take scorers out of service: they do not need it to score.
        internals.PROBES.find().set(False)
        settings = Settings.load(**own)
        refuse_exposed(settings)
        refuse_unguarded(policy)
        if settings.log_format == "json":
            use_json(present)
        policy.open(settings)
        write_page_once()
        # What feedback waits for must leave time to say that it has not come.
        patience = PATIENCE_SECONDS if policy.timeout is None else _PATIENCE * policy.timeout
        plane = DataPlane(definition, settings, patience_seconds=patience)
        runtime.start(plane)
        _when_asked_to_stop(plane.journal.leave)
        if settings.grpc_port:
            held["grpc"] = GrpcServer(runtime, settings.grpc_host, settings.grpc_port, settings.max_bytes, policy)
            await held["grpc"].start()

    async def stop(self: Any) -> None:
        if "grpc" in held:
            await held.pop("grpc").stop()
        runtime.stop()
        await asyncio.to_thread(flush)

    async def is_ready(self: Any) -> bool:
        theirs = users_word(self) if runtime.ready and users_word is not None else runtime.ready
        return bool(await theirs if inspect.isawaitable(theirs) else theirs)

    cls.riverdelta_deploy = bentoml.on_deployment(deploy)  # type: ignore[attr-defined]
    cls.riverdelta_start = bentoml.on_startup(start)  # type: ignore[attr-defined]
    cls.riverdelta_stop = bentoml.on_shutdown(stop)  # type: ignore[attr-defined]
    cls.__is_ready__ = is_ready  # type: ignore[attr-defined]
    cls.riverdelta_sidecar = bentoml.depends(_sidecar(cls, definition))  # type: ignore[attr-defined]
    shown = page.routes(runtime, f"{cls.__module__}:{cls.__name__}")
    app = Starlette(routes=[*rest.routes(runtime), *admin.routes(runtime), *oip_rest.routes(runtime), *shown])
    bentoml.asgi_app(app, path="/", name="riverdelta")(cls)
    set_guard(cls, policy)


def _when_asked_to_stop(act: Callable[[], None]) -> None:
    """Call `act` at the signal that stops this process: uvicorn and gRPC wait for every request before anything else."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def around(former: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            # On the loop: what the signal interrupted may hold the lock that `act` wants. A loop that is closed has stopped.
            if not loop.is_closed():
                loop.call_soon_threadsafe(act)
            former(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(former := signal.getsignal(number)):
            signal.signal(number, around(former))


def _sidecar(cls: type, definition: Definition) -> Any:
    supervisor = Supervisor(f"{cls.__module__}:{cls.__name__}")

    def learner(self: Any) -> dict[str, int | None]:
        """Return the process id of the learner."""
        return {"pid": supervisor.pid}

    body = {
        "__module__": cls.__module__,
        "start": bentoml.on_startup(lambda self: supervisor.start()),
        "stop": bentoml.on_shutdown(lambda self: supervisor.stop()),
        "learner": bentoml.api(learner),
    }
    shell = type(f"{cls.__name__}Sidecar", (), body)
    # Nobody has business with it but the probes: BentoML would read pickles of whoever reaches a dependency's socket.
    set_guard(shell, Policy())
    return bentoml.service(name=f"{cls.__name__}Sidecar", workers=1)(shell)
