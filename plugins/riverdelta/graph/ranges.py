"""Ranges: walks a graph once and returns the values that one of its tensors can have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from riverdelta.graph import ensembles, operators
from riverdelta.graph.interval import UNKNOWN, Call, Range, of_array

#: Larger constants, such as embedding tables, are not read: their values have no bound.
_MOST_VALUES = 1 << 18
#: Nodes that are visited at most, those of local functions counted at each call; what comes after is unknown.
_MOST_NODES = 200_000
_DEEPEST = 20
_Array = npt.NDArray[Any]


def range_of(model: onnx.ModelProto, tensor: str, folder: Path) -> Range:
    """Return the range of a tensor of a valid model for every input; external data is read from `folder`.

    Time is linear in the nodes that the tensor depends on. An unknown operator, a loop, or a graph of more than 200,000 nodes
    gives an unknown range.

    Notes
    -----
    Interval arithmetic (Moore 1966): each bound holds whatever the other tensors are, so that the result may be too wide and
    is never too narrow, up to rounding.
    """
    return _Walk(model, folder).graph(model.graph, [tensor])[0]


def maker_of(model: onnx.ModelProto, tensor: str) -> NodeProto | None:
    """Return the node that computes a tensor's values, past those that only pass them on; None for an input."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(tensor)
    while node is not None and _domain(node) == "" and node.op_type in operators.PASSING:
        node = makers.get(node.input[0])
    return node


def read_constant(tensor: TensorProto, folder: Path) -> _Array | None:
    """Return a constant of at most 2¹⁸ values, None if it is larger or cannot be read."""
    if tensor.data_type == TensorProto.STRING or np.prod(tensor.dims, dtype=float) > _MOST_VALUES:
        return None
    try:
        return numpy_helper.to_array(tensor, str(folder))
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, onnx.checker.ValidationError):
        return None


@dataclass
class _Scope:
    """The tensors of one graph or function body: ranges found so far, constants, and those of the graph around it."""

    folder: Path
    stored: Mapping[str, TensorProto] = field(default_factory=dict)
    inputs: Mapping[str, Range] = field(default_factory=dict)
    outer: _Scope | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    depth: int = 0
    ranges: dict[str, Range] = field(default_factory=dict)
    values: dict[str, _Array | None] = field(default_factory=dict)
    makers: dict[str, NodeProto] = field(default_factory=dict)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the model."""
        if name in self.stored or name in self.values:
            return True
        return name not in self.ranges and name not in self.inputs and self.outer is not None and self.outer.is_constant(name)

    def value(self, name: str) -> _Array | None:
        """Return a small constant."""
        if name not in self.values and name in self.stored:
            self.values[name] = read_constant(self.stored[name], self.folder)
        if name in self.values or self.outer is None or name in self.ranges or name in self.inputs:
            return self.values.get(name)
        return self.outer.value(name)

    def of(self, name: str) -> Range:
        """Return the range of a tensor."""
        if name not in self.ranges:
            if (value := self.value(name)) is not None:
                self.ranges[name] = of_array(value)
            elif name in self.stored:
                self.ranges[name] = Range()
            elif name in self.inputs or self.outer is None:
                self.ranges[name] = self.inputs.get(name, UNKNOWN)
            else:
                return self.outer.of(name)
        return self.ranges[name]


class _Walk:
    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._functions = {(f.domain, f.name): f for f in model.functions}
        self._opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self._folder, self._left = folder, _MOST_NODES

    def graph(self, graph: GraphProto, wanted: Sequence[str], outer: _Scope | None = None) -> list[Range]:
        """Return the ranges of tensors of a graph; `outer` has those of the graph around it."""
        stored = {tensor.name: tensor for tensor in graph.initializer}
        inputs = {} if outer else {value.name: Range() for value in graph.input if value.name not in stored}
        scope = _Scope(self._folder, stored, inputs, outer, outer.attributes if outer else {}, outer.depth + 1 if outer else 0)
        return self._visit(graph.node, wanted, scope)

    def _visit(self, nodes: Sequence[NodeProto], wanted: Sequence[str], scope: _Scope) -> list[Range]:
        for node in _ancestors(nodes, wanted):
            self._left -= 1
            if self._left < 0 or scope.depth > _DEEPEST:
                return [UNKNOWN] * len(wanted)
            attributes = _attributes(node, scope.attributes)
            if _is(node, "Constant"):
                scope.values[node.output[0]] = _constant(attributes, scope.folder)
            elif _is(node, "Identity") and scope.is_constant(node.input[0]):
                scope.values[node.output[0]] = scope.value(node.input[0])
            else:
                found = [Range(0, 1)] if _is_share(node, scope) else self._outputs(node, attributes, scope)
                scope.makers.update(dict.fromkeys(node.output, node))
                scope.ranges.update(zip(node.output, [*found, *[UNKNOWN] * len(node.output)], strict=False))
        return [scope.of(name) for name in wanted]

    def _outputs(self, node: NodeProto, attributes: Mapping[str, Any], scope: _Scope) -> Sequence[Range]:
        """Return the ranges of a node's outputs; those that are left out are unknown."""
        ranges = [scope.of(name) if name else None for name in node.input]
        domain = _domain(node)
        if body := self._functions.get((node.domain, node.op_type)):
            return self._called(body, [UNKNOWN if one is None else one for one in ranges], attributes, scope)
        if _is(node, "If"):
            branches = [attributes.get(name) for name in ("then_branch", "else_branch")]
            found = [self.graph(b, [o.name for o in b.output], scope) for b in branches if isinstance(b, GraphProto)]
            return [a | b for a, b in zip(*found, strict=False)] if len(found) == 2 else []
        stored = [bool(name) and scope.is_constant(name) for name in node.input]
        call = Call(ranges, [scope.value(name) if name else None for name in node.input], stored, attributes, self._opset)
        try:
            if domain == "ai.onnx.ml":
                return [operator(call) for operator in ensembles.TABLE.get(node.op_type, ())]
            operator = operators.TABLE.get(node.op_type) if domain == "" else None
            # Split and Unique-like operators aside, what passes values on has one output that matters.
            return [] if operator is None else [operator(call)] * (len(node.output) if node.op_type == "Split" else 1)
        except (ValueError, IndexError, ZeroDivisionError, TypeError, OverflowError):
            return []  # attributes or constants that do not fit: ONNX Runtime will refuse them

    def _called(
        self, body: FunctionProto, ranges: Sequence[Range], attributes: Mapping[str, Any], scope: _Scope
    ) -> Sequence[Range]:
        defaults = {a.name: helper.get_attribute_value(a) for a in body.attribute_proto}
        inputs = dict(zip(body.input, [*ranges, *[UNKNOWN] * len(body.input)], strict=False))
        inner = _Scope(self._folder, {}, inputs, None, defaults | dict(attributes), scope.depth + 1)
        return self._visit(body.node, list(body.output), inner)


def _is_share(node: NodeProto, scope: _Scope) -> bool:
    """Whether a node divides a positive number by a sum of it and others, as in eᶻ / (1 + eᶻ) and a written-out softmax."""
    if not _is(node, "Div") or (total := scope.makers.get(node.input[1])) is None:
        return False
    parts = total.input[:1] if _is(total, "ReduceSum") else total.input if _is(total, "Add") or _is(total, "Sum") else ()
    return node.input[0] in parts and all(scope.of(part).low >= 0 for part in parts)


def _ancestors(nodes: Sequence[NodeProto], wanted: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that tensors depend on, in order; a valid graph is sorted."""
    needed, found = set(wanted), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            found.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    needed.update(name for one in _within(inner) for name in one.input)
                    needed.update(output.name for output in inner.output)
    return found[::-1]


def _within(graph: GraphProto) -> Iterable[NodeProto]:
    graphs = [graph]
    while graphs:
        for node in graphs.pop().node:
            yield node
            graphs.extend(a.g for a in node.attribute if a.HasField("g"))
            graphs.extend(one for a in node.attribute for one in a.graphs)


def _attributes(node: NodeProto, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's attributes; those that refer to an attribute of the function come from `given`."""
    found = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in given:
                found[attribute.name] = given[attribute.ref_attr_name]
        elif attribute.type == AttributeProto.GRAPH:
            found[attribute.name] = attribute.g
        else:
            found[attribute.name] = helper.get_attribute_value(attribute)
    return found


def _constant(attributes: Mapping[str, Any], folder: Path) -> _Array | None:
    """Return the value of a Constant, None if it is not a small tensor of numbers."""
    for name, value in attributes.items():
        if name == "value" and isinstance(value, TensorProto):
            return read_constant(value, folder)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def _domain(node: NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _is(node: NodeProto, operator: str) -> bool:
    return _domain(node) == "" and bool(node.op_type == operator)
