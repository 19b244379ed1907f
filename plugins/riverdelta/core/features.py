"""Columns: the names, dtypes and shapes of features, and the checks of requests against them.

A block of rows is a dict of named numpy columns of equal length N. An id column is int64[N], a scalar float32[N], a vector
float32[N, D]; any other dtype or shape is a tensor, of which `graph.features` says what corrections read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from riverdelta.core.checked import finite
from riverdelta.core.errors import ConfigurationError, InvalidInput, kind, near, short, too_many_rows
from riverdelta.core.hashing import MOST_ID_LENGTH, id_of
from riverdelta.core.sequences import check_lengths, lengths_of, padded
from riverdelta.core.values import LISTS, array_of_texts, check_texts, described, inside, is_list, leaves, on_one_axis

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]

DTYPES = (
    "int64", "float32", "int32", "bool", "float64", "float16", "int8", "uint8", "int16", "uint16", "uint32", "uint64", "string",
)  # fmt: skip
_NUMBERS, _TEXT = {int, float}, {str, bytes}
_NOT_NUMBERS = {*_TEXT, bool, np.bool_}
_SPELLED = {"id": "an id (int64)", "scalar": "a number (float32)", "vector": "a vector (float32[D])"}
_SPECS = {"id": "int64", "scalar": "float32", "vector": "float32[16]"}
_SPEC = re.compile(r"([a-z]+[0-9]*)\s*(?:\[\s*([0-9]+(?:\s*,\s*[0-9]+)*)\s*\])?")


@dataclass(frozen=True)
class Column:
    """A column: its name, its numpy dtype or `string`, and its shape after the batch axis (None for an axis of any length).

    `number` is whether integers are numbers and not ids, of which a string would be hashed. `axes` are the names of the axes
    of `shape`, if the base gives them any: axes of one name have one length. `time` is whether it holds Unix seconds.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] = ()
    number: bool = False
    time: bool = field(default=False, compare=False)
    axes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def kind(self) -> str:
        """`id`, `scalar`, `vector`, or `tensor` (which corrections cannot use)."""
        if self.dtype == "int64" and not self.shape and not self.number:
            return "id"
        if self.dtype == "float32":
            return {0: "scalar", 1: "vector"}.get(len(self.shape), "tensor") if None not in self.shape else "tensor"
        return "tensor"

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of its arrays: objects for strings."""
        return np.dtype(object if self.dtype == "string" else self.dtype)

    def holds(self, array: npt.NDArray[Any]) -> bool:
        """Whether an array has the dtype and the shape of this column."""
        return array.dtype == self.numpy and self._fits(array)

    def _fits(self, array: npt.NDArray[Any]) -> bool:
        same = array.shape[1:] == self.shape or all(n in (None, m) for n, m in zip(self.shape, array.shape[1:], strict=False))
        return same and array.ndim == 1 + len(self.shape)

    def zeros(self, rows: int) -> npt.NDArray[Any]:
        """Return rows of zeros or of empty strings; an axis of any length has length 1."""
        shape = (rows, *(1 if n is None else n for n in self.shape))
        return np.full(shape, "", object) if self.dtype == "string" else np.zeros(shape, self.dtype)

    def __str__(self) -> str:
        axes = ", ".join("?" if n is None else str(n) for n in ("N", *self.shape))
        return f"{self.dtype}[{axes}]"

    @classmethod
    def parse(cls, name: str, spec: str) -> Column:
        """Read a declaration such as `int64`, `float32` or `float32[16]`.

        >>> str(Column.parse("item_vec", "float32[16]"))
        'float32[N, 16]'
        """
        match = _SPEC.fullmatch(spec.strip()) if isinstance(spec, str) else None
        if match is None or match[1] not in DTYPES or "0" in re.findall(r"[0-9]+", match[2] or ""):
            raise ConfigurationError(
                f"column {name!r} is declared as {spec!r}; write int64 for ids, float32 for a scalar, "
                f"float32[16] for a vector of 16, string for text"
            )
        return cls(name, match[1], tuple(int(n) for n in (match[2] or "").split(",") if n))

    def check(self, value: Any, first: int = 0) -> npt.NDArray[Any]:
        """Return `value` as a C-contiguous array of this column, or raise `InvalidInput` that names the column.

        [N] and [N, 1] are taken for each other. Rows are counted from `first` on.
        """
        if self._flat is not None:
            return self._flat.check(value, first).reshape(-1, 1)
        if self.dtype == "string":
            return self._texts(value, first)
        kinds = leaves(value, 1 + len(self.shape))
        if not self.shape and (not kinds or not LISTS.isdisjoint(kinds)):
            kinds = leaves(value := on_one_axis(value), 1)
        if self.kind != "tensor" and not kinds <= _NUMBERS:
            return self.of_values(value, lambda row: f"row {first + row}")
        if odd := kinds & (_TEXT if self.dtype == "bool" else _NOT_NUMBERS):
            said = "null" if type(None) in odd else f"type {min(odd, key=repr).__name__}"
            raise InvalidInput(f"column {self.name!r} has {said}; expected {self}")
        try:
            # numpy makes floats of integers of which only some are beyond int64.
            array = np.asarray(value, np.uint64 if self.dtype == "uint64" and kinds == {int} else None)
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"column {self.name!r} is ragged or too large ({error}); expected {self}") from None
        self._refuse_another_shape(array)
        if array.dtype.kind in "OUS" and self.kind != "tensor":
            return self.of_values(array.tolist(), lambda row: f"row {first + row}")
        return self._cast(array, first, value)

    @cached_property
    def _flat(self) -> Column | None:
        return replace(self, shape=(), axes=()) if self.shape == (1,) else None

    def _texts(self, value: Any, first: int) -> npt.NDArray[Any]:
        array = array_of_texts(self.name, str(self), on_one_axis(value) if not self.shape else value)
        self._refuse_another_shape(array)
        check_texts(self.name, str(self), array, first)
        return array

    def of_values(self, values: Sequence[Any], where: Callable[[int], str] = "row {}".format) -> npt.NDArray[Any]:
        """Return the values of rows as the array of an id, scalar or vector column.

        An id is a string or a 64-bit integer. A number is an integer or a float, finite as float32. A vector is a list, a tuple
        or an array of numbers. True is neither. Raises `InvalidInput` for anything else; `where` names the row of an index.

        >>> Column("user", "int64").of_values([7, "user-42"]).tolist()
        [7, -6417657526719176593]
        """
        take = id_of if self.kind == "id" else self._numbers
        found = [take(value) for value in values]
        if any(taken is None for taken in found):
            row = next(i for i, taken in enumerate(found) if taken is None)
            many = f"a list of {self.shape[0]} finite numbers" if self.shape else "a finite number"
            one = (
                f"an id: an integer of 64 bits, {-(2**63)} to {2**63 - 1} (send a larger one as a string), "
                f"or a string of at most {MOST_ID_LENGTH} characters"
            )
            expected = one if self.kind == "id" else many
            shown = short(values[row]) + (f" of type {type(values[row]).__name__}" if values[row] is not None else "")
            raise InvalidInput(f"{where(row)} has {shown} for {self.name!r}, which is {self}; expected {expected}")
        return np.array(found, self.dtype).reshape(len(found), *self.shape)

    def _numbers(self, value: Any) -> Any:
        """Return a number, or a list of as many as a row has; None if `value` is neither."""
        if not self.shape:
            return value if finite(value) else None
        items = list(value) if is_list(value) else []
        return items if (len(items),) == self.shape and all(map(finite, items)) else None

    def _refuse_another_shape(self, array: npt.NDArray[Any]) -> None:
        if not self._fits(array):
            raise InvalidInput(f"column {self.name!r} has shape {described(array)}; expected {self}")

    def _cast(self, array: npt.NDArray[Any], first: int, value: Any) -> npt.NDArray[Any]:
        want = self.numpy
        if array.dtype != want:
            if want.kind == "b":
                fits = array.dtype.kind == "b" or not np.setdiff1d(array, (0, 1)).size
            elif want.kind in "iu":
                fits = array.size == 0 or (array.dtype.kind in "iu" and inside(array, want))
            else:
                fits = array.size == 0 or array.dtype.kind in "iuf"
            if not fits:
                # A list is named by its row, because numpy made all its values one type, and so is an integer beyond 64 bits.
                if self.kind == "id" and (not isinstance(value, np.ndarray) or array.dtype.kind in "iu"):
                    self.of_values(array.tolist() if value is array else value, lambda row: f"row {first + row}")
                raise InvalidInput(f"column {self.name!r} has type {array.dtype}; expected {self}")
            with np.errstate(over="ignore"):
                array = array.astype(want)
        if want.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            held = f"column {self.name!r} holds {array[row].tolist()} at row {first + row}"
            raise InvalidInput(f"{held}; expected finite {self} values")
        return np.ascontiguousarray(array)


class Schema(dict[str, Column]):
    """Declares the columns of a scorer by name; make one with `Schema.of`.

    Parameters
    ----------
    columns
        A mapping of each name to its `Column`. `int64` is an id, `float32` a scalar and `float32[16]` a vector; any other type
        or shape is a tensor, which only the base reads.

    Examples
    --------
    >>> schema = Schema.of({"user_id": "int64", "hour": "float32"})
    >>> columns, rows = schema.check({"user_id": [1, "ann"], "hour": [3, 4.5]})
    >>> rows, columns["hour"].dtype.name
    (2, 'float32')
    """

    #: The columns that a declaration can make another kind; None if all can.
    declarable: Collection[str] | None = None
    #: The ids that are hashes of strings in every request, and those that are unsigned and kept by their 64 bits.
    texts: Collection[str] = ()
    unsigned: Collection[str] = ()

    @classmethod
    def of(cls, specs: Mapping[str, str]) -> Self:
        """Return the schema of declarations, as `{"hour": "float32"}`; raises `ConfigurationError` naming an invalid one."""
        return cls({name: Column.parse(name, spec) for name, spec in specs.items()})

    def need(self, name: str, what: str, *kinds: str) -> Column:
        """Return the column `name`, of one of `kinds` if any are given.

        Raises `ConfigurationError` naming its reader `what` and the nearest names, or the kinds.
        """
        if name not in self:
            line = {name: next((spec for kind, spec in _SPECS.items() if kind in kinds), "int64")}
            note = "" if kinds else "; 'float32' if it is a number"
            raise ConfigurationError(
                f"{what} reads column {name!r}, which is neither an input of the base, a tap nor a declared column: "
                f"{near(name, self)} (declare it: columns={line} in a service, Schema.of({line}) without one{note})"
            )
        if kinds and self[name].kind not in kinds:
            shown = " or ".join(_SPELLED[kind] for kind in kinds)
            raise ConfigurationError(
                f"{what} reads column {name!r}, which is {self[name]}; expected {shown}{self._line(name, kinds)}"
            )
        return self[name]

    def _line(self, name: str, kinds: Sequence[str]) -> str:
        """Return what to write so that a column is one of `kinds`, '' if nothing makes it so."""
        column = self[name]
        if (self.declarable is not None and name not in self.declarable) or len(column.shape) > 1 or None in column.shape:
            return ""
        if column.shape and "vector" in kinds:
            return f": write columns={{{name!r}: 'float32[{column.shape[0]}]'}}"
        if column.shape and self.declarable is not None:
            parts = [f"{name}_{at}" for at in range(1, 1 + int(column.shape[0] or 0))]
            return f": name its parts, in order, and read one of them: names={{{name!r}: {parts}}}"
        spec = next((_SPECS[kind] for kind in kinds if kind in ("id", "scalar")), None)
        return "" if column.shape or spec is None else f": write columns={{{name!r}: {spec!r}}}"

    def fits(self, columns: Columns, rows: int) -> None:
        """Raise `InvalidInput` naming the first column of a block that is missing or has another dtype or shape."""
        for name, column in self.items():
            array = columns.get(name)
            if array is None:
                raise InvalidInput(f"column {name!r} is missing; expected {column}")
            if not isinstance(array, np.ndarray) or array.dtype != column.numpy or array.shape != (rows, *column.shape):
                expected = f"{column} of {rows} rows, as of np.array({name}, np.{column.dtype})"
                raise InvalidInput(f"column {name!r} is {described(array)}; expected {expected}")

    def check(
        self, columns: Mapping[str, Any], max_rows: int | None = None, first: int = 0
    ) -> tuple[dict[str, npt.NDArray[Any]], int]:
        """Return the columns as arrays of this schema, and their number of rows N >= 1.

        Raises `InvalidInput` naming the column that is missing, unknown, of a wrong type, shape, length or not finite, and
        `TooLarge` before any column is converted if one has more than `max_rows` rows; rows are counted from `first` on.
        """
        if not isinstance(columns, Mapping):
            raise InvalidInput(f"columns is {kind(columns)}; expected an object of named columns")
        for name in columns:
            if name not in self:
                raise InvalidInput(f"column {short(name)} is not declared: {near(str(name), self)}")
        for name, column in self.items():
            if name not in columns:
                raise InvalidInput(f"column {name!r} is missing; expected {column}")
            if is_list(value := columns[name]):
                if max_rows is not None and len(value) > max_rows:
                    raise too_many_rows(f"column {name!r} has {len(value)} rows", max_rows)
            elif isinstance(value, str | int | float):
                one = short(value)
                raise InvalidInput(f"column {name!r} is {one}; expected {column}, a list with one value a row: write [{one}]")
        open_ended = [name for name, column in self.items() if None in column.shape]
        ragged = {name: lengths_of(columns[name]) for name in open_ended}
        if any(ragged.values()):
            open_numbers = {name: self[name].shape for name in open_ended if self[name].dtype != "string"}
            columns = {**columns, **{n: padded(n, columns[n], shape, max_rows) for n, shape in open_numbers.items()}}
        checked = {name: column.check(columns[name], first) for name, column in self.items()}
        one, rows = next(((name, len(array)) for name, array in checked.items()), ("", 0))
        for name, array in checked.items():
            if len(array) != rows:
                raise InvalidInput(f"column {name!r} has {len(array)} rows, {one!r} has {rows}; expected equal lengths")
        if open_ended:
            check_lengths(checked, {name: self[name].axes for name in open_ended}, ragged)
        if rows == 0:
            raise InvalidInput(f"the columns {', '.join(self)} have 0 rows; expected at least 1")
        return checked, rows
