"""`riverdelta reference`: what is usual in the base's training data, for drift to be measured against."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from riverdelta.cli import operate
from riverdelta.cli.rows import numbers, read, values
from riverdelta.learning.definition import load
from riverdelta.learning.reference import save
from riverdelta.serving.profile import LEAST_ROWS, measure


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@operate.service
@click.option("--label", required=True, help="The column of the labels, 0 and 1.")
@click.option("--last", type=click.IntRange(LEAST_ROWS), default=1_000_000, show_default=True, help="How many rows count.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; beside the base by default.")
def reference(rows: Path, target: str, label: str, last: int, output: Path | None) -> None:
    """Save what is usual in ROWS (.parquet, .feather or .csv, in the order in which they came) beside the base.

    Drift is then measured from the first example on. Take rows that the base was not fitted to, such as its validation data.
    """
    definition = load(target)
    table = read(rows, (label, *definition.request_schema))
    table = table.slice(max(len(table) - last, 0))
    columns = {name: values(table, name) for name in definition.request_schema}
    labels = numbers(table, label, "0 and 1")
    labels = labels.astype(np.float32)
    path = save(definition, measure(definition, columns, labels), output)
    click.echo(f"{path}: {len(labels):,} rows of {', '.join(columns)}")
