"""Parity: compares the corrections inside a merged model with the Python stack, on rows from the journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, ValueInfoProto, helper

from riverdelta.core.errors import ParityError
from riverdelta.core.features import Column, Columns, Floats, Schema
from riverdelta.core.nodes import PREFIX
from riverdelta.corrections.stack import Stack
from riverdelta.graph.axes import typed
from riverdelta.graph.features import Feature, Features, tensor_of

#: The largest allowed difference of raw outputs: in nats, or for values of another unit as a share of their size.
TOLERANCE = 1e-4
#: Raw outputs of losses in nats are compared up to this size; above it float32 has too few digits.
SATURATED = 100.0

Run = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Parity:
    """The largest difference of raw outputs over `rows` rows, and the correction whose residual differs most.

    Values of a unit other than nats differ relative to the size of the row, or of the median row if that is larger.
    """

    gap: float
    worst: str
    rows: int

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Raise `ParityError` naming the correction when the difference exceeds `tolerance`."""
        if not self.gap <= tolerance:
            raise ParityError(
                f"the merged model and the stack differ by {self.gap:.3g} on {self.rows} rows, most in "
                f"{self.worst}; at most {tolerance:g} is allowed"
            )


def corrections_of(merged: onnx.ModelProto, stack: Stack, schema: Schema, taps: Mapping[str, str]) -> onnx.ModelProto:
    """Return the stack's part of a merged model, from base output float32[N, K] and columns to each correction's raw output.

    The journal keeps the inputs of the corrections, not those of the base, so only this part can be run on it.
    """
    loss, base = Column("", "float32", (stack.loss.outputs,)), _base(stack)
    outputs = [typed(name, loss) for name in _outputs(stack)]
    columns = {name: _source(merged, name, taps) for name in stack.reads}
    inputs = [typed(base, loss), *(typed(f"column:{name}", schema[name]) for name in columns)]
    fed = [helper.make_node("Identity", [f"column:{name}"], [source]) for name, source in columns.items()]
    return _part(merged, inputs, outputs, fed, {base, *columns.values()})


def conversions_of(merged: onnx.ModelProto, features: Features, reads: Sequence[str]) -> onnx.ModelProto | None:
    """Return the part of a merged model that converts columns of requests to features; None if there is none."""
    converted = _converted(features, reads).values()
    sources = {f.source.name for f in converted}
    inputs = [value for value in merged.graph.input if value.name in sources]
    outputs = [typed(f"{PREFIX}{f.tensor}", f.column) for f in converted]
    return _part(merged, inputs, outputs) if outputs else None


def compare_conversions(run: Run, features: Features, reads: Sequence[str]) -> None:
    """Raise `ParityError` unless `run`, a session over `conversions_of`, converts extreme values as numpy does, to the bit."""
    converted = _converted(features, reads)
    columns = {f.source.name: extremes(f, features) for f in converted.values()}
    theirs = run(columns)
    for name, feature in converted.items():
        mine, other = feature.of(columns[feature.source.name]), theirs[f"{PREFIX}{feature.tensor}"]
        if (mine.dtype, mine.tobytes()) != (other.dtype, other.tobytes()):
            at = int(np.argwhere(mine != other)[0][0])
            raise ParityError(
                f"the merged model and numpy convert the column {name!r} differently: "
                f"{columns[feature.source.name][at].tolist()} to {other[at].tolist()} and {mine[at].tolist()}"
            )


def extremes(feature: Feature, features: Features) -> npt.NDArray[Any]:
    """Return the values of a feature's source that are hardest to convert: the largest, and those halfway between two."""
    source = feature.source
    dtype = source.numpy
    if dtype.kind == "f":
        most = 2 ** (np.finfo(dtype).nmant + 1) - 1
        ids = any(f.column.kind == "id" for f in features.values() if f.source.name == source.name)
        fractions = (0.1, float(min(np.finfo(dtype).max, np.finfo(np.float32).max)), float(np.finfo(dtype).tiny), 2.0**24 + 1)
        values = [0, 1, -1, most, -most, *(() if ids else (f for f in fractions if f <= float(np.finfo(dtype).max)))]
    else:
        info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
        values = [info.min, info.max, 0, 1, *(v for v in (-1, 2**24 + 1, 2**24 + 3, 2**31) if info.min <= v <= info.max)]
    row = np.array(values, np.uint64 if dtype == np.uint64 else None).astype(dtype)
    shape = [1 if n is None else n for n in source.shape]
    return np.ascontiguousarray(np.broadcast_to(row.reshape(-1, *[1] * len(shape)), (len(row), *shape)))


def compare(run: Run, stack: Stack, columns: Columns, base: Floats) -> Parity:
    """Return the parity between the stack and `run`, a session over `corrections_of`, on base outputs float32[N, K].

    Rows whose base output or columns are not finite are left out: their output is unspecified.
    """
    columns = {name: columns[name] for name in stack.reads}
    finite = np.logical_and.reduce([np.isfinite(a).all(tuple(range(1, a.ndim))) for a in (base, *columns.values())])
    if not finite.all():
        base, columns = base[finite], {name: column[finite] for name, column in columns.items()}
    feeds = {_base(stack): base} | {f"column:{name}": column for name, column in columns.items()}
    if not len(base):
        return Parity(0.0, "nothing", 0)
    theirs, traced = run(feeds), [base, *stack.trace(columns, base)]
    size = _size(stack, traced)
    mine, other = ([one / size for one in each] for each in (traced, [base, *(theirs[name] for name in _outputs(stack))]))
    if stack.loss.unit == "nats":
        mine, other = ([np.clip(one, -SATURATED, SATURATED) for one in each] for each in (mine, other))
    worst = max((_gap(a, b) for a, b in zip(mine[1:], other[1:], strict=True)), default=0.0)
    steps = zip(stack.names, np.diff(mine, axis=0), np.diff(other, axis=0), strict=True)
    gaps = {name: _gap(a, b) for name, a, b in steps}
    return Parity(worst, max(gaps, key=lambda name: gaps[name], default="nothing"), len(base))


def _size(stack: Stack, raws: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """Return the size float64[N, 1] by which the differences of a row are divided: 1 in nats."""
    sizes = np.max([np.abs(raw).max(axis=1, keepdims=True) for raw in raws], axis=0).astype(np.float64)
    if stack.loss.unit == "nats":
        return np.ones_like(sizes)
    return np.maximum(np.maximum(sizes, np.median(sizes)), np.finfo(np.float32).tiny)


def _gap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    gap = np.abs(a - b)
    return float("inf") if np.isnan(gap).any() else float(gap.max())


def _base(stack: Stack) -> str:
    """Return the name of the base's raw output tensor."""
    return f"{PREFIX}base_{stack.loss.raw}"


def _outputs(stack: Stack) -> list[str]:
    """Return the names of the raw output tensors after each correction."""
    return [f"{PREFIX}{name}/{stack.loss.raw}" for name in stack.names]


def _source(merged: onnx.ModelProto, name: str, taps: Mapping[str, str]) -> str:
    """Return the name of the tensor that feeds column `name` inside the merged model."""
    if name in taps:
        return next(node.input[0] for node in merged.graph.node if node.name == f"{PREFIX}tap/{name}")
    converted = f"{PREFIX}{tensor_of(name)}"
    return converted if any(node.name == converted for node in merged.graph.node) else name


def _converted(features: Features, reads: Sequence[str]) -> dict[str, Feature]:
    """Return the features that a merged model converts from columns of requests."""
    return {name: f for name in reads if not (f := features[name]).same and not f.tap and not f.hashed}


def _part(
    merged: onnx.ModelProto,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    first: Sequence[NodeProto] = (),
    fed: Collection[str] = (),
) -> onnx.ModelProto:
    """Return the nodes of riverdelta that compute `outputs`, after the nodes `first`, which make the tensors `fed`."""
    needed, nodes = {value.name for value in outputs}, list[NodeProto]()
    for node in reversed(merged.graph.node):
        if needed.intersection(node.output) and node.name.startswith(PREFIX) and node.output[0] not in fed:
            nodes.append(node)
            needed.update(node.input)
    stored = [t for t in merged.graph.initializer if t.name in needed]
    graph = helper.make_graph([*first, *reversed(nodes)], "part", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=merged.opset_import, ir_version=merged.ir_version)
