"""Rows: reads Parquet, Feather and CSV files as columns of a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute, csv, dataset

from riverdelta.core.errors import InvalidInput, near
from riverdelta.core.features import Column
from riverdelta.core.losses import Loss
from riverdelta.core.request import Request

_KINDS = (".parquet", ".feather", ".csv")
_BLOCK_ROWS = 16_384
#: A number, and an integer as JSON writes it, of no more digits than 64 bits have.
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


_NO_REQUEST = Request()


@dataclass(frozen=True)
class Rows:
    """Rows of the file at `path`, from its row `first` on; errors name the file and the row.

    `text` names the id columns whose values are strings, however they look.
    """

    path: Path
    table: pa.Table | pa.RecordBatch
    first: int = 0
    text: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.table)

    def values(self, column: Column) -> npt.NDArray[Any] | list[Any]:
        """Return the values of a column of a request, as a client would send them: an array of numbers, or a list.

        Ids of a CSV file are integers, or strings if the column is named in `text`. Raises `InvalidInput` naming the column and
        the first value that does not fit.
        """
        name, text = column.name, column.name in self.text or column.dtype == "string"
        if column.shape == (1,):
            column = replace(column, shape=())
        if column.kind != "id" and column.dtype != "string" and not column.shape:
            return self.numbers(name, f"{column} values")
        found = self._held(name)
        if self.path.suffix == ".csv" and column.kind == "id" and not text:
            then = f"expected integers of 64 bits; if clients send all of these ids as strings, add --text {name}"
            return np.array(list(map(int, self._matching(name, found, _is_integer, then))), np.int64)
        integers = pa.types.is_integer(found.type) and column.kind == "id" and not text
        expected = "lists, in a .parquet" if column.shape else "strings" if text else "integers of 64 bits or strings"
        if not (integers or (_is_list if column.shape else _is_text)(found.type)):
            raise InvalidInput(f"{self.path}: column {name!r} holds {found.type}, and is {column}; cast it to {expected}")
        return found.to_numpy(zero_copy_only=False) if integers else found.to_pylist()

    def columns(self, request: Request) -> dict[str, Any]:
        """Return the columns of a request, as a client would send them: inputs, or their parts where the file has these."""
        return {name: self.values(column) for name, column in request.sent(self.table.schema.names).items()}

    def numbers(self, name: str, expected: str) -> npt.NDArray[Any]:
        """Return a column of numbers, or of true and false; raises `InvalidInput`, with `expected`, for anything else."""
        found, then = self._held(name), f"expected {expected}"
        if self.path.suffix != ".csv":
            kind = found.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                self._matching(name, found, lambda _: False, then)
            return found.to_numpy(zero_copy_only=False)
        if compute.all(compute.match_substring_regex(found, "^(true|false)$", ignore_case=True)).as_py():
            return found.cast(pa.bool_()).to_numpy(zero_copy_only=False)
        written = self._matching(name, found, _NUMBER.fullmatch, then)
        try:
            return np.array(list(map(int, written)), np.int64)
        except (ValueError, OverflowError):
            return np.array(list(map(float, written)))

    def labels(self, name: str, loss: Loss) -> npt.NDArray[Any] | list[Any]:
        """Return the label column, as a client would send it: numbers, or the names of classes where it holds texts."""
        if loss.classes is None or not _is_text((found := self._held(name)).type):
            return self.numbers(name, loss.expected)
        texts: list[Any] = found.to_pylist()
        # A .csv has the places of classes as texts, too.
        places = self.path.suffix == ".csv" and all(map(_is_integer, texts)) and not {*texts} & {*loss.classes}
        return self.numbers(name, loss.expected) if places else texts

    def _held(self, name: str) -> Any:
        found = self.table.column(name)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if found.null_count:
            self.refuse(f"column {name!r} is empty", found.is_null(), "fill it as the clients of the service do")
        return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found

    def _matching(self, name: str, found: Any, fits: Callable[[Any], Any], then: str) -> list[Any]:
        values: list[Any] = found.to_pylist()
        for at, value in enumerate(values):
            if not fits(value):
                raise InvalidInput(f"{self.path}: column {name!r} holds {value!r} at row {self.first + at}; {then}")
        return values

    def refuse(self, what: str, wrong: Any, then: str) -> None:
        """Raise `InvalidInput` naming the first row that is `wrong`, bool[N], if any."""
        if len(rows := np.flatnonzero(wrong)):
            raise InvalidInput(f"{self.path}: {what} at row {self.first + int(rows[0])}; {then}")


def read(path: Path, names: Sequence[str], text: Sequence[str] = (), request: Request = _NO_REQUEST) -> Rows:
    """Return all rows of a file with the columns `names` and those of a request.

    Raises `InvalidInput` if it cannot be read or lacks one of them.
    """
    with _opened(path, names, text, request) as (source, names):
        return Rows(path, source.to_table(columns=list(dict.fromkeys(names))), text=frozenset(text))


def blocks(path: Path, names: Sequence[str], text: Sequence[str] = (), request: Request = _NO_REQUEST) -> Iterator[Rows]:
    """Yield the rows of a file in order, in blocks; raises as `read` does."""
    first = 0
    with _opened(path, names, text, request) as (source, names):
        for block in source.to_batches(columns=list(dict.fromkeys(names)), batch_size=_BLOCK_ROWS):
            if len(block):
                yield Rows(path, block, first, frozenset(text))
            first += len(block)


@contextmanager
def _opened(
    path: Path, names: Sequence[str], text: Sequence[str], request: Request
) -> Iterator[tuple[dataset.Dataset, Sequence[str]]]:
    if path.suffix not in _KINDS:
        raise InvalidInput(f"{path} ends in {path.suffix!r}; expected {', '.join(_KINDS)}")
    # pyarrow would take 007 for 7 and the date of an id for a number, so every column is read as it is written.
    kind = dataset.CsvFileFormat() if path.suffix == ".csv" else path.suffix[1:]
    try:
        names = (*names, *request.sent(dataset.dataset(path, format=kind).schema.names))
        if unread := set(text) - set(names):
            raise InvalidInput(f"--text {min(unread)}: the service has no such column; {near(min(unread), names)}")
        if path.suffix == ".csv":
            types = dict.fromkeys(names, pa.string())
            options = csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
            kind = dataset.CsvFileFormat(convert_options=options)
        source = dataset.dataset(path, format=kind)
        for name in names:
            if name not in source.schema.names:
                raise InvalidInput(f"{path} has no column {name!r}: {near(name, source.schema.names)}")
        yield source, names
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None


def _is_integer(value: str) -> bool:
    return _INTEGER.fullmatch(value) is not None and -(2**63) <= int(value) < 2**63


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
