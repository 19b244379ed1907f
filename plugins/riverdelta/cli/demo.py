"""`riverdelta demo`: the whole loop, for real, in a few minutes."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from riverdelta.core.link import logit
from riverdelta.core.settings import Settings
from riverdelta.graph.files import export_single
from riverdelta.lab.client import Tally, drive
from riverdelta.lab.datasets.find import find_movielens
from riverdelta.lab.quality import auc, log_loss
from riverdelta.lab.replay import base_logits
from riverdelta.lab.server import Server, serving
from riverdelta.lab.stream import Stream
from riverdelta.lab.workshop import Workshop, load_stream, open_workshop
from riverdelta.storage.home import Home

_DEFAULT_EVENTS = 50_000


class Events(click.ParamType[int]):
    """A number of rows, or `all`."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; 0 is all."""
        if value == "all":
            return 0
        if isinstance(value, int) or (isinstance(value, str) and value.isdigit() and int(value) > 0):
            return int(value)
        self.fail(f"{value!r} is no number of events; give a number above 0, or all", param, ctx)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="A MovieLens folder.")
@click.option("--events", type=Events(), default=_DEFAULT_EVENTS, show_default=True, help="How many rows to stream.")
@click.option("--clients", type=click.IntRange(1, 64), default=8, show_default=True, help="Clients side by side.")
@click.option(
    "--open-loop", "rate", type=click.FloatRange(min=0), default=0.0, help="Send so many rows a second, waiting for nothing."
)
@click.option("--kg", "graph", type=click.Path(path_type=Path), help="A folder with kg.txt: adds graph neighbours.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("riverdelta-demo"), show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures to this file.")
def demo(data: Path | None, events: int, clients: int, rate: float, graph: Path | None, folder: Path, out: Path | None) -> None:
    """Train a base on the first half of MovieLens, serve it, and stream the second half as requests and feedback."""
    console = Console()
    found = find_movielens(data)
    console.print(f"data      {found.source}")
    stream = load_stream(found)
    folder = _fresh(folder.resolve())
    with console.status("training and exporting the base (DeepFM) on the first half"):
        workshop = open_workshop(stream, folder, graph)
    console.print(
        f"base      {workshop.report.path} (trained in {workshop.report.seconds:.1f} s on {len(workshop.first):,} rows)"
    )
    second = workshop.second[: events or len(workshop.second)]
    with console.status("starting bentoml serve"):
        running = serving(folder, "service:Ranker", folder / "state")
        server = running.__enter__()
    try:
        console.print(f"service   http://127.0.0.1:{server.port}  gRPC 127.0.0.1:{server.grpc_port}  log {server.log}")
        base = base_logits(workshop.report.path, second)
        tally = _drive(console, server, second, base, clients, rate)
        final = server.status()
    finally:
        running.__exit__(None, None, None)
    figures = _figures(workshop, second, base, tally, final, found.source)
    if graph is not None:
        figures |= _unseen_films(workshop, second, base, tally)
    _finish(console, workshop, figures)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n")
    if tally.error:
        console.print(f"[red]the first failure: {tally.error}[/red]")
        raise SystemExit(1)


def _fresh(folder: Path) -> Path:
    """Return a folder that no earlier demo has used: its journal belongs to another base."""
    number, candidate = 1, folder
    while (candidate / "state").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _drive(console: Console, server: Server, second: Stream, base: Any, clients: int, rate: float) -> Tally:
    progress = Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    task = progress.add_task("rows", total=len(second))
    shown = {"at": 0.0}

    with Live(progress, console=console, refresh_per_second=4, transient=True) as live:

        def watch(tally: Tally) -> None:
            progress.update(task, completed=tally.done)
            if time.monotonic() - shown["at"] > 1.0:
                shown["at"] = time.monotonic()
                live.update(_screen(progress, server.status(), second, base, tally))

        tally = drive(second, (server.port, server.grpc_port), "ranker", clients, rate, watch=watch)
    return tally


def _screen(progress: Progress, status: dict[str, Any], second: Stream, base: Any, tally: Tally) -> Table:
    seen = ~np.isnan(tally.score)
    grid = Table.grid(padding=(0, 2))
    grid.add_row(progress)
    table = Table(box=None, padding=(0, 2))
    for heading in ("", "base", "served"):
        table.add_column(heading, justify="left" if not heading else "right")
    if seen.sum() > 1:
        label, served = second.label[seen], logit(tally.score[seen])
        table.add_row("AUC", f"{auc(base[seen], label):.4f}", f"{auc(served, label):.4f}")
        table.add_row("log loss", f"{log_loss(base[seen], label):.4f}", f"{log_loss(served, label):.4f}")
    grid.add_row(table)
    fresh = f"{np.percentile(tally.freshness[-2000:], 50):.3f} s" if tally.freshness else "-"
    grid.add_row(f"state {status['state']}   freshness {fresh}   requests {tally.requests:,}   failed {tally.failed}")
    return grid


def _figures(workshop: Workshop, second: Stream, base: Any, tally: Tally, final: dict[str, Any], source: str) -> dict[str, Any]:
    seen = ~np.isnan(tally.score)
    label, served = second.label[seen], logit(tally.score[seen])
    home = Home(workshop.definition, Settings.load(home=workshop.folder / "state"))
    status, release = home.read_status(), home.releases().newest_good()
    merged = workshop.folder / "merged.onnx"
    if release is not None:
        export_single(release.verify(), merged)
    fresh = tally.freshness or [float("nan")]
    return {
        "events": int(seen.sum()),
        "auc_base": auc(base[seen], label),
        "auc_served": auc(served, label),
        "log_loss_base": log_loss(base[seen], label),
        "log_loss_served": log_loss(served, label),
        "freshness_p50_s": float(np.percentile(fresh, 50)),
        "freshness_p99_s": float(np.percentile(fresh, 99)),
        "lag_rows_p50": float(np.percentile(tally.lag[seen], 50)),
        "lag_rows_p99": float(np.percentile(tally.lag[seen], 99)),
        "swaps": final["swap"],
        "releases": status["releases"],
        "parity_max_logit": status["parity_max_logit"],
        "requests": tally.requests,
        "failed_requests": tally.failed,
        "data": source,
        "merged_model": str(merged),
    }


def _unseen_films(workshop: Workshop, second: Stream, base: Any, tally: Tally) -> dict[str, Any]:
    """The quality on films that the base's training has never seen, with the graph and, by replay, without it."""
    from riverdelta.corrections.stack import Stack
    from riverdelta.lab.ranker import default_corrections, genres_of
    from riverdelta.lab.replay import replay

    cold = ~np.isin(second.columns["item_id"], workshop.trained_items) & ~np.isnan(tally.score)
    figures: dict[str, Any] = {"unseen_rows": int(cold.sum())}
    for name, corrections in (
        ("with_graph", workshop.definition.corrections),
        ("without_graph", default_corrections(genres_of(second))),
    ):
        stack = Stack([c.clone() for c in corrections])
        stack.bind(workshop.definition.schema)
        served = replay(stack, second, base).served
        figures[f"unseen_auc_{name}"] = auc(served[cold], second.label[cold])
        figures[f"unseen_log_loss_{name}"] = log_loss(served[cold], second.label[cold])
    return figures


def _finish(console: Console, workshop: Workshop, figures: dict[str, Any]) -> None:
    table = Table(box=None, padding=(0, 2))
    for heading in ("", "base", "served"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("AUC", f"{figures['auc_base']:.4f}", f"[bold]{figures['auc_served']:.4f}[/bold]")
    table.add_row("log loss", f"{figures['log_loss_base']:.4f}", f"[bold]{figures['log_loss_served']:.4f}[/bold]")
    console.print(table)
    console.print(
        f"freshness p50 {figures['freshness_p50_s']:.3f} s, p99 {figures['freshness_p99_s']:.3f} s; "
        f"lag p50 {figures['lag_rows_p50']:.0f} rows, p99 {figures['lag_rows_p99']:.0f}; {figures['swaps']:,} swaps, "
        f"{figures['releases']} releases; {figures['requests']:,} requests, {figures['failed_requests']} failed"
    )
    if "unseen_rows" in figures:
        console.print(
            f"films that the base has never seen ({figures['unseen_rows']:,} rows): AUC "
            f"{figures['unseen_auc_without_graph']:.4f} without the graph, {figures['unseen_auc_with_graph']:.4f} with it; "
            f"log loss {figures['unseen_log_loss_without_graph']:.4f} and {figures['unseen_log_loss_with_graph']:.4f}"
        )
    console.print(f"merged    {figures['merged_model']}\n\nnext")
    for command in (
        f"{_command('riverdelta')} replay --journal {workshop.folder}",
        f"{_command('riverdelta')} inspect {figures['merged_model']}",
        f"cd {workshop.folder} && RIVERDELTA_HOME=state {_command('bentoml')} serve service:Ranker",
    ):
        console.print(f"  {command}", soft_wrap=True)


def _command(name: str) -> str:
    """The command as the user can type it: by its path where this environment is not the active one."""
    return name if shutil.which(name) else str(Path(sys.executable).with_name(name))
