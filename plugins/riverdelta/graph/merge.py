"""Merge: the base, the stack and the gate as one ONNX model that any runtime runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, version_converter
from onnx.version_converter import ConvertError

from riverdelta.core.errors import ModelError
from riverdelta.core.features import Schema
from riverdelta.core.link import PROBABILITY_FLOOR
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.corrections.stack import Stack
from riverdelta.graph.gate import export_mixture
from riverdelta.graph.names import make_room
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import OUTPUTS
from riverdelta.graph.weights import refer_to_weights

#: The base logit as the corrections see it, float32[N, 1].
BASE = f"{PREFIX}base_logit"
_OLDEST_OPSET, _OLDEST_IR = 13, 4
_LARGEST = float(np.finfo(np.float32).max)


def merge(
    signature: Signature,
    stack: Stack,
    taps: Mapping[str, str],
    declared: Schema,
    gate_weight: float = 1.0,
    provenance: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return the merged model; its large base weights are external, in the file that `weights_name` names.

    Inputs: the base's, the declared columns, then the tables (each an initializer too, so that a caller may leave it out).
    Outputs: `OUTPUTS`, then the taps. The base's opset and IR version are kept, or raised to 13 and 4. Where nothing was
    learned yet, `logit` is the base's own, bit for bit (an infinite one becomes the largest float).
    """
    model = _base(signature)
    graph = model.graph
    wanted = {*OUTPUTS, *taps, *declared}
    _refuse_inputs(signature, wanted)
    moved = make_room(graph, wanted)
    nodes = Nodes(_opset(model))
    base = _base_logit(nodes, signature, moved.get(signature.output, signature.output))
    columns = {name: name for name in (*signature.inputs, *declared)} | {tap: moved.get(t, t) for tap, t in taps.items()}
    corrected = nodes.named("corrected_logit", stack.export(nodes, columns, base))
    with nodes.scope("gate"):
        weight = nodes.table("weight", np.full((1, 1), gate_weight, np.float32))
        logit = export_mixture(nodes, base, corrected, weight)
    flat = nodes.constant([-1], np.int64)
    for name, source in (("logit", logit), ("corrected_logit", corrected), ("base_logit", base)):
        nodes.nodes.append(helper.make_node("Reshape", [source, flat], [name], name=f"{PREFIX}{name}_flat"))
    nodes.nodes.append(helper.make_node("Sigmoid", ["logit"], ["score"], name=f"{PREFIX}score"))
    for tap in taps:
        nodes.nodes.append(helper.make_node("Identity", [columns[tap]], [tap], name=f"{PREFIX}tap/{tap}"))
    _splice(signature, graph, nodes, taps, declared)
    kept = {p.key: p.value for p in model.metadata_props if not p.key.startswith("riverdelta.")}
    helper.set_model_props(model, kept | _facts(signature, provenance or {}))
    return model


def _base(signature: Signature) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(signature.model)
    refer_to_weights(signature, model)
    if signature.opset == 0:
        model.opset_import.append(helper.make_opsetid("", _OLDEST_OPSET))
    elif signature.opset < _OLDEST_OPSET:
        try:
            model = version_converter.convert_version(model, _OLDEST_OPSET)
        except (ConvertError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{signature.path.name} is of opset {signature.opset} and cannot be raised to {_OLDEST_OPSET} ({error}); "
                f"export it again at opset {_OLDEST_OPSET} or newer"
            ) from None
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    # Until IR version 4 each initializer had to be an input too; here only the tables may be overridden.
    inputs = [value for value in model.graph.input if value.name in signature.inputs]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _opset(model: onnx.ModelProto) -> int:
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _base_logit(nodes: Nodes, signature: Signature, output: str) -> str:
    column = nodes.column(output)
    if signature.shapes[signature.output].type.tensor_type.elem_type != TensorProto.FLOAT:
        column = nodes.cast(column, TensorProto.FLOAT)
    if signature.link == "probability":
        low, high = (nodes.constant(p, np.float32) for p in (PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR))
        p = nodes.add("Clip", column, low, high)
        complement = nodes.add("Sub", nodes.constant(1.0, np.float32), p)
        column = nodes.add("Sub", nodes.add("Log", p), nodes.add("Log", complement))
    else:
        # The infinite logit of a score of exactly 0 or 1 would turn the mixture into NaN. The largest float has the same score,
        # and is still above every other logit; sums of losses bound it as any other (`log_loss.BOUND`). NaN stays NaN.
        column = nodes.add("Clip", column, *(nodes.constant(bound, np.float32) for bound in (-_LARGEST, _LARGEST)))
    return nodes.named("base_logit", column)


def _splice(signature: Signature, graph: GraphProto, nodes: Nodes, taps: Mapping[str, str], declared: Schema) -> None:
    batch = signature.batch
    graph.node.extend(nodes.nodes)
    tables, overridable = nodes.table_protos()
    graph.initializer.extend([*nodes.constants, *tables])
    for name, column in declared.items():
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(column.dtype))
        graph.input.append(helper.make_tensor_value_info(name, kind, [batch, *column.shape]))
    graph.input.extend(overridable)
    del graph.output[:]
    for name in OUTPUTS:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch]))
    for tap, tensor in taps.items():
        value = graph.output.add()
        value.CopyFrom(signature.shapes[tensor])
        value.name = tap


def _refuse_inputs(signature: Signature, wanted: set[str]) -> None:
    for name in sorted(wanted & set(signature.inputs)):
        raise ModelError(
            f"{signature.path.name}: {name!r} is an input of the base and the name of an output, tap or column of the "
            f"merged model; rename one of them"
        )


def _facts(signature: Signature, provenance: Mapping[str, str]) -> dict[str, str]:
    return {f"riverdelta.{key}": value for key, value in {"base_digest": signature.digest, **provenance}.items()}
