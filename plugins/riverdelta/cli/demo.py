"""`riverdelta demo`: the complete loop, with a real server, in a few minutes."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from riverdelta.cli.options import as_json, show
from riverdelta.cli.tables import print_figures
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.settings import Settings
from riverdelta.graph.files import export
from riverdelta.lab.base import base_logits
from riverdelta.lab.client import Tally, drive
from riverdelta.lab.datasets.find import find_movielens
from riverdelta.lab.quality import beside_base
from riverdelta.lab.server import Server, serving
from riverdelta.lab.stream import Stream
from riverdelta.lab.workshop import Workshop, default_corrections, genres_of, load_stream, open_workshop
from riverdelta.learning.learner import new_learner
from riverdelta.learning.replay import replay
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.home import Home


def _rows(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is not a number of events; give a number above 0, or all")
    return int(value)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="A MovieLens folder (default: found or downloaded).")
@click.option("--events", metavar="N|all", callback=_rows, default="50000", show_default=True, help="Rows to stream.")
@click.option("--clients", type=click.IntRange(1, 64), default=8, show_default=True, help="Concurrent clients.")
@click.option(
    "--open-loop",
    "rate",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Send rows at this rate per second, without waiting for answers.",
)
@click.option("--kg", "graph", type=click.Path(path_type=Path), help="A folder with kg.txt, to add graph neighbours.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("riverdelta-demo"), show_default=True, help="Where to write."
)
@as_json
def demo(
    data: Path | None, events: int | None, clients: int, rate: float, graph: Path | None, folder: Path, as_json: bool
) -> None:
    """Run the complete loop on MovieLens or the simulator.

    A base is trained on the first half of the data and served; the second half is sent as requests and feedback.
    """
    console = Console(stderr=as_json)
    found = find_movielens(data)
    console.print(f"data      {found.source}")
    stream = load_stream(found)
    folder = _fresh(folder.resolve())
    with console.status("training and exporting the base (DeepFM) on the first half"):
        workshop = open_workshop(stream, folder, graph)
    console.print(
        f"base      {workshop.report.path} (trained in {workshop.report.seconds:.1f} s on {len(workshop.first):,} rows)"
    )
    second = workshop.second[:events]
    with ExitStack() as stack:
        with console.status("starting bentoml serve"):
            server = stack.enter_context(serving(folder, "service:Ranker", folder / "state"))
        console.print(f"service   http://127.0.0.1:{server.port}  gRPC 127.0.0.1:{server.grpc_port}")
        console.print(f"log       {server.log}", soft_wrap=True)
        base = base_logits(workshop.report.path, second)
        tally = _drive(console, server, second, base, clients, rate)
        final = server.status()
    figures = _figures(workshop, second, base, tally, final, found.source)
    if graph is not None:
        figures |= _unseen_films(workshop, second, base, tally)
    show(figures, as_json, print_figures)
    _next(console, workshop, figures)
    if tally.error:
        console.print(f"[red]first failure: {tally.error}[/red]")
        raise SystemExit(1)


def _fresh(folder: Path) -> Path:
    """Return a folder without the home of an earlier demo, which has another base."""
    number, candidate = 1, folder
    while (candidate / "state").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _drive(console: Console, server: Server, second: Stream, base: Any, clients: int, rate: float) -> Tally:
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    due = Timer(1.0, time.monotonic)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(second))

        def watch(tally: Tally) -> None:
            progress.update(task, completed=tally.done)
            if due.due() and tally.seen.sum() > 1:
                due.done()
                loss, fresh = _quality(second, base, tally), np.percentile(tally.freshness[-2000:] or [np.nan], 50)
                said = f"log loss {loss['log_loss_base']:.4f} → {loss['log_loss_served']:.4f}   freshness {fresh:.3f} s"
                progress.update(task, description=f"{said}   failed {tally.failed}   {server.status()['state']}")

        return drive(second, (server.port, server.grpc_port), "ranker", clients, rate, watch=watch)


def _quality(second: Stream, base: Any, tally: Tally) -> dict[str, float]:
    seen = tally.seen
    return beside_base(base[seen], LOG_LOSS.link(tally.score[seen])[:, 0], second.label[seen])


def _figures(workshop: Workshop, second: Stream, base: Any, tally: Tally, final: dict[str, Any], source: str) -> dict[str, Any]:
    home = Home(workshop.definition, Settings.load(home=workshop.folder / "state"))
    status = home.read_status()
    merged = workshop.folder / "merged.onnx"
    export(home.releases().intact().path, merged)
    fresh, lag = (np.percentile(times, (50, 99)) for times in (tally.freshness or [np.nan], tally.lag[tally.seen]))
    return {
        "events": int(tally.seen.sum()),
        **_quality(second, base, tally),
        **dict(zip(("freshness_p50_s", "freshness_p99_s"), fresh.tolist(), strict=True)),
        **dict(zip(("lag_rows_p50", "lag_rows_p99"), lag.tolist(), strict=True)),
        "swaps": final["swap"],
        "releases": status["releases"],
        "parity_max_error": status["parity_max_error"],
        "requests": tally.requests,
        "failed_requests": tally.failed,
        "data": source,
        "merged_model": str(merged),
    }


def _unseen_films(workshop: Workshop, second: Stream, base: Any, tally: Tally) -> dict[str, Any]:
    """Return the quality on films absent from the training data, by replay with and without the graph."""
    cold = ~np.isin(second.columns["item_id"], workshop.first.columns["item_id"]) & tally.seen
    figures: dict[str, Any] = {"unseen_rows": int(cold.sum())}
    without = replace(workshop.definition, corrections=default_corrections(genres_of(second)))
    for name, definition in (("with_graph", workshop.definition), ("without_graph", without)):
        learner = new_learner(definition, Settings.load())
        columns = second.select(*learner.stack.reads).columns
        served = replay(learner, columns, base, second.label, second.time).served
        found = beside_base(base[cold], served[cold], second.label[cold])
        figures |= {f"unseen_{measure}_{name}": found[f"{measure}_served"] for measure in ("auc", "log_loss")}
    return figures


def _next(console: Console, workshop: Workshop, figures: dict[str, Any]) -> None:
    console.print("\nnext")
    for command in (
        f"{_command('riverdelta')} replay --journal {workshop.folder}",
        f"{_command('riverdelta')} inspect {figures['merged_model']}",
        f"cd {workshop.folder} && RIVERDELTA_HOME=state {_command('bentoml')} serve service:Ranker",
    ):
        console.print(f"  {command}", soft_wrap=True)


def _command(name: str) -> str:
    """Return the command to type, with its path if this environment is not active."""
    return name if shutil.which(name) else str(Path(sys.executable).with_name(name))
