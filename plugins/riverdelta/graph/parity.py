"""Parity: compares the corrections inside a merged model with the Python stack, on rows from the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from riverdelta.core.errors import ParityError
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import PREFIX
from riverdelta.corrections.stack import Stack

#: The largest allowed difference of raw outputs.
TOLERANCE = 1e-4
#: Raw outputs are compared up to this size; above it float32 has too few digits.
SATURATED = 100.0

Run = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Parity:
    """The largest difference of raw outputs over `rows` rows, and the correction whose residual differs most."""

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
    base, outputs = _base(stack), _outputs(stack)
    shape: list[str | int] = ["N", stack.loss.outputs]
    needed, nodes = set(outputs), []
    for node in reversed(merged.graph.node):
        if needed.intersection(node.output) and node.name.startswith(PREFIX) and node.output[0] != base:
            nodes.append(node)
            needed.update(node.input)
    columns = {name: _source(merged, name, taps) for name in stack.reads}
    inputs = [helper.make_tensor_value_info(base, TensorProto.FLOAT, shape)]
    for name, source in columns.items():
        column = schema[name]
        kind = helper.np_dtype_to_tensor_dtype(column.numpy)
        nodes.append(helper.make_node("Identity", [f"column:{name}"], [source]))
        inputs.append(helper.make_tensor_value_info(f"column:{name}", kind, ["N", *column.shape]))
    graph = helper.make_graph(
        list(reversed(nodes)),
        "corrections",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [t for t in merged.graph.initializer if t.name in needed],
    )
    return helper.make_model(graph, opset_imports=merged.opset_import, ir_version=merged.ir_version)


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
    theirs, before = run(feeds), (base, base)
    worst, gaps = 0.0, {}
    for name, output, mine in zip(stack.names, _outputs(stack), stack.trace(columns, base), strict=True):
        other = theirs[output]
        worst = max(worst, _gap(other, mine))
        gaps[name] = _gap(_inside(other) - _inside(before[1]), _inside(mine) - _inside(before[0]))
        before = (mine, other)
    return Parity(worst, max(gaps, key=lambda name: gaps[name], default="nothing"), len(base))


def _gap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    gap = np.abs(_inside(a).astype(np.float64) - _inside(b))
    return float("inf") if np.isnan(gap).any() else float(gap.max())


def _inside(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.clip(raw, -SATURATED, SATURATED)


def _base(stack: Stack) -> str:
    """Return the name of the base's raw output tensor."""
    return f"{PREFIX}base_{stack.loss.raw}"


def _outputs(stack: Stack) -> list[str]:
    """Return the names of the raw output tensors after each correction."""
    return [f"{PREFIX}{name}/{stack.loss.raw}" for name in stack.names]


def _source(merged: onnx.ModelProto, name: str, taps: Mapping[str, str]) -> str:
    """Return the name of the tensor that feeds column `name` inside the merged model."""
    if name not in taps:
        return name
    return next(node.input[0] for node in merged.graph.node if node.name == f"{PREFIX}tap/{name}")
