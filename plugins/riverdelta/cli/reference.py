"""`riverdelta reference`: saves the reference profile, against which drift is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from riverdelta.cli.options import as_json, service, show
from riverdelta.cli.rows import read
from riverdelta.learning.reference import save
from riverdelta.learning.service import load
from riverdelta.serving.profile import LEAST_ROWS, measure


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@service
@click.option("--label", required=True, help="The label column.")
@click.option("--last", type=click.IntRange(LEAST_ROWS), default=1_000_000, show_default=True, help="Use the last N rows.")
@click.option("--text", metavar="COLUMN", multiple=True, help="An id column of a .csv that clients send as strings.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: beside the base).")
@as_json
def reference(
    rows: Path, target: str, label: str, last: int, text: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """Save the reference profile, against which drift is measured.

    ROWS is a .parquet, .feather or .csv file, oldest row first. Use rows that the base was not fitted to, such as its
    validation data: on others its losses are too low. Drift is then measured from the first example on.

    Ids of a .csv are integers; --text COLUMN says that clients send the ids of a column as strings.
    """
    definition = load(target)
    every = read(rows, (label,), text, definition.request_schema)
    skipped = max(len(every) - last, 0)
    kept = replace(every, table=every.table.slice(skipped), first=skipped)
    columns = kept.columns(definition.request_schema)
    labels = kept.labels(label, definition.loss)
    path = save(definition, measure(definition, columns, labels), output)
    made = {"file": str(path), "rows": len(labels), "columns": [*columns]}
    show(made, as_json, lambda made: click.echo(f"{path}: {len(labels):,} rows of {', '.join(columns)}"))
