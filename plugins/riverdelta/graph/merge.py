"""Merge: base, stack and the gate's mixture as one ONNX model for any runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper, version_converter
from onnx.version_converter import ConvertError

from riverdelta.core.errors import ModelError
from riverdelta.core.features import Column, Schema
from riverdelta.core.nodes import GROUP, PREFIX, Nodes
from riverdelta.corrections.interval import Intervals
from riverdelta.corrections.stack import Stack
from riverdelta.graph.axes import typed
from riverdelta.graph.features import Features
from riverdelta.graph.names import make_room
from riverdelta.graph.reading import opset_of
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import BOUNDS, all_features, outputs
from riverdelta.graph.trimming import trim
from riverdelta.graph.weights import refer_to_weights

Model = onnx.ModelProto
#: The table that holds the gate's weight, float32[1, 1]; 0 serves the base.
GATE_WEIGHT = f"{PREFIX}gate/weight"
_OLDEST_OPSET, _OLDEST_IR = 13, 4
#: The oldest opset that scatters sums and maxima, for a loss of lists.
_OLDEST_OF_LISTS = 18
_LARGEST = float(np.finfo(np.float32).max)


def merge(
    signature: Signature,
    stack: Stack,
    taps: Mapping[str, str],
    declared: Schema,
    gate_weight: float = 1.0,
    provenance: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] = {},
    intervals: Intervals | None = None,
) -> onnx.ModelProto:
    """Return the merged model; the base's large weights are external, in the file that `weights_name` returns.

    Inputs: the base's, the declared columns, the ids of strings that corrections read (`Feature.id_input`), then the tables
    (each also an initializer, so that it is optional), then for a loss of lists `group` int64[N], the number of each row's list
    (by default there is a single list). Outputs: those of `taps.outputs`, then the taps, as corrections read them. The base's
    opset and IR version are kept, or raised to 13 (18 for lists) and 4. Until something is learned, the raw output is the
    base's, bit for bit (an infinite one becomes the largest float).
    """
    model, loss = _base(signature, taps), stack.loss
    graph = model.graph
    score, served, *others = outputs(loss)
    lists = {GROUP} if loss.lists else set()
    for name in sorted({score, served, *others, *taps, *lists} & set(signature.inputs)):
        raise ModelError(
            f"{signature.path.name}: {name!r} is an input of the base and the name of an output, a tap or the group of "
            f"the merged model; rename one of them"
        )
    features = all_features(signature, taps, declared, names)
    by = [intervals.interval.by] if intervals is not None and intervals.interval.by else []
    hashed = [features[name].id_input for name in dict.fromkeys((*stack.reads, *by)) if features[name].hashed]
    declared = Schema({name: column for name, column in features.declared.items() if column.dtype != "string"})
    declared |= {name: Column(name, "int64") for name in hashed}
    bounds = BOUNDS if intervals is not None else ()
    moved = make_room(graph, {score, served, *others, *bounds, *taps, *declared, *lists})
    nodes = Nodes(opset_of(model))
    base = nodes.named(f"base_{loss.raw}", _raw_output(nodes, signature, moved))
    columns = {tap: moved.get(tensor, tensor) for tap, tensor in taps.items()}
    for name in dict.fromkeys((*stack.reads, *taps, *by)):
        f = features[name]
        columns[name] = f.export(nodes, columns[name] if f.tap else f.id_input if f.hashed else f.source.name)
    corrected = nodes.named(f"corrected_{loss.raw}", stack.export(nodes, columns, base))
    with nodes.scope("gate"):
        weight = nodes.table("weight", np.full((1, 1), gate_weight, np.float32))
        group = {"group": _group(nodes, base)} if lists else {}
        raw = loss.export_mixture(nodes, base, corrected, weight, **group)
    prediction = loss.export_inverse_link(nodes, raw, **group)
    made = dict(zip((score, served, *others), (prediction, raw, corrected, base), strict=True))
    if intervals is not None:
        made |= dict(zip(BOUNDS, intervals.export(nodes, prediction, columns[by[0]] if by else None), strict=True))
    shape = nodes.constant([-1, loss.outputs] if loss.outputs > 1 else [-1], np.int64)
    for name, source in made.items():
        nodes.nodes.append(helper.make_node("Reshape", [source, shape], [name], name=f"{PREFIX}{name}_flat"))
    for tap in taps:
        nodes.nodes.append(helper.make_node("Identity", [columns[tap]], [tap], name=f"{PREFIX}tap/{tap}"))
    _splice(signature, graph, nodes, features, taps, declared, bounds)
    if lists:
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int64), GROUP))
        graph.input.append(helper.make_tensor_value_info(GROUP, TensorProto.INT64, [f"{GROUP}/rows"]))
    trim(graph)
    facts = {"base_digest": signature.digest, **(provenance or {})}
    kept = {p.key: p.value for p in model.metadata_props if not p.key.startswith("riverdelta.")}
    helper.set_model_props(model, kept | {f"riverdelta.{key}": value for key, value in facts.items()})
    return model


def _base(signature: Signature, taps: Mapping[str, str]) -> onnx.ModelProto:
    """Return the part of the base that the head and the taps need; labels and maps of classes are cut off."""
    model = onnx.ModelProto()
    model.CopyFrom(signature.model)
    refer_to_weights(signature, model)
    del model.graph.output[:]
    for name in dict.fromkeys([*signature.head.reads, *taps.values()]):
        if name not in signature.inputs:
            model.graph.output.append(
                signature.shapes.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            )
    trim(model.graph)
    oldest = _OLDEST_OF_LISTS if signature.loss.lists else _OLDEST_OPSET
    if (opset := opset_of(model)) == 0:
        model.opset_import.append(helper.make_opsetid("", oldest))
    elif opset < oldest:
        try:
            model = version_converter.convert_version(model, oldest)
        except (ConvertError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{signature.path.name} has opset {opset}, which cannot be converted to {oldest} ({error}); "
                f"export it again at opset {oldest} or newer"
            ) from None
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    # Before IR version 4 each initializer had to be an input too; here only the tables may be overridden.
    inputs = [value for value in model.graph.input if value.name in signature.inputs]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _group(nodes: Nodes, base: str) -> str:
    """Append the nodes of each row's list int64[N]: the rows of the input, whose default of one number is for all rows."""
    rows = nodes.add("Slice", nodes.add("Shape", base), *(nodes.constant([end], np.int64) for end in (0, 1)))
    return nodes.add("Expand", GROUP, rows)


def _raw_output(nodes: Nodes, signature: Signature, moved: Mapping[str, str]) -> str:
    """Append the nodes that turn the base's output into a raw output float32[N, K]."""
    loss, head = signature.loss, signature.head
    value = signature.shapes.get(head.tensor)
    found = head.export(nodes, moved, 0 if value is None else value.type.tensor_type.elem_type)
    if signature.predicts and not signature.margin:
        found = loss.export_link(nodes, found)
    # An infinite raw output, such as the logit of a score of exactly 0 or 1, would turn the mixture into NaN. The largest
    # float has the same score and order; its loss is bounded like any other (`Loss.bound`). NaN stays NaN.
    return nodes.add("Clip", found, *(nodes.constant(bound, np.float32) for bound in (-_LARGEST, _LARGEST)))


def _splice(
    signature: Signature,
    graph: GraphProto,
    nodes: Nodes,
    features: Features,
    taps: Mapping[str, str],
    declared: Schema,
    bounds: Sequence[str],
) -> None:
    batch, loss = signature.batch, signature.loss
    graph.node.extend(nodes.nodes)
    tables, overridable = nodes.table_protos()
    graph.initializer.extend([*nodes.constants, *tables])
    for name, column in declared.items():
        graph.input.append(typed(name, column, batch))
    graph.input.extend(overridable)
    del graph.output[:]
    shape: list[str | int] = [batch, loss.outputs] if loss.outputs > 1 else [batch]
    for name in (*outputs(loss), *bounds):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    for tap, tensor in taps.items():
        value = graph.output.add()
        value.CopyFrom(signature.shapes[tensor] if features[tap].same else typed(tap, features[tap].column, batch))
        value.name = tap
