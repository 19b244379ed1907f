"""Rows: reads Parquet, Feather and CSV files as columns of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv, dataset, feather, parquet

from riverdelta.core.errors import InvalidInput, near

_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": parquet.read_table,
    ".feather": feather.read_table,
    ".csv": csv.read_csv,
}


def read(path: Path, names: Sequence[str]) -> pa.Table:
    """Return all rows of a file; raises `InvalidInput` if it cannot be read or lacks one of the columns `names`."""
    _check(path)
    try:
        table = _READERS[path.suffix](path)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
    _need(path, names, table.column_names)
    return table


def blocks(path: Path, names: Sequence[str], rows: int = 16_384) -> Iterator[pa.RecordBatch]:
    """Yield the columns `names` of a file in order, at most `rows` rows at a time; raises as `read` does."""
    _check(path)
    try:
        source = dataset.dataset(path, format=path.suffix[1:])
        _need(path, names, source.schema.names)
        yield from source.to_batches(columns=list(dict.fromkeys(names)), batch_size=rows)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None


def values(rows: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[Any] | list[Any]:
    """Return a column as an array of numbers, or as a list of strings or of lists."""
    column = rows.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        raise InvalidInput(f"column {name!r} has {column.null_count} empty values; fill them as the clients of the service do")
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    found: npt.NDArray[Any] | list[Any] = column.to_numpy(zero_copy_only=False) if numeric else column.to_pylist()
    return found


def numbers(rows: pa.Table | pa.RecordBatch, name: str, expected: str) -> npt.NDArray[Any]:
    """Return a column of numbers; raises `InvalidInput`, with `expected`, if it holds anything else."""
    found = values(rows, name)
    if isinstance(found, list):
        raise InvalidInput(f"column {name!r} holds {found[0]!r}; expected {expected}")
    return found


def _check(path: Path) -> None:
    if path.suffix not in _READERS:
        raise InvalidInput(f"{path} ends in {path.suffix!r}; expected {', '.join(_READERS)}")


def _need(path: Path, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise InvalidInput(f"{path} has no column {name!r}: {near(name, found)}")
