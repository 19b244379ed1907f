"""Inspection: every tensor of a model, with how it can be used and what to write, or why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto

from riverdelta.core.digests import identify
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Column, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.graph.meaning import Evidence
from riverdelta.graph.probe import values_of
from riverdelta.graph.signature import column_of, files_of, input_of, is_batch, output_of, read_model, type_of
from riverdelta.graph.taps import tappable

_COLUMNS = {"id": "id column", "scalar": "number column", "vector": "vector column", "tensor": "base only"}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph: its name, its type with the batch axis as N, the operator that makes it, and its use.

    `place` is `input`, `output` or `inner`; `write` is what to write in `@online` to use it, and `why` says what the graph
    proves or why it cannot be used.
    """

    name: str
    type: str
    producer: str
    place: str
    use: str
    write: str | None = None
    why: str | None = None


def list_tensors(path: str | Path, loss: Loss = LOG_LOSS) -> list[Tensor]:
    """Return every tensor of a model in graph order: inputs first, then each node's outputs; raises `ModelError`."""
    path = Path(path)
    model, shapes = read_model(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    made = [_input(path, model, value) for value in model.graph.input if value.name not in stored]
    final = {value.name for value in model.graph.output}
    read_as = identify(*files_of(path, model))

    def probe(output: str) -> Callable[[], np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
        def values() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            try:
                inputs = Schema({i.name: input_of(path, model, i) for i in model.graph.input if i.name not in stored})
            except ConfigurationError:
                return np.empty(0)
            return values_of(path, model, inputs, output, read_as)

        return values

    for node in model.graph.node:
        for name in filter(None, node.output):
            value, kind = shapes.get(name), _type(model, shapes.get(name))
            tap = tappable(model, value)
            line = None if tap is None else f"taps={{'{_word(name)}': {name!r}}}"
            if name not in final:
                why = None if tap else _untappable(model, value)
                made.append(Tensor(name, kind, node.op_type, "inner", "tap" if tap else "-", line, why))
                continue
            try:
                output_of(path, model, shapes, name, loss)
            except ConfigurationError as error:
                why = str(error).removeprefix(f"{path.name}: ")
                made.append(Tensor(name, kind, node.op_type, "output", "tap" if tap else "-", line, why))
                continue
            use, write, why = _meaning(Evidence.of(path, model, name, loss, probe(name)))
            made.append(Tensor(name, kind, node.op_type, "output", use, write, why))
    return made


def _input(path: Path, model: ModelProto, value: ValueInfoProto) -> Tensor:
    kind = _type(model, value)
    try:
        column = input_of(path, model, value)
    except ConfigurationError as error:
        return Tensor(value.name, kind, "input", "input", "-", None, str(error).removeprefix(f"{path.name}: "))
    why = "corrections cannot read it" if column.kind == "tensor" else None
    return Tensor(value.name, kind, "input", "input", _COLUMNS[column.kind], None, why)


def _meaning(evidence: Evidence) -> tuple[str, str | None, str]:
    """Return an output's use, the line to write, and why."""
    logit, probability = f"logit={evidence.output!r}", f"probability={evidence.output!r}"
    try:
        predicts = evidence.predicts(None, insisted=False)
    except ConfigurationError:
        if evidence.proved == "label":
            return "-", None, f"{evidence.seen} and an integer, a label"
        return "logit or probability", f"{logit} or {probability}", f"{evidence.seen}, so say which it is"
    why = f"proved: it {evidence.seen}" if evidence.proved == "prediction" else f"it {evidence.seen}"
    if evidence.proved == "raw":
        why = "proved: a linear score, of any size" if evidence.range.unbounded else f"proved: it {evidence.seen}"
    return ("probability", probability, why) if predicts else ("logit", logit, why)


def _untappable(model: ModelProto, value: ValueInfoProto | None) -> str:
    column: Column | None = None if value is None else column_of(value)
    if value is None or not value.type.tensor_type.elem_type:
        return "of unknown type"
    if column is None:
        return "no batch axis"
    if not is_batch(model, value):
        return f"its first axis is {value.type.tensor_type.shape.dim[0].dim_param}, not the batch axis"
    return f"{1 + len(column.shape)} axes" if column.dtype in ("int64", "float32") else f"a tap is no {column.dtype}"


def _type(model: ModelProto, value: ValueInfoProto | None) -> str:
    column = None if value is None else column_of(value)
    if value is None or column is None or column.dtype == "object" or not is_batch(model, value):
        return type_of(value)
    axes = [str(d.dim_value or d.dim_param or "?") for d in value.type.tensor_type.shape.dim[1:]]
    return f"{column.dtype}[{', '.join(['N', *axes])}]"


def _word(name: str) -> str:
    """Return a name for a tap, made of the letters and digits of a tensor's name."""
    return "_".join("".join(c if c.isalnum() else " " for c in name).split()).lower() or "tap"
