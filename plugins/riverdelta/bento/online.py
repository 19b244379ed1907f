"""@online: makes a class a scorer that learns while BentoML serves it."""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Never, TypeVar

import bentoml

from riverdelta.bento import admin, internals, oip_rest, rest
from riverdelta.bento.address import refuse_exposed
from riverdelta.bento.claim import claim, without_traceback
from riverdelta.bento.connections import Connections, room
from riverdelta.bento.grpc_server import GrpcServer
from riverdelta.bento.guard import Policy, refuse_unguarded, set_guard
from riverdelta.bento.hosts import Hosts
from riverdelta.bento.http import application
from riverdelta.bento.page import page
from riverdelta.bento.runtime import Runtime
from riverdelta.bento.series import write_page_once
from riverdelta.bento.sidecar import service_of
from riverdelta.bento.tracing import flush, present, trace_only_where_exported
from riverdelta.core.errors import ConfigurationError, near
from riverdelta.core.features import Schema
from riverdelta.core.logs import use_json
from riverdelta.core.losses import Loss
from riverdelta.core.settings import Settings
from riverdelta.corrections.base import Correction
from riverdelta.corrections.interval import Interval
from riverdelta.corrections.stack import listed
from riverdelta.evaluation.drift import Response
from riverdelta.learning.definition import ATTRIBUTE, Definition, mapped
from riverdelta.learning.preparation import Prepare
from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.journal import PATIENCE_SECONDS

T = TypeVar("T")
#: The share of a request's time limit that feedback may wait for rows.
_PATIENCE = 0.8


def online(
    base: str | Path,
    *,
    task: str | Loss = "binary",
    output: str | None = None,
    logit: str | None = None,
    probability: str | None = None,
    link: str | None = None,
    taps: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    corrections: Correction | Sequence[Correction] = (),
    on_drift: Response | None = None,
    slices: Mapping[str, str | int | Sequence[str | int]] | None = None,
    interval: Interval | None = None,
    keep_inputs: bool = False,
    prepare: Prepare | None = None,
    name: str | None = None,
    grpc_port: int | None = None,
    **unknown: Never,
) -> Callable[[type[T]], type[T]]:
    """Make the decorated class a scorer: a frozen base, with corrections that learn from feedback while it serves.

    Write it below `@bentoml.service`. It adds POST /score, POST /feedback, GET /status, the Open Inference Protocol over REST
    and gRPC, and a sidecar process that learns.

    Parameters
    ----------
    base
        Path of an ONNX file, relative to the service's file, or a BentoML model tag with one ONNX file.
    task
        What the labels are: `"binary"`, `"multiclass"`, `"regression"`, `"count"` or `"ranking"`, or a `Loss` with settings,
        such as `Regression(label_range=(0, 7280))`. Default: `"binary"`, 0 and 1.
    output
        The base's output to correct: a tensor (`"logit"`), a column of it (`"scores[1]"`) or a class (`"scores['fraud']"`).
        Default: its only float output, in the column of the class 1 or True, or all columns of the classes of `"multiclass"`.
        If that is not clear, the error has the lines to choose from.
    logit, probability
        The same, as what it is. Give one of them if neither the graph nor a few probed rows show which it is.
    link
        `"identity"` if the output is a raw output, `"logit"` if it is a probability, `"log"` if it is a rate of counts. Give it
        only if an error asks for it: it overrides what probed rows and narrow bounds suggest, never what the graph proves.
    taps
        Names for inner tensors of the base, as {feature: tensor}, to use them as features. Default: none.
    names
        Names of the parts of an input [N, F], as in {"X": ["age", "income"]}: each is a feature, and requests may send them
        instead of the input. Default: none.
    columns
        Types of request columns that the base does not have, as in {"user_id": "int64"}; and for an input of the base or a
        name, how corrections read it: "float32" as a number, "int64" as an id. Default: floats are numbers, all others ids.
    corrections
        A correction, or several whose residuals are added. Default: none.
    on_drift
        The learner's response to a drift alarm, `Adapt()` or `Freeze()`. Default: None, report it only.
    slices
        Values of id columns, as in {"country": ["de", "fr"]}, whose loss and calibration are also measured separately. Default:
        none.
    interval
        An interval beside each prediction of a number, kept at a coverage: `Interval(0.9)`, or `Interval(0.9, by="country")`
        for one of each value of a column of `slices`. Answers then have `lower` and `upper`. Default: none.
    keep_inputs
        Whether the journal keeps every column of a request, not only those that corrections and slices read. Turn it on to
        `riverdelta rebase` to another base or to corrections that read other columns. Default: False, because inputs may be
        personal data; `RIVERDELTA_JOURNAL_MAX_AGE_SECONDS` and `RIVERDELTA_JOURNAL_MAX_BYTES` limit how long they are kept. A
        change applies to later requests, and the home stays valid.
    prepare
        A function of a request's columns (a dict of numpy arrays of N rows) that returns the base's other inputs, such as the
        token ids of a text. Requests then bring exactly `columns`, so declare an input that they bring themselves. Several
        threads may call it at once. Its `ValueError` answers 400, any other error 500. Default: None, requests bring every
        input.
    name
        The scorer's name in the Open Inference Protocol, and its folder. Default: the class's name in lower case.
    grpc_port
        Port of this scorer's gRPC server, 0 for none. Default: `RIVERDELTA_GRPC_PORT`; several scorers in one Bento need
        different ports.

    Raises
    ------
    ConfigurationError, ModelError
        At import, if the parts do not fit together.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import onnx.parser
    >>> from riverdelta import Calibration, Linear
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] logit) { logit = Identity(x) }'
    >>> with TemporaryDirectory() as folder:
    ...     onnx.save(onnx.parser.parse_model(text), f"{folder}/ranker.onnx")
    ...
    ...     @online(f"{folder}/ranker.onnx", columns={"user_id": "int64"}, corrections=[Calibration(), Linear("user_id")])
    ...     class Ranker: ...
    """

    if unknown:
        known = [name for name, given in inspect.signature(online).parameters.items() if given.kind is given.KEYWORD_ONLY]
        raise ConfigurationError(f"@online has no {next(iter(unknown))}=: {near(next(iter(unknown)), known)}")

    @without_traceback()
    def decorate(cls: type[T]) -> type[T]:
        module = sys.modules[cls.__module__]
        folder = Path(getattr(module, "__file__", None) or ".").resolve().parent
        definition = Definition(
            name=name or cls.__name__.lower(),
            base=_locate(base, folder),
            output=output,
            logit=logit,
            probability=probability,
            link=link,
            taps=mapped("taps", taps),
            names={name: list(of) if isinstance(of, tuple) else of for name, of in mapped("names", names).items()},
            columns=Schema.of(mapped("columns", columns)),
            corrections=listed(corrections),
            on_drift=on_drift,
            slices=mapped("slices", slices),
            task=task,
            keep_inputs=keep_inputs,
            interval=interval,
            prepare=prepare,
            service=f"{_spelled(module)}:{cls.__name__}",
        )
        # A missing column fails here, at import.
        definition.new_stack()
        definition.new_slices()
        definition.new_intervals()
        _ = definition.preparation
        setattr(cls, ATTRIBUTE, definition)
        _equip(cls, definition, {} if grpc_port is None else {"grpc_port": grpc_port})
        return cls

    return decorate


def _spelled(module: ModuleType) -> str:
    """Return a module as `--service` takes it: its file, relative to the current folder, or its name in a package."""
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
            f"base is {str(base)!r}, which is neither a file ({path}) nor a BentoML model tag; "
            f"give the path of an ONNX file, or save the model with bentoml.models.create"
        ) from None
    found = sorted(Path(model.path).glob("*.onnx"))
    if len(found) != 1:
        raise ConfigurationError(f"the BentoML model {base} has {len(found)} .onnx files; expected one")
    return found[0]


def _equip(cls: type, definition: Definition, own: Mapping[str, Any]) -> None:
    """Add routes, hooks and the sidecar to the class; `own` are settings that override the environment's."""
    internals.check()
    internals.serve_by("riverdelta.bento.connections:Connections")
    trace_only_where_exported()
    runtime = Runtime(definition)
    policy = Policy(runtime)
    held: dict[str, Any] = {}
    users = getattr(cls, "__is_ready__", None)

    # The workers' folder is that of this import, which may differ from that of `bentoml serve`.
    here = Path.cwd()

    @without_traceback()
    def deploy() -> None:
        settings = Settings.load(**own)
        Hosts(settings.hosts)
        internals.close_control_socket()
        held["claim"] = claim(definition, settings.model_copy(update={"home": here / settings.home}))

    async def start(self: Any) -> None:
        # Scoring does not need the learner, so a stopped learner must not make the scorers unready.
        internals.PROBES.find().set(False)
        settings = Settings.load(**own)
        refuse_exposed(settings)
        refuse_unguarded(policy)
        if settings.log_format == "json":
            use_json(present)
        policy.open(settings)
        Connections.seconds, Connections.most = settings.receive_seconds, room()
        write_page_once()
        # Feedback that waits for rows must be answered before the request times out.
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
        theirs = users(self) if runtime.ready and users is not None else runtime.ready
        return bool(await theirs if inspect.isawaitable(theirs) else theirs)

    cls.riverdelta_deploy = bentoml.on_deployment(deploy)  # type: ignore[attr-defined]
    cls.riverdelta_start = bentoml.on_startup(start)  # type: ignore[attr-defined]
    cls.riverdelta_stop = bentoml.on_shutdown(stop)  # type: ignore[attr-defined]
    cls.__is_ready__ = is_ready  # type: ignore[attr-defined]
    cls.riverdelta_sidecar = bentoml.depends(service_of(cls))  # type: ignore[attr-defined]
    shown = page.routes(runtime, f"{cls.__module__}:{cls.__name__}")
    # In the order in which a path is compared with them.
    app = application([*rest.routes(runtime), *oip_rest.routes(runtime), *shown, *admin.routes(runtime)])
    bentoml.asgi_app(app, path="/", name="riverdelta")(cls)
    set_guard(cls, policy)


def _when_asked_to_stop(act: Callable[[], None]) -> None:
    """Call `act` as soon as this process is asked to stop; uvicorn and gRPC first wait for every request."""
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def around(former: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            # On the loop, because the interrupted code may hold a lock that `act` needs.
            if not loop.is_closed():
                loop.call_soon_threadsafe(act)
            former(number, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(former := signal.getsignal(number)):
            signal.signal(number, around(former))
