"""Names: which tensors a node reads, and room in a base for the names that a merged model needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from onnx import GraphProto, NodeProto

from riverdelta.core.nodes import PREFIX

#: Conflicting names get this prefix.
MOVED = "base/"


def make_room(graph: GraphProto, wanted: Collection[str]) -> dict[str, str]:
    """Rename, in place, every inner tensor whose name is in `wanted` or begins with `riverdelta/`; return old names to new.

    The graph's inputs keep their names. One map applies to every subgraph, and each new name is unique, so the model computes
    the same. Nodes under `riverdelta/` (the base may itself be a merged model) are renamed too.
    """
    graphs = list(graphs_of(graph))
    names = {name for inner in graphs for name in _defined(inner)}
    moved: dict[str, str] = {}
    for name in sorted(names - {value.name for value in graph.input}):
        if name in wanted or name.startswith(PREFIX):
            moved[name] = _fresh(f"{MOVED}{name}", names)
            names.add(moved[name])
    for inner in graphs:
        _rename(inner, moved)
    return moved


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in the attributes of a node, such as the branches of an If."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def reads(node: NodeProto) -> set[str]:
    """Return the tensors that a node reads, also from within its subgraphs."""
    inner = [*subgraphs(node)]
    returned = {value.name for graph in inner for value in graph.output}
    return {*node.input, *returned, *(name for graph in inner for each in graph.node for name in reads(each))}


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, and every graph within it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs_of(inner)


def _defined(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from filter(None, node.output)


def _fresh(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _rename(graph: GraphProto, moved: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [moved.get(name, name) for name in node.input]
        node.output[:] = [moved.get(name, name) for name in node.output]
        if node.name.startswith(PREFIX):
            node.name = f"{MOVED}{node.name}"
    sparse = [tensor.values for tensor in graph.sparse_initializer]
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse):
        named.name = moved.get(named.name, named.name)
    for note in graph.quantization_annotation:
        note.tensor_name = moved.get(note.tensor_name, note.tensor_name)
        for entry in note.quant_parameter_tensor_names:
            entry.value = moved.get(entry.value, entry.value)
