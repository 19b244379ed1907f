"""`riverdelta reference`: the reference profile of the base's training data, which drift is measured against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv, feather, parquet

from riverdelta.cli.options import as_json, service, show
from riverdelta.core.errors import InvalidInput, near
from riverdelta.learning.definition import load
from riverdelta.learning.reference import save
from riverdelta.serving.profile import LEAST_ROWS, measure

_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": parquet.read_table,
    ".feather": feather.read_table,
    ".csv": csv.read_csv,
}


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@service
@click.option("--label", required=True, help="The column of the labels, 0 and 1.")
@click.option("--last", type=click.IntRange(LEAST_ROWS), default=1_000_000, show_default=True, help="How many rows count.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file; beside the base by default.")
@as_json
def reference(rows: Path, target: str, label: str, last: int, output: Path | None, as_json: bool) -> None:
    """Save the reference profile of the base's training data.

    ROWS is a .parquet, .feather or .csv file, in the order of time. Drift is then measured from the first example on. Use rows
    that the base was not fitted to, such as its validation data.
    """
    definition = load(target)
    table = _read(rows)
    table = table.slice(max(len(table) - last, 0))
    for name in (label, *definition.request_schema):
        if name not in table.column_names:
            raise InvalidInput(f"{rows} has no column {name!r}: {near(name, table.column_names)}")
    columns = {name: _values(table, name) for name in definition.request_schema}
    labels = _values(table, label)
    if isinstance(labels, list):
        raise InvalidInput(f"column {label!r} holds {labels[0]!r}; expected 0 and 1")
    labels = labels.astype(np.float32)
    path = save(definition, measure(definition, columns, labels), output)
    made = {"file": str(path), "rows": len(labels), "columns": [*columns]}
    show(made, as_json, lambda made: click.echo(f"{path}: {len(labels):,} rows of {', '.join(columns)}"))


def _read(path: Path) -> pa.Table:
    if path.suffix not in _READERS:
        raise InvalidInput(f"{path} ends in {path.suffix!r}; expected {', '.join(_READERS)}")
    try:
        return _READERS[path.suffix](path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None


def _values(table: pa.Table, name: str) -> npt.NDArray[Any] | list[Any]:
    """A column as an array of numbers, or as a list of strings or of lists."""
    column = table.column(name).combine_chunks()
    if column.null_count:
        raise InvalidInput(f"column {name!r} has {column.null_count} empty values; fill them as the service's clients do")
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    values: npt.NDArray[Any] | list[Any] = column.to_numpy(zero_copy_only=False) if numeric else column.to_pylist()
    return values
