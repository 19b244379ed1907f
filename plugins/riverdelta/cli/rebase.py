"""`riverdelta rebase`: carries over what was learned to a changed option, a changed stack or a new base."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from riverdelta.cli.options import as_json, service, show
from riverdelta.cli.rows import blocks
from riverdelta.cli.tables import table
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.learning.service import load
from riverdelta.sidecar.rebase import LogRows, Rebased
from riverdelta.sidecar.rebase import rebase as carry_over

_TITLES = {
    "base": "base, alone",
    "old_corrected": "old stack, corrected",
    "old_served": "old stack, as served",
    "corrected": "new stack, corrected",
    "served": "new stack, as served",
}
#: By task the measure that is shown beside the loss.
_BESIDE = {"auc": "AUC", "macro_f1": "macro F1", "mae": "MAE", "ndcg10": "NDCG@10"}
_OLD = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@service
@click.option("--from", "old", required=True, metavar="OLD_HOME", type=_OLD, help="The home to carry over.")
@click.option("--log", type=_FILE, help="Learn these rows instead of the journal's.")
@click.option("--label", help="The label column of the log.")
@click.option("--time", "when", help="The time column of the log: Unix seconds, ascending.")
@click.option("--weight", help="The column of the log with the weights of the labels, 0 to 100.")
@click.option("--text", metavar="COLUMN", multiple=True, help="An id column of a .csv that clients send as strings.")
@as_json
def rebase(
    target: str,
    old: Path,
    log: Path | None,
    label: str | None,
    when: str | None,
    weight: str | None,
    text: tuple[str, ...],
    as_json: bool,
) -> None:
    """Carry over what was learned to a changed stack or a new base.

    Makes a new home in RIVERDELTA_HOME, in which the current service has learned the journal of OLD_HOME; OLD_HOME is not
    changed.

    A new base, or a column or tap that the journal lacks, needs the base's inputs. They come from the journal, if
    keep_inputs=True was set, or from a log (.parquet, .feather or .csv, oldest row first), which is then learned instead of
    the journal.
    """
    if (log is None) != (label is None) or (log is None and (when is not None or weight is not None)):
        raise click.UsageError("a log needs its label column: --log rows.parquet --label clicked")
    definition = load(target)
    console, log_of_learning = Console(stderr=True), logging.getLogger("riverdelta.learning")
    with ExitStack() as held:
        # The learner's warnings are part of the report.
        held.callback(log_of_learning.setLevel, log_of_learning.level)
        log_of_learning.setLevel(logging.CRITICAL)
        columns, hidden = (*Progress.get_default_columns(), MofNCompleteColumn()), as_json or not console.is_terminal
        bar = held.enter_context(Progress(*columns, console=console, transient=True, disable=hidden))
        task = bar.add_task("learning", total=None)
        rows = None if log is None or label is None else _log(definition, log, label, when, weight, text)
        done = carry_over(definition, Settings.load(), old, rows, lambda at, last: bar.update(task, completed=at, total=last))
    show(asdict(done), as_json, lambda _: _print(done, definition.loss.example))


def _print(done: Rebased, example: str) -> None:
    """Print what was carried over and what was not, and the losses on the same rows; `example` is what is counted there."""
    console = Console(highlight=False)
    click.echo(done.folder)
    for line in _lines(done, example):
        console.print(line)
    measured = done.comparison or {}
    examples = f"{measured.get('examples', 0):,}"
    beside = [name for name in _BESIDE if name in measured.get("base", {})]
    made = table("on the same rows", f"{example}s", "loss", *(_BESIDE[name] for name in beside))
    for name, title in _TITLES.items():
        if name in measured:
            title = f"new {title}" if name == "base" and done.new_base else title
            figures = (measured[name].get(measure) for measure in ("loss", *beside))
            made.add_row(title, examples, *("-" if figure is None else f"{figure:.4f}" for figure in figures))
    console.print(made)
    console.print(f"each row was scored before its label was learned; loss per {example}")
    for line in _serving(done, measured):
        console.print(line)


def _lines(done: Rebased, example: str) -> Iterator[str]:
    yield f"carried over: {done.records:,} records of the journal, up to record {done.position:,}"
    what = "" if done.log_rows is None else f", from a log of {done.log_rows:,} rows instead of the journal"
    yield f"learned: {done.learned:,} of {done.examples:,} {example}s{what}"
    if done.swept:
        yield f"not carried over: {done.swept:,} records, from 1 to {done.swept:,}, which retention had deleted"
    if done.unusable:
        where = f"from record {done.unusable_from:,} to {done.unusable_to:,}"
        yield f"not usable: {done.unusable:,} rows, {where}, which lack {done.lacking}"
    if done.labels_lost:
        yield f"not learned: {done.labels_lost:,} labels, whose rows are not carried over"
    if done.rollbacks and done.log_rows is None:
        yield f"repeated: {done.rollbacks:,} rollbacks, with what each of them undid or learned again"
    if done.held:
        yield f"the breaker holds {done.held:,} rows; type `riverdelta resume`, or `riverdelta resume --skip` to drop them"
    if done.frozen:
        yield "learning is still frozen; type `riverdelta resume` once the service runs"


def _serving(done: Rebased, measured: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the new home serves first, and what is worse than before."""
    losses = {name: measured[name].get("loss", np.nan) for name in _TITLES if name in measured}
    if done.learned and losses.get("base") == losses.get("corrected"):
        yield "the new stack scored all of these rows as the base did: they were served before any table had learned"
    place = "is champion" if done.champion else "is on trial"
    if done.guard == "base":
        yield "it serves the base: RIVERDELTA_SERVE=base"
    elif done.guard == "release" and not done.champion:
        yield "it serves release 0, the base, until the trial of release 1, the new stack, promotes it"
    elif done.gate_restarted:
        yield "it serves the base: on these rows the new stack, as served, did not beat it; the gate starts over from the base,"
        yield f"and gives the new stack weight as it predicts better; release 1, the new stack, {place}"
    elif done.guard == "live":
        trial = "" if done.champion else "; alone it did not beat the base, so release 1 is on trial"
        yield f"it serves the new stack, mixed with the base, at the gate's weight of {done.weight:.3g}{trial}"
    if losses.get("served", 0.0) > losses.get("old_served", np.inf) + 5e-5:
        yield "warning: on these rows the new stack, as served, lost more than the old one"


def _log(
    definition: Definition, path: Path, label: str, when: str | None, weight: str | None, text: tuple[str, ...]
) -> Iterator[LogRows]:
    names, last = [n for n in (label, when, weight) if n is not None], -np.inf
    for rows in blocks(path, names, text, definition.request_schema):
        labels = rows.labels(label, definition.loss)
        times = np.full(len(rows), time.time())
        if when is not None:
            times = rows.numbers(when, "Unix seconds").astype(np.float64)
            rows.refuse(f"{when!r} is not a number", ~np.isfinite(times), "expected Unix seconds")
            rows.refuse(f"{when!r} goes back", np.diff(times, prepend=last) < 0, f"sort the rows by {when!r}")
            last = times[-1]
        weights = None if weight is None else rows.numbers(weight, "weights of 0 to 100")
        yield LogRows(rows.columns(definition.request_schema), labels, times, str(path), weights)
