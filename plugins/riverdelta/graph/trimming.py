"""Trimming: removes what an exported graph does not need, and of which ONNX Runtime would warn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx import GraphProto

from riverdelta.core.nodes import GROUP
from riverdelta.graph.names import reads, subgraphs


def trim(graph: GraphProto) -> None:
    """Remove, in place, the nodes and the stored tensors on which no output depends, in subgraphs too; inputs stay.

    >>> import onnx.parser
    >>> text = "g (float[N] x) => (float[N] y) <float c = {1}, float d = {2}> { y = Neg(x) z = Add(x, c) }"
    >>> trim(graph := onnx.parser.parse_graph(text))
    >>> [node.op_type for node in graph.node], len(graph.initializer)
    (['Neg'], 0)
    """
    needed = {value.name for value in graph.output}
    for at in reversed(range(len(graph.node))):
        node = graph.node[at]
        if needed.intersection(filter(None, node.output)):
            for inner in subgraphs(node):
                trim(inner)
            needed |= reads(node)
        else:
            del graph.node[at]
    needed |= {value.name for value in graph.input}
    _keep(graph.initializer, lambda tensor: tensor.name in needed)
    _keep(graph.sparse_initializer, lambda tensor: tensor.values.name in needed)
    made = needed.union(*(node.output for node in graph.node))
    _keep(graph.value_info, lambda value: value.name in made)


def freeze(graph: GraphProto) -> None:
    """Make constants, in place, of the stored tensors that are inputs too, which then cannot be overridden, except `GROUP`.

    >>> import onnx.parser
    >>> freeze(graph := onnx.parser.parse_graph("g (float[N] x, float c) => (float[N] y) <float c = {1}> { y = Add(x, c) }"))
    >>> [value.name for value in graph.input]
    ['x']
    """
    stored = {tensor.name for tensor in graph.initializer}
    _keep(graph.input, lambda value: value.name not in stored or value.name == GROUP)


def _keep(values: Any, wanted: Callable[[Any], bool]) -> None:
    for at in reversed(range(len(values))):
        if not wanted(values[at]):
            del values[at]
