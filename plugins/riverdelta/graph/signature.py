"""Signature: the inputs and the output of a base model, or the reason why it cannot be corrected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import ValueInfoProto

from riverdelta.core.digests import Identity, file_digest, identify
from riverdelta.core.errors import ModelError, Unsupported
from riverdelta.core.features import DTYPES, Column, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.graph.axes import column_of, is_batch, kind_of, type_of
from riverdelta.graph.exporters import with_dynamic_batch
from riverdelta.graph.head import Head
from riverdelta.graph.heads import Outputs
from riverdelta.graph.labels import check_classes
from riverdelta.graph.link import Link
from riverdelta.graph.margin import checked_margin, raw_of
from riverdelta.graph.probe import Probe
from riverdelta.graph.reading import files_of, read_model
from riverdelta.graph.shares import evidence_of


@dataclass(frozen=True)
class Signature:
    """A base model's structure, without its external weights, and what follows from it.

    `inputs` are the columns that it takes; `output` is corrected, and is a raw output of `loss` or, where `predicts`, a
    prediction, which the graph may have `proved`; `head` is how it is read, at its raw `margin` if the graph has one; `shapes`
    has the inferred type of every tensor; `read_as` identifies the model file and its external data as they were read.
    """

    path: Path
    model: onnx.ModelProto
    inputs: Schema
    output: str
    predicts: bool
    proved: bool
    margin: bool
    head: Head
    loss: Loss
    shapes: dict[str, ValueInfoProto]
    read_as: tuple[Identity, ...]

    @classmethod
    def read(
        cls,
        path: str | Path,
        logit: str | None = None,
        probability: str | None = None,
        loss: Loss = LOG_LOSS,
        link: str | None = None,
        output: str | None = None,
        margin: bool = True,
    ) -> Signature:
        """Read a base model; raises `ModelError` or `Unsupported` with the reason and how to fix it.

        `output` names what is corrected: a tensor, a column of it (`scores[1]`) or a class (`scores['fraud']`). Without it the
        only float output is taken, if the graph proves what it is or a few probed rows show it. `link` settles what cannot be
        proved: `identity` if the output is raw, the name of the raw output (`logit`) if it is a prediction. `logit` and
        `probability` give both. Without `margin`, a probability becomes a logit even if the graph has the raw number.
        """
        path = Path(path)
        named, word = Link(loss).said(path, output, logit, probability, link)
        model, shapes = read_model(path)
        read_as, inputs = identify(*files_of(path, model)), inputs_of(path, model)
        if not inputs:
            raise ModelError(f"{path.name} has no inputs; a scorer takes at least one")
        outputs = Outputs(path, model, shapes, loss)
        name, head = outputs.find(named)
        loss = outputs.resolved(head)
        probe = Probe(path, model, inputs, shapes)
        if named is None or not isinstance(outputs.split(named)[1], int):
            check_classes(outputs, name, head, probe)
        loss = outputs.resolved(head)
        evidence = evidence_of(name, head, loss, probe)
        predicts, found = evidence.predicts(word, link is not None), None
        if predicts and margin:
            found = checked_margin(outputs.wiring, head, probe, evidence.link)
        elif not predicts and loss.logit:
            head = raw_of(outputs, name, head)
        known = predicts, evidence.proved, found is not None
        return cls(path, model, inputs, name, *known, found or head, loss, shapes, read_as)

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of the model file and its external data, in hexadecimal; raises `ModelError` if they have changed."""
        digest = file_digest(*files_of(self.path, self.model))
        self.check_unchanged()
        return digest

    def check_unchanged(self) -> None:
        """Raise `ModelError` if the model file or its external data have changed since they were read."""
        if identify(*files_of(self.path, self.model)) != self.read_as:
            raise ModelError(f"{self.path} has changed since it was read; restart with the file that you want to serve")

    @property
    def batch(self) -> str:
        """The name of the batch axis."""
        first = next(i for i in self.model.graph.input if i.name in self.inputs)
        return first.type.tensor_type.shape.dim[0].dim_param or "batch"


def inputs_of(path: Path, model: onnx.ModelProto) -> Schema:
    """Return the inputs as columns, without those that are stored; raises as `input_of` does."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return Schema({value.name: input_of(path, model, value) for value in model.graph.input if value.name not in stored})


def input_of(path: Path, model: onnx.ModelProto, value: ValueInfoProto) -> Column:
    """Return an input as a column; raises `ModelError` or `Unsupported` with the reason if its type or shape does not fit."""
    dims = value.type.tensor_type.shape.dim
    if not dims or dims[0].HasField("dim_value"):
        got, how = [d.dim_value or d.dim_param or "?" for d in dims], with_dynamic_batch(model, path.name)
        raise ModelError(f"{path.name}: input {value.name!r} has shape {got}, without a dynamic batch axis; {how}")
    if not is_batch(model, value):
        raise ModelError(
            f"{path.name}: input {value.name!r} is {type_of(value)}, and {dims[0].dim_param!r} is not the batch axis: other "
            f"inputs have it elsewhere; give it the batch axis first, or a constant in the model"
        )
    column = column_of(model, value)
    if column is None or column.dtype not in DTYPES:
        kind = kind_of(value.type.tensor_type.elem_type)
        raise Unsupported(f"{path.name}: input {value.name!r} has type {kind}; expected numbers or strings")
    return column
