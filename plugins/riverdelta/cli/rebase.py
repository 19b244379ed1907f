"""`riverdelta rebase`: carry what was learned to a changed option, a changed stack or a new base."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
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
from riverdelta.learning.definition import Definition, load
from riverdelta.sidecar.rebase import LogRows, Rebased
from riverdelta.sidecar.rebase import rebase as carry_over

_TITLES = {
    "base": "new base, alone",
    "old_corrected": "old stack, corrected",
    "old_served": "old stack, as served",
    "corrected": "new stack, corrected",
    "served": "new stack, as served",
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@service
@click.option(
    "--from",
    "old",
    required=True,
    metavar="OLD_HOME",
    type=click.Path(path_type=Path),
    help="The old home.",
)
@click.option("--log", type=_FILE, help="Learn these rows, not the journal's.")
@click.option("--label", help="The log's column of labels.")
@click.option("--time", "when", help="The log's column of times (Unix seconds), which ascend.")
@as_json
def rebase(target: str, old: Path, log: Path | None, label: str | None, when: str | None, as_json: bool) -> None:
    """Carry what was learned to a changed stack or a new base.

    A new home is made in RIVERDELTA_HOME; OLD_HOME is not changed. The journal is learned again by the corrections of the
    service as it is now. A new base, or a column or tap that the journal lacks, needs the base's inputs: of the journal, where
    keep_inputs=True kept them, or of a log (.parquet, .feather or .csv, in the order in which the rows came), which is learned
    in place of the journal.
    """
    if (log is None) != (label is None) or (when is not None and log is None):
        raise click.UsageError("a log comes with its labels: --log rows.parquet --label clicked")
    definition = load(target)
    console, log_of_learning = Console(stderr=True), logging.getLogger("riverdelta.learning")
    with ExitStack() as held:
        # What the learner warns of along the way is in the report.
        held.callback(log_of_learning.setLevel, log_of_learning.level)
        log_of_learning.setLevel(logging.CRITICAL)
        columns, hidden = (*Progress.get_default_columns(), MofNCompleteColumn()), as_json or not console.is_terminal
        bar = held.enter_context(Progress(*columns, console=console, transient=True, disable=hidden))
        task = bar.add_task("learning", total=None)
        rows = None if log is None or label is None else _log(definition, log, label, when)
        done = carry_over(definition, Settings.load(), old, rows, lambda at, last: bar.update(task, completed=at, total=last))
    show(asdict(done), as_json, lambda _: _print(done))


def _print(done: Rebased) -> None:
    """Print what was carried over and what was not, and what each scorer lost on the same rows."""
    console = Console(highlight=False)
    click.echo(done.folder)
    for line in _lines(done):
        console.print(line)
    measured = done.comparison or {}
    examples = f"{measured.get('examples', 0):,}"
    made = table("on the same rows", "rows", "loss", "AUC")
    for name, title in _TITLES.items():
        if name in measured:
            figures = (measured[name].get(measure) for measure in ("log_loss", "auc"))
            made.add_row(title, examples, *("-" if figure is None else f"{figure:.4f}" for figure in figures))
    console.print(made)
    console.print("each row was scored before its label was learned; loss per row")


def _lines(done: Rebased) -> Iterator[str]:
    yield f"the journal up to record {done.position:,}: {done.records:,} records"
    what = "" if done.log_rows is None else f"; of a log of {done.log_rows:,} rows, in place of the journal"
    yield f"{done.learned:,} of {done.examples:,} examples are learned{what}"
    if done.swept:
        yield f"{done.swept:,} records, from 1 to {done.swept:,}, were deleted by retention and are not carried"
    if done.unusable:
        where = f"from record {done.unusable_from:,} to {done.unusable_to:,}"
        yield f"{done.unusable:,} rows, {where}, cannot be used: they lack {done.lacking}"
    if done.labels_lost:
        yield f"{done.labels_lost:,} labels are for rows that are not carried"
    if done.rollbacks and done.log_rows is None:
        yield f"{done.rollbacks:,} rollbacks were done again: what they un-learned stays un-learned"
    if done.frozen:
        yield "learning is frozen, as it was; type `riverdelta resume` once the service runs"
    if not done.champion:
        yield "the new stack did not beat the base on these rows: release 0, the base, is the champion, and 1 goes on trial"


def _log(definition: Definition, path: Path, label: str, when: str | None) -> Iterator[LogRows]:
    names, last = (label, *definition.request_schema), -np.inf
    for rows in blocks(path, names if when is None else (*names, when)):
        labels = rows.numbers(label, f"labels of the task {definition.task}")
        times = np.full(len(rows), time.time())
        if when is not None:
            times = rows.numbers(when, "Unix seconds").astype(np.float64)
            rows.refuse(f"{when!r} is not a number", ~np.isfinite(times), "expected Unix seconds")
            rows.refuse(f"{when!r} goes back", np.diff(times, prepend=last) < 0, f"sort the rows by {when!r}")
            last = times[-1]
        columns: dict[str, Any] = {name: rows.values(name) for name in definition.request_schema}
        yield LogRows(columns, labels, times, str(path))
