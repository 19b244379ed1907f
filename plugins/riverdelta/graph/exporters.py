"""Exporters: the line that exports a model again with a dynamic batch axis, by the tool that wrote the model."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

_SKL: dict[int, str] = {
    TensorProto.FLOAT: "Float",
    TensorProto.DOUBLE: "Double",
    TensorProto.INT64: "Int64",
    TensorProto.INT32: "Int32",
    TensorProto.STRING: "String",
    TensorProto.BOOL: "Boolean",
}
_BATCH = "{0: 'batch'}"


def with_dynamic_batch(model: ModelProto, name: str) -> str:
    """Return what to write to export the model in the file `name` again with a dynamic batch axis.

    It is the line of the exporter that the model names, or of each of the usual ones if it names none of them.

    >>> import onnx.parser
    >>> text = '<ir_version: 8, opset_import: ["" : 17], producer_name: "skl2onnx"> g (float[1, 8] X) => () {}'
    >>> print(with_dynamic_batch(onnx.parser.parse_model(text), "ranker.onnx"))
    export it again with skl2onnx.to_onnx(model, initial_types=[('X', FloatTensorType([None, 8]))])
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    lines = _lines(inputs, graph.output, name)
    every = "with a dynamic first axis: " + "; ".join(lines.values())
    return f"export it again {lines.get(model.producer_name.lower(), every)}"


def _lines(inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], name: str) -> dict[str, str]:
    shapes = f"({', '.join([_BATCH] * len(inputs))}{',' * (len(inputs) == 1)})"
    axes = ", ".join(f"{value.name!r}: {_BATCH}" for value in (*inputs, *outputs))
    types = ", ".join(f"({value.name!r}, {_kind(value)}TensorType([{', '.join(_axes(value))}]))" for value in inputs)
    specs = ", ".join(
        f"tf.TensorSpec([{', '.join(_axes(value))}], tf.{_dtype(value)}, name={value.name!r})" for value in inputs
    )
    return {
        "pytorch": f"with torch.onnx.export(model, args, {name!r}, dynamic_shapes={shapes}), or, if "
        f"dynamo=False, with dynamic_axes={{{axes}}} and input_names and output_names of these names; in Lightning, "
        f"model.to_onnx({name!r}, sample, ...) takes the same",
        "skl2onnx": f"with skl2onnx.to_onnx(model, initial_types=[{types}])",
        "onnxmltools": f"with initial_types=[{types}] (onnxmltools.convert_lightgbm and the like)",
        "tf2onnx": f"with tf2onnx.convert.from_keras(model, input_signature=[{specs}], output_path={name!r})",
    }


def _axes(value: ValueInfoProto) -> list[str]:
    """Return the lengths of the axes, the first of any length."""
    return ["None", *(str(axis.dim_value or None) for axis in value.type.tensor_type.shape.dim[1:])]


def _kind(value: ValueInfoProto) -> str:
    return _SKL.get(value.type.tensor_type.elem_type, "Float")


def _dtype(value: ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    return "string" if kind == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind or TensorProto.FLOAT).name
