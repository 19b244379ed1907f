"""Definition: what a user declares about a scorer, shared by the service, the sidecar and replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Column, Columns, Schema
from riverdelta.core.hashing import id_of
from riverdelta.core.losses import Loss, loss_of
from riverdelta.core.request import Request
from riverdelta.corrections.base import Correction
from riverdelta.corrections.interval import ENDS, Interval, Intervals
from riverdelta.corrections.stack import Stack, lately, listed
from riverdelta.evaluation.drift import Response
from riverdelta.evaluation.slices import Slices
from riverdelta.graph import taps as tapping
from riverdelta.graph.features import RAW, Features
from riverdelta.graph.merge import Model, merge
from riverdelta.graph.signature import Signature
from riverdelta.learning.preparation import Preparation, Prepare

#: The attribute of a decorated class that holds its definition.
ATTRIBUTE = "__riverdelta__"
#: The memory of an encoder grows with rows and with the square of their length.
_ROWS, _SEQUENCES = 16_384, 64


@dataclass(frozen=True)
class Definition:
    """A scorer: a frozen base model, its taps, the declared columns, and the corrections on top.

    Parameters
    ----------
    name
        The name of the scorer and of its home.
    base
        Path of the base model, an ONNX file.
    output
        The base's output to correct: a tensor, a column of it such as `scores[1]`, or a class such as `scores['fraud']`
        (default: its only float output).
    logit, probability
        The same, as a raw output or as a prediction.
    link
        `identity` to insist that the output is raw, or `logit` (for counts `log`) that it is a prediction (default: the graph,
        or a few probed rows, must not contradict).
    taps
        Tensors within the base that corrections read, by column name.
    columns
        Columns that clients send besides the base's inputs, and how corrections read an input or a part of it.
    names
        Names of the parts of an input [N, F], by input.
    corrections
        The corrections, in order.
    on_drift
        The response to a drift alarm (default: only report it).
    slices
        Values of id columns whose losses are also reported separately, by column.
    task
        The loss that corrections lower, or its name (default "binary"): "multiclass", "regression", "count" or "ranking".
    keep_inputs
        Whether the journal keeps every column of a request (default False). Set it if a later rebase to a new base must not
        need a log; the rows may hold personal data.
    margin
        Whether a probability is read at its raw margin, where the graph has one (default True; False for homes made without).
    prepare
        Makes the base's other inputs from the columns of a request, which are then those in `columns` (default: none, and
        requests bring every input).
    service
        What `--service` takes to name this definition.
    interval
        The interval that is served beside each prediction of a number (default: none).
    """

    name: str
    base: Path
    logit: str | None = None
    probability: str | None = None
    taps: Mapping[str, str] = field(default_factory=dict)
    columns: Schema = field(default_factory=Schema)
    corrections: Sequence[Correction] = ()
    on_drift: Response | None = None
    slices: Mapping[str, str | int | Sequence[str | int]] = field(default_factory=dict)
    task: str | Loss = "binary"
    keep_inputs: bool = False
    link: str | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    output: str | None = None
    margin: bool = True
    prepare: Prepare | None = None
    service: str = "SERVICE.py:CLASS"
    interval: Interval | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "corrections", listed(self.corrections))
        times = dict.fromkeys(name for c in self.corrections for name in c.times)
        object.__setattr__(self, "columns", with_times(self.columns, times))

    @property
    def loss(self) -> Loss:
        """The loss of the task, for the base's outputs and classes."""
        return self.signature.loss

    @cached_property
    def signature(self) -> Signature:
        """The base model, read and checked; raises `ConfigurationError` if the name of the task is unknown."""
        loss = loss_of(self.task)
        return Signature.read(self.base, self.logit, self.probability, loss, self.link, self.output, self.margin)

    @cached_property
    def features(self) -> Features:
        """What corrections may read: the base's inputs, named parts of them, the taps and the declared columns."""
        return tapping.all_features(self.signature, self.taps, self.columns, self.names)

    @cached_property
    def schema(self) -> Schema:
        """The features as columns."""
        return self.features.schema

    def merge(
        self,
        stack: Stack,
        gate_weight: float = 1.0,
        provenance: Mapping[str, str] | None = None,
        intervals: Intervals | None = None,
    ) -> Model:
        """Return the merged model of the base and a stack, with the `intervals` that were learned (default: fresh ones)."""
        ends = intervals or self.new_intervals()
        return merge(self.signature, stack, self.taps, self.columns, gate_weight, provenance, self.names, ends)

    @cached_property
    def request_schema(self) -> Request:
        """The columns that a client sends: the base's inputs, or the names of their parts, and the declared columns.

        With `prepare` they are the declared ones, and inputs with a declared part.
        """
        every = self.features.request
        if self.prepare is None:
            return every
        sent = dict.fromkeys(self.features[name].source.name for name in self.columns)
        request = Request({name: every[name] for name in sent})
        request.optional = every.optional
        request.names = {name: parts for name, parts in every.names.items() if name in sent}
        return request

    @cached_property
    def preparation(self) -> Preparation | None:
        """What makes the inputs of the base that requests do not bring; None if they bring all."""
        if self.prepare is None:
            return None
        sent = self.request_schema
        made = Schema({name: column for name, column in self.signature.inputs.items() if name not in sent})
        return Preparation(self.prepare, sent, made)

    def complete(self, columns: Columns) -> Columns:
        """Return checked columns of a request with the inputs of the base that `prepare` makes; raises as it does."""
        return columns if self.preparation is None else self.preparation.complete(columns)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of a request that the base's outputs depend on."""
        return tuple(self.signature.inputs if self.prepare is None else self.request_schema)

    @property
    def rows_at_once(self) -> int:
        """The number of rows that the base scores at once outside of requests: few if it reads texts or sequences."""
        inputs = self.signature.inputs.values()
        wide = self.prepare is not None or any(None in column.shape or column.dtype == "string" for column in inputs)
        return _SEQUENCES if wide else _ROWS

    def new_stack(self) -> Stack:
        """Return a fresh stack, bound to the schema."""
        stack = Stack([c.clone() for c in self.corrections], self.loss)
        stack.bind(self.schema)
        return stack

    @property
    def lately(self) -> dict[str, list[str]]:
        """The tables, by their names in the merged model, that the graphs of older releases lack (see `stack.lately`)."""
        return lately(self.corrections) | ({} if self.interval is None else {ENDS: []})

    @cached_property
    def journal(self) -> Schema:
        """The columns of a row that the journal keeps: features, and with `keep_inputs` all that is sent."""
        sent = {name: self.request_schema[name.removeprefix(RAW)] for name in self.unread} if self.keep_inputs else {}
        return Schema({name: self.schema[name] for name in self.learned} | sent)

    def split(self, columns: Columns, first: int = 0) -> tuple[Columns, dict[str, NDArray[Any]]]:
        """Return what a merged model is fed of checked columns, and what the journal keeps of them, without the taps.

        What `prepare` makes is included if `columns` are complete. Raises `InvalidInput` naming a column whose values have no
        such feature.
        """
        fed, found = self.features.split(columns, self.learned, first)
        if self.keep_inputs:
            found |= {name: columns[name.removeprefix(RAW)] for name in self.unread}
        return fed, found

    @cached_property
    def recorded(self) -> Schema:
        """The features that the journal keeps, or the columns of which they are read."""
        has = {name.removeprefix(RAW) for name in self.journal}
        found = Schema({name: self.schema[name] for name, f in self.features.items() if name in has or f.source.name in has})
        found.texts, found.unsigned = self.schema.texts, self.schema.unsigned
        return found

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """The columns of a request, by their names in the journal, that no correction and no slice reads."""
        read = {name: name in self.learned for name in self.request_schema}
        return tuple(RAW + name if read[name] else name for name in read if not (read[name] and self.features[name].same))

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """The features that a correction or a slice reads."""
        return tuple(dict.fromkeys([*(name for c in self.corrections for name in c.reads), *self.slices]))

    def new_intervals(self) -> Intervals | None:
        """Return fresh intervals, None without any; raises `ConfigurationError` if the task has no number to predict."""
        if self.interval is None:
            return None
        self.interval.check(self.loss, self.slices)
        listed = self.slices.get(self.interval.by or "", [])
        values = [listed] if isinstance(listed, str | int) else list(listed)
        ids = {str(value): own for value in values if (own := id_of(value)) is not None}
        return Intervals(self.interval, self.loss, ids)

    def new_slices(self) -> Slices:
        """Return fresh slices; raises `ConfigurationError` if a column is not an id."""
        return Slices(self.slices, self.schema, self.loss)

    def fingerprint_of_0_1(self) -> str:
        """Return what version 0.1 wrote to `owner`, a file of a home: digests of the base and the stack."""
        return f"{self.signature.digest[:16]}-{self.new_stack().fingerprint_of_0_1()}"


def with_times(columns: Schema, times: Iterable[str]) -> Schema:
    """Return the declared columns and those of `times`, which hold Unix seconds.

    Raises `ConfigurationError` if one is declared as anything else.
    """
    made = Schema(columns)
    for name in times:
        if name in made and (made[name].dtype, made[name].shape) != ("float64", ()):
            raise ConfigurationError(
                f"column {name!r} is declared as {made[name]}, and Seasons reads it; leave it out of columns, or write "
                f"columns={{{name!r}: 'float64'}}"
            )
        made[name] = Column(name, "float64", time=True)
    return made


_EXAMPLES = {
    "taps": '{"item_vec": "embedding_3"}',
    "names": '{"X": ["age", "income"]}, with the input whose columns they are',
    "columns": '{"user_id": "int64"}',
    "slices": '{"country": ["de", "fr"]}',
}


def mapped(option: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what an option of `@online` maps; raises `ConfigurationError` that shows a mapping, if it is another value."""
    if not isinstance(given or {}, Mapping):
        raise ConfigurationError(f"{option} is {given!r}; write {option}={_EXAMPLES[option]}")
    return dict(given or {})
