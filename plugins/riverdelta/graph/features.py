"""Features: what corrections read of the columns of a request, in numpy and in ONNX nodes that compute the same.

The base reads a column as it is. Corrections read an id int64[N], a number float32[N] or a vector float32[N, D]:

| column | feature | conversion |
|---|---|---|
| integers or bools [N] or [N, 1] | id | exact: true is 1, and a uint64 keeps its bits (two's complement) |
| strings [N] or [N, 1] | id | `core.hashing.id64` of each |
| floats [N] or [N, 1] | number | to the nearest float32, exact from float16 |
| floats [N, D] | vector | as of numbers |
| declared `float32` or `float32[D]`: integers or bools | number or vector | to the nearest float32, exact up to 2²⁴ |
| declared `int64`: floats | id | exact: only integers that the type holds without gaps are accepted |

Any other column is a tensor, which corrections cannot read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from riverdelta.core.errors import ConfigurationError, InvalidInput, kind
from riverdelta.core.features import Column, Columns, Schema
from riverdelta.core.hashing import id64
from riverdelta.core.nodes import Nodes
from riverdelta.core.request import Request

#: The journal keeps a column as it was sent under its name with this prefix, if it keeps the feature under the name itself.
RAW = "#input/"


@dataclass(frozen=True)
class Feature:
    """One feature: the `column` that corrections read, its `source`, and its place `at` in the rows of the source, if it is one
    of several; `tap` is whether the source is a tensor within the base.
    """

    column: Column
    source: Column
    at: int | None = None
    tap: bool = False

    @cached_property
    def same(self) -> bool:
        """Whether the source is read as it is."""
        same = (self.column.dtype, self.column.shape) == (self.source.dtype, self.source.shape)
        return same and self.at is None

    @property
    def hashed(self) -> bool:
        """Whether it is the id of a string."""
        return self.source.dtype == "string" and self.column.kind == "id"

    @property
    def tensor(self) -> str:
        """The name of a converted feature in a merged model."""
        return tensor_of(self.column.name)

    @property
    def id_input(self) -> str:
        """The input of a merged model for the id of a string, which a graph cannot hash."""
        return f"{self.column.name}_id64"

    def of(self, array: npt.NDArray[Any], first: int = 0) -> npt.NDArray[Any]:
        """Return the feature of the source's values; raises `InvalidInput` naming the row, counted from `first` on."""
        if self.same:
            return array
        array = self.alone(array)
        if self.hashed:
            return np.array([id64(text) for text in array.tolist()], np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            found = array.astype(self.column.dtype)
        if array.dtype.kind == "f":
            limit = 2.0 ** (np.finfo(array.dtype).nmant + 1)
            is_id = self.column.kind == "id"
            good = (np.abs(array) < limit) & (array == np.trunc(array)) if is_id else np.isfinite(found)
            if not good.all():
                at = int(np.argwhere(~good)[0][0])
                most = int(limit) - 1 if is_id else np.finfo(np.float32).max
                raise InvalidInput(
                    f"column {self.column.name!r} holds {array[at].tolist()} at row {first + at}; corrections read it as "
                    f"{self.column}, so expected {'integers' if is_id else 'numbers'} from {-most} to {most}"
                )
        return np.ascontiguousarray(found)

    def alone(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of the source that the feature is made of, in the feature's shape."""
        return (array if self.at is None else array[:, self.at]).reshape(len(array), *self.column.shape)

    def export(self, nodes: Nodes, tensor: str) -> str:
        """Append the nodes that compute `of`, from the source's tensor, or from `id_input`; return the feature's tensor."""
        if self.same:
            return tensor
        if not self.hashed:
            if self.at is not None:
                tensor = nodes.add("Gather", tensor, nodes.constant(self.at, np.int64), axis=1)
            elif self.source.shape != self.column.shape:
                tensor = nodes.add("Reshape", tensor, nodes.constant(np.array([-1, *self.column.shape], np.int64)))
            if self.source.dtype != self.column.dtype:
                tensor = nodes.cast(tensor, helper.np_dtype_to_tensor_dtype(self.column.numpy))
        return nodes.named(self.tensor, tensor)


class Features(dict[str, Feature]):
    """Every feature that corrections may read, by name: inputs of the base, named parts of them, taps and declared columns.

    `request` is what clients send, and `declared` its columns that the base lacks.
    """

    request: Request
    declared: Schema

    @classmethod
    def of_parts(
        cls, inputs: Schema, taps: Schema, declared: Schema, names: Mapping[str, Sequence[str]] = {}, model: str = "the base"
    ) -> Features:
        """Return the features of the base's inputs, taps and declared columns; `names` are those of an input's parts.

        A declared column with the name of an input or of a part of one says how corrections read it. Raises
        `ConfigurationError` naming what does not fit.
        """
        made, given, unused = cls(), dict[str, tuple[str, ...]](), dict(declared)
        sent = dict(inputs)
        for name, listed in names.items():
            sent[name], given[name] = _named(name, listed, inputs, model)
        for name, source in list(sent.items()):
            made[name] = read(source, unused.pop(name, None))
            sent[name] = made[name].source
        for name, listed in given.items():
            whole = Column(name, sent[name].dtype)
            for at, one in enumerate(listed):
                made._refuse_taken("name", one)
                part = read(replace(whole, name=one), unused.pop(one, None))
                made[one] = replace(part, source=replace(sent[name], number=part.source.number), at=at)
        for name, column in taps.items():
            made._refuse_taken("tap", name)
            made[name] = _read_tap(column)
        for name, column in unused.items():
            made._refuse_taken("declared column", name)
            made[name] = read(column, flat=False)
        for name, feature in made.items():
            if feature.hashed and feature.id_input in made:
                raise ConfigurationError(
                    f"the column {feature.id_input!r} has the name that the merged model gives to the id of {name!r}; choose "
                    f"another name"
                )
        made.declared = Schema(unused)
        made.request = Request({**sent, **unused})
        made.request.optional = frozenset(name for name, column in unused.items() if column.time)
        made.request.names = {
            name: Schema({one: replace(made[one].source, name=one, shape=(), axes=()) for one in listed})
            for name, listed in given.items()
        }
        return made

    def _refuse_taken(self, what: str, name: str) -> None:
        if name in self:
            raise ConfigurationError(
                f"{what} {name!r} has the name of an existing column ({', '.join(self)}); choose another name"
            )

    @cached_property
    def schema(self) -> Schema:
        """The features as columns."""
        made = Schema({name: feature.column for name, feature in self.items()})
        made.declarable = frozenset(name for name, f in self.items() if not f.tap and f.source.dtype != "string")
        made.texts = frozenset(self._hashed)
        made.unsigned = frozenset(n for n, f in self.items() if f.source.dtype == "uint64" and f.column.kind == "id")
        return made

    def fed(self, columns: Columns, found: Columns) -> Columns:
        """Return what a merged model is fed: the columns of a request, and the ids of its strings, of features `found`."""
        if not self._hashed:
            return columns
        ids = {self[name].id_input: found[name] for name in self._hashed if name in found}
        return {**columns, **ids}

    def texts(self, columns: Columns) -> Columns:
        """Return the strings of checked columns that corrections read as ids, object[N] each, by the names of the ids."""
        hashed = ((name, self[name]) for name in self._hashed)
        return {name: feature.alone(columns[feature.source.name]) for name, feature in hashed if feature.source.name in columns}

    @cached_property
    def _hashed(self) -> tuple[str, ...]:
        return tuple(name for name, feature in self.items() if feature.hashed)

    def split(self, columns: Columns, names: Iterable[str], first: int = 0) -> tuple[Columns, dict[str, npt.NDArray[Any]]]:
        """Return what a merged model is fed of checked columns, and the features `names` without the taps.

        Raises `InvalidInput` naming a column whose values have no such feature.
        """
        found = {}
        for name in names:
            feature = self[name]
            if not feature.tap and (array := columns.get(feature.source.name)) is not None:
                found[name] = array if feature.same else feature.of(array, first)
        return self.fed(columns, found), found


def tensor_of(name: str) -> str:
    """Return the name of a converted feature in a merged model; no part of a correction has such a name.

    >>> tensor_of("age")
    '.feature/age'
    """
    return f".feature/{name}"


def readable(column: Column) -> bool:
    """Whether corrections can read a tap of this type."""
    return column.dtype != "string" and _read_tap(column).column.kind != "tensor"


def _read_tap(column: Column) -> Feature:
    return replace(read(column, flat=column.numpy.kind in "iub"), tap=True)


def _named(name: str, listed: Sequence[str], inputs: Schema, model: str) -> tuple[Column, tuple[str, ...]]:
    """Return an input whose parts have names, and the names."""
    if name not in inputs:
        raise ConfigurationError(f"names has {name!r}, which is not an input of {model}; it has {', '.join(inputs)}")
    column = inputs[name]
    good = not isinstance(listed, str) and all(isinstance(one, str) and one for one in listed)
    if not good or not listed or len(set(listed)) != len(listed):
        shown = kind(listed) if isinstance(listed, str) else repr(list(listed))
        raise ConfigurationError(f"names has {shown} for {name!r}; expected a list of different names")
    if len(column.shape) != 1:
        raise ConfigurationError(f"names has {name!r}, which is {column}; only the parts of [N, F] have names")
    if column.shape[0] not in (None, len(listed)):
        raise ConfigurationError(
            f"names has {len(listed)} names for {name!r}, which is {column}; expected {column.shape[0]}, in the order in which "
            f"the base was fitted"
        )
    return replace(column, shape=(len(listed),)), tuple(listed)


def read(source: Column, declared: Column | None = None, flat: bool = True) -> Feature:
    """Return the feature of a column, as declared; `flat` reads [N, 1] as [N]."""
    row = () if flat and source.shape == (1,) else source.shape
    integers, floats, text = (source.numpy.kind in kinds for kinds in ("iub", "f", "O"))
    if declared is not None:
        if declared.time:
            return _read_time(source, declared, row)
        vector = declared.dtype == "float32" and declared.shape == source.shape and len(row or source.shape) == 1 and not text
        if vector and declared.shape:
            return Feature(replace(declared, name=source.name), replace(source, number=integers))
        if row == declared.shape == () and declared.dtype == "float32" and not text:
            return Feature(Column(source.name, "float32"), replace(source, number=integers))
        if row == declared.shape == () and declared.dtype == "int64":
            return Feature(Column(source.name, "int64"), source)
        if (declared.dtype, declared.shape) not in ((source.dtype, row), (source.dtype, source.shape)):
            raise ConfigurationError(
                f"column {source.name!r} is declared as {declared}, and the base has it as {source}; "
                f"{_allowed(source, row, text)}"
            )
    if source.time:
        return Feature(source, source)
    if not row and (integers or text):
        return Feature(Column(source.name, "int64"), source)
    if floats and len(row) <= 1 and None not in row:
        return Feature(Column(source.name, "float32", row), source)
    return Feature(source, source)


def _read_time(source: Column, declared: Column, row: tuple[int | None, ...]) -> Feature:
    """Return the feature of an input that holds Unix seconds."""
    if row or source.dtype not in ("float64", "int64"):
        raise ConfigurationError(
            f"Seasons({source.name!r}) reads an input of the base that is {source}; expected Unix seconds, float64[N] or "
            f"int64[N]: send the time in a column of its own, as in Seasons('sent_at', 'day')"
        )
    return Feature(replace(declared, name=source.name), replace(source, number=source.dtype == "int64", time=True))


def _allowed(source: Column, row: tuple[int | None, ...], text: bool) -> str:
    name, words = source.name, {"int64": "an id", "float32": "a number"}
    if row == ():
        lines = [
            f"columns={{{name!r}: {spec!r}}} if it is {word}" for spec, word in words.items() if not text or spec == "int64"
        ]
        return f"write {' or '.join(lines)}"
    if len(row) == 1 and row[0] is not None and not text:
        return f"write columns={{{name!r}: 'float32[{row[0]}]'}}"
    return "leave it out of columns: corrections cannot read it"
