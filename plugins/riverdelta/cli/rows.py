"""Rows: reads Parquet, Feather and CSV files as columns of a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute, csv, dataset

from riverdelta.core.errors import InvalidInput, near
from riverdelta.core.features import Column

_KINDS = (".parquet", ".feather", ".csv")
_BLOCK_ROWS = 16_384
#: What looks like a number, and an integer as JSON writes it.
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_INTEGER = r"(0|-?[1-9][0-9]*)"
_DIGITS = len(str(-(2**63)))
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True)
class Rows:
    """Rows of the file at `path`, from its row `first` on; errors name the file and the row.

    `text` names the id columns whose values are strings, however they look; `integers` has what the ids of other columns of a
    CSV file were so far.
    """

    path: Path
    table: pa.Table | pa.RecordBatch
    first: int = 0
    text: frozenset[str] = frozenset()
    integers: dict[str, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def values(self, column: Column) -> npt.NDArray[Any] | list[Any]:
        """Return the values of a column of a request, as a client would send them: an array of numbers, or a list.

        Ids of a CSV file are integers if all of them are written as such, and strings if none looks like a number or the column
        is named in `text`. Raises `InvalidInput` naming the first value that is empty or can be read in two ways.
        """
        found, name = self._held(column.name), column.name
        if self.path.suffix == ".csv" and pa.types.is_string(found.type):
            if column.shape:
                raise InvalidInput(f"{self.path}: column {name!r} is {column}, which a .csv cannot hold; write a .parquet")
            if column.kind == "id":
                return found.to_pylist() if name in self.text else self._ids(name, found)
            return self._parsed(name, found, f"{column} values")
        kind = found.type
        ids, numbers = column.kind == "id", pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        fits = pa.types.is_integer(kind) or _is_text(kind) if ids else _is_list(kind) if column.shape else numbers
        if not fits:
            expected = (
                "integers of 64 bits or strings, as clients send its ids" if ids else "lists" if column.shape else "numbers"
            )
            raise InvalidInput(f"{self.path}: column {name!r} holds {kind}, and is {column}; cast it to {expected}")
        if name in self.text and not _is_text(kind):
            raise InvalidInput(
                f"{self.path}: column {name!r} holds {kind}; --text {name} is for strings and .csv: leave it out"
            )
        return found.to_numpy(zero_copy_only=False) if numbers else found.to_pylist()

    def numbers(self, name: str, expected: str) -> npt.NDArray[Any]:
        """Return a column of numbers, or of true and false; raises `InvalidInput`, with `expected`, for anything else."""
        found = self._held(name)
        if pa.types.is_string(found.type) and self.path.suffix == ".csv":
            return self._parsed(name, found, expected)
        if pa.types.is_integer(found.type) or pa.types.is_floating(found.type) or pa.types.is_boolean(found.type):
            return found.to_numpy(zero_copy_only=False)
        raise InvalidInput(f"{self.path}: column {name!r} holds {found[0].as_py()!r} at row {self.first}; expected {expected}")

    def _held(self, name: str) -> Any:
        found = self.table.column(name)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if found.null_count:
            self.refuse(f"column {name!r} is empty", found.is_null(), "fill it as the clients of the service do")
        return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found

    def _ids(self, name: str, found: Any) -> npt.NDArray[Any] | list[Any]:
        """Return the ids of a CSV file, all integers or all words; raises `InvalidInput` at the first that is neither."""
        values, looks = found.to_pylist(), _matches(found, _NUMBER)
        integers = self.integers.setdefault(name, bool(looks.any()))
        wrong = looks if not integers else ~np.array([_fits(value) for value in values], bool)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            others = "integers of 64 bits, as JSON writes them" if integers else "words"
            raise InvalidInput(
                f"{self.path}: column {name!r} holds {values[at]!r} at row {self.first + at} among ids that are {others}; "
                f"if clients send all of these ids as strings, add --text {name}"
            )
        return np.array([int(value) for value in values], np.int64) if integers else values

    def _parsed(self, name: str, found: Any, expected: str) -> npt.NDArray[Any]:
        """Return the numbers of a CSV column, or its truth values if all are true or false."""
        values = found.to_pylist()
        truths = [_TRUTHS.get(value.lower()) for value in values]
        if None not in truths:
            return np.array(truths, np.bool_)
        numbers = _matches(found, _NUMBER)
        if not numbers.all():
            at = int(np.flatnonzero(~numbers)[0])
            raise InvalidInput(
                f"{self.path}: column {name!r} holds {values[at]!r} at row {self.first + at}; expected {expected}"
            )
        if all(map(_fits, values)):
            return np.array([int(value) for value in values], np.int64)
        return np.array([float(value) for value in values], np.float64)

    def refuse(self, what: str, wrong: Any, then: str) -> None:
        """Raise `InvalidInput` naming the first row that is `wrong`, bool[N], if any."""
        if len(rows := np.flatnonzero(wrong)):
            raise InvalidInput(f"{self.path}: {what} at row {self.first + int(rows[0])}; {then}")


def read(path: Path, names: Sequence[str], text: Sequence[str] = ()) -> Rows:
    """Return all rows of a file; raises `InvalidInput` if it cannot be read or lacks one of the columns `names`."""
    with _opened(path, names, text) as source:
        return Rows(path, source.to_table(columns=list(dict.fromkeys(names))), text=frozenset(text))


def blocks(path: Path, names: Sequence[str], text: Sequence[str] = ()) -> Iterator[Rows]:
    """Yield the rows of a file in order, in blocks; raises as `read` does."""
    first, integers = 0, dict[str, bool]()
    with _opened(path, names, text) as source:
        for block in source.to_batches(columns=list(dict.fromkeys(names)), batch_size=_BLOCK_ROWS):
            if len(block):
                yield Rows(path, block, first, frozenset(text), integers)
            first += len(block)


@contextmanager
def _opened(path: Path, names: Sequence[str], text: Sequence[str]) -> Iterator[dataset.Dataset]:
    if path.suffix not in _KINDS:
        raise InvalidInput(f"{path} ends in {path.suffix!r}; expected {', '.join(_KINDS)}")
    if unread := set(text) - set(names):
        raise InvalidInput(f"--text {min(unread)}: the service has no such column; {near(min(unread), names)}")
    # pyarrow would take 007 for 7 and the date of an id for a number, so every column is read as it is written.
    options = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True)
    kind = dataset.CsvFileFormat(convert_options=options) if path.suffix == ".csv" else path.suffix[1:]
    try:
        source = dataset.dataset(path, format=kind)
        for name in names:
            if name not in source.schema.names:
                raise InvalidInput(f"{path} has no column {name!r}: {near(name, source.schema.names)}")
        yield source
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from None


def _matches(found: Any, pattern: str) -> npt.NDArray[np.bool_]:
    matches: npt.NDArray[np.bool_] = compute.match_substring_regex(found, pattern).to_numpy(zero_copy_only=False)
    return matches


def _fits(value: str) -> bool:
    """Whether the text of an integer is one of 64 bits; any other text is not."""
    return len(value) <= _DIGITS and re.fullmatch(_INTEGER, value) is not None and -(2**63) <= int(value) < 2**63


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
