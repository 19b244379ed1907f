"""Rows: reads Parquet, Feather and CSV files as columns of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import dataset

from riverdelta.core.errors import InvalidInput, near

_KINDS = (".parquet", ".feather", ".csv")
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Rows:
    """Rows of the file at `path`, from its row `first` on; errors name the file and the row."""

    path: Path
    table: pa.Table | pa.RecordBatch
    first: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def values(self, name: str) -> npt.NDArray[Any] | list[Any]:
        """Return a column as an array of numbers, or a list of strings or lists; raises `InvalidInput` at an empty value."""
        column = self.table.column(name)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if column.null_count:
            self.refuse(f"column {name!r} is empty", column.is_null(), "fill it as the clients of the service do")
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
        found: npt.NDArray[Any] | list[Any] = column.to_numpy(zero_copy_only=False) if numeric else column.to_pylist()
        return found

    def numbers(self, name: str, expected: str) -> npt.NDArray[Any]:
        """Return a column of numbers; raises `InvalidInput`, with `expected`, if it holds anything else."""
        found = self.values(name)
        if isinstance(found, list):
            raise InvalidInput(f"{self.path}: column {name!r} holds {found[0]!r} at row {self.first}; expected {expected}")
        return found

    def refuse(self, what: str, wrong: Any, then: str) -> None:
        """Raise `InvalidInput` naming the first row that is `wrong`, bool[N], if any."""
        if len(rows := np.flatnonzero(wrong)):
            raise InvalidInput(f"{self.path}: {what} at row {self.first + int(rows[0])}; {then}")


def read(path: Path, names: Sequence[str]) -> Rows:
    """Return all rows of a file; raises `InvalidInput` if it cannot be read or lacks one of the columns `names`."""
    with _opened(path, names) as source:
        return Rows(path, source.to_table(columns=list(dict.fromkeys(names))))


def blocks(path: Path, names: Sequence[str]) -> Iterator[Rows]:
    """Yield the rows of a file in order, in blocks; raises as `read` does."""
    first = 0
    with _opened(path, names) as source:
        for block in source.to_batches(columns=list(dict.fromkeys(names)), batch_size=_BLOCK_ROWS):
            if len(block):
                yield Rows(path, block, first)
            first += len(block)


@contextmanager
def _opened(path: Path, names: Sequence[str]) -> Iterator[dataset.Dataset]:
    if path.suffix not in _KINDS:
        raise InvalidInput(f"{path} ends in {path.suffix!r}; expected {', '.join(_KINDS)}")
    try:
        source = dataset.dataset(path, format=path.suffix[1:])
        for name in names:
            if name not in source.schema.names:
                raise InvalidInput(f"{path} has no column {name!r}: {near(name, source.schema.names)}")
        yield source
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None
