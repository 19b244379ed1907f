"""Wiring: who makes each tensor of a graph, its constants, and the way of one number back through operators that keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto, helper, numpy_helper

#: Larger constants, such as embedding tables, are not read.
_MOST_VALUES = 1 << 18
#: No way back is longer: a graph may be a circle.
_MOST_STEPS = 1 << 10
#: Of a row of unknown length no more columns are counted.
_MOST_COLUMNS = 1 << 16
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
#: A clip this near to 0 and 1 changes no probability that can be told from one.
_EDGE = 1e-6


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}


def operator(node: NodeProto) -> str:
    """Return a node's operator, with its domain unless that is one of ONNX's own two."""
    return node.op_type if node.domain in ("", "ai.onnx", "ai.onnx.ml") else f"{node.domain}.{node.op_type}"


@dataclass(frozen=True)
class Spot:
    """One number a row: a column of `tensor`, or its only one where `column` is None."""

    tensor: str
    column: int | None = None


class Wiring:
    """The makers of a graph's tensors, its constants and the widths of its rows; external data is read from `folder`."""

    def __init__(self, graph: GraphProto, folder: Path, shapes: Mapping[str, ValueInfoProto] | None = None) -> None:
        self.makers: dict[str, NodeProto] = {}
        self._folder, self._shapes = folder, shapes or {}
        self._held: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            self.makers.update(dict.fromkeys(filter(None, node.output), node))
            if operator(node) == "Constant":
                self._held[node.output[0]] = _constant(next(iter(attributes(node).values()), None))

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the graph."""
        return name in self._held

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """Return a constant; None if the tensor is computed, is large, or cannot be read."""
        held = self._held.get(name)
        if isinstance(held, TensorProto):
            held = self._held[name] = _read(held, self._folder)
        return None if held is None or isinstance(held, SparseTensorProto) else np.asarray(held)

    def number(self, name: str) -> float | None:
        """Return the value of a constant whose numbers are all the same."""
        held = self.constant(name)
        same = held is not None and held.size and held.dtype.kind in "biuf" and (held == held.flat[0]).all()
        return float(held.flat[0]) if held is not None and same else None

    def scaled(self, node: NodeProto) -> tuple[str, float] | None:
        """Return the tensor that a node multiplies by a number, and the number; None if it does something else."""
        if operator(node) == "Neg":
            return node.input[0], -1.0
        if operator(node) == "Mul":
            for source, factor in (node.input, node.input[::-1]):
                if (number := self.number(factor)) is not None:
                    return source, number
        return None

    def width(self, name: str) -> int | None:
        """Return how many numbers a tensor has a row: 1 for [N], K for [N, K], None if that is not known."""
        if name not in self._shapes or not self._shapes[name].type.tensor_type.HasField("shape"):
            return None
        dims = self._shapes[name].type.tensor_type.shape.dim
        if len(dims) > 2:
            return None
        return 1 if len(dims) < 2 else dims[1].dim_value or None

    def back(self, spot: Spot) -> Spot | None:
        """Return the same number one operator earlier; None if the operator computes another number."""
        node = self.makers.get(spot.tensor)
        if node is None or not node.input:
            return None
        given, op = attributes(node), operator(node)
        before = replace(spot, tensor=node.input[0])
        if (
            op in ("Identity", "Dropout", "ZipMap")
            or (op in ("Sum", "Mean", "Max", "Min") and len(node.input) == 1)
            or (op == "Cast" and given.get("to") in FLOATS)
        ):
            return before
        if op == "Clip":
            low, high = (
                given.get(end, self.number(name)) for end, name in zip(("min", "max"), [*node.input[1:], "", ""], strict=False)
            )
            return before if (low is None or low <= _EDGE) and (high is None or high >= 1 - _EDGE) else None
        if op in ("Mul", "Div") and self.number(node.input[1]) == 1:
            return before
        if op == "Normalizer" or (op == "Div" and self.total_of(node.input[1]) == node.input[0]):
            # Two shares that add up to one.
            return before if self.width(node.input[0]) == 2 else None
        if op in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            wide = self.width(node.input[0])
            same = wide in (None, 1) if spot.column is None else wide == self.width(spot.tensor)
            return before if same else None
        if op == "Concat" and given.get("axis") in (1, -1):
            return self._part(node, spot.column)
        columns = self._chosen(node, op, given, spot.tensor)
        at = spot.column or 0
        return replace(before, column=int(columns[at])) if columns is not None and at < len(columns) else None

    def total_of(self, name: str) -> str | None:
        """Return the tensor whose absolute values a tensor sums up by row, if it does."""
        for op in ("ReduceSum", "Abs"):
            maker = self.makers.get(name)
            if maker is None or operator(maker) != op:
                return None if op == "ReduceSum" else name
            name = maker.input[0]
        return name

    def way(self, spot: Spot) -> list[Spot]:
        """Return where a number is, from `spot` back through every operator that keeps it."""
        found = [spot]
        while len(found) < _MOST_STEPS and (before := self.back(found[-1])) is not None:
            found.append(before)
        return found

    def _part(self, node: NodeProto, column: int | None) -> Spot | None:
        """Return the part of a concatenation that holds a column."""
        at = column or 0
        for name in node.input:
            wide = self.width(name)
            if wide is None:
                return None
            if at < wide:
                return Spot(name, at if wide > 1 else None)
            at -= wide
        return None

    def _chosen(self, node: NodeProto, op: str, given: Mapping[str, Any], output: str) -> npt.NDArray[Any] | None:
        """Return the columns of the first input that an operator selects."""
        wide, constants = self.width(node.input[0]), [self.constant(name) for name in node.input[1:]]
        if op == "ArrayFeatureExtractor" or (op == "Gather" and given.get("axis", 0) in (1, -1)):
            chosen = None if constants[0] is None else constants[0].ravel()
        elif op == "Slice":
            named = [given.get(name) for name in ("starts", "ends", "axes")] if "starts" in given else constants
            start, end, axes, step = (None if one is None else np.ravel(one) for one in [*named, None, None, None, None][:4])
            if start is None or end is None or len(start) != 1 or axes is None or axes[0] not in (1, -1):
                return None
            stride = 1 if step is None else int(step[0])
            most = wide or min(max(2, int(end[0])), _MOST_COLUMNS)
            chosen = np.arange(most)[int(start[0]) : int(end[0]) : stride] if wide or start[0] >= 0 else None
        elif op == "Split" and given.get("axis", 0) in (1, -1) and wide is not None:
            sizes = given.get("split") or (None if not constants or constants[0] is None else constants[0].tolist())
            sizes = sizes or [-(-wide // len(node.output))] * len(node.output)
            at = list(node.output).index(output)
            chosen = np.arange(wide)[sum(sizes[:at]) : sum(sizes[: at + 1])]
        else:
            return None
        if chosen is None or not chosen.size or chosen.dtype.kind not in "iu" or (chosen.min() < 0 and wide is None):
            return None
        return np.where(chosen < 0, chosen + (wide or 0), chosen)


def _constant(value: Any) -> Any:
    """Return a Constant's value as a tensor, or numbers as an array; None if it is text or sparse."""
    if isinstance(value, float | int | list):
        value = np.asarray(value)
        return value if value.dtype.kind in "fi" else None
    return value if isinstance(value, TensorProto) else None


def _read(tensor: TensorProto, folder: Path) -> npt.NDArray[Any] | None:
    if np.prod(tensor.dims, dtype=float) > _MOST_VALUES:
        return None
    try:
        return numpy_helper.to_array(tensor, str(folder))
    except Exception:  # damaged data raises errors of any class: the session that serves it says what is wrong
        return None
