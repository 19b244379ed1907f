"""Axes: tells the batch axis from others, and reads a tensor's type as a column or as text."""

from __future__ import annotations

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from riverdelta.core.features import Column

#: The name of a first axis whose length was measured, and is not the number of rows.
OTHER_AXIS = "not the batch"


def is_batch(model: onnx.ModelProto, value: ValueInfoProto) -> bool:
    """Whether the first axis can be the batch axis: no input has an axis of that name elsewhere, such as a sequence."""
    dims = [i.type.tensor_type.shape.dim for i in model.graph.input]
    first, others = {axes[0].dim_param for axes in dims if axes}, {axis.dim_param for axes in dims for axis in axes[1:]}
    axes = value.type.tensor_type.shape.dim
    if axes and axes[0].dim_param == OTHER_AXIS:
        return False
    # Where every first axis is also another one, as in float[n, n], none can be told from the batch axis.
    return not axes or axes[0].dim_param not in others - {""} or not first - others


def column_of(model: onnx.ModelProto, value: ValueInfoProto | None) -> Column | None:
    """Return a tensor as a column, None if its first axis is not the batch axis or its type is unknown."""
    if value is None or not value.type.HasField("tensor_type") or not is_batch(model, value):
        return None
    tensor = value.type.tensor_type
    if not (dims := list(tensor.shape.dim)) or dims[0].HasField("dim_value"):
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        return None
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims[1:])
    return Column(value.name, "string" if dtype == "object" else dtype, shape, axes=tuple(d.dim_param for d in dims[1:]))


def typed(name: str, column: Column, batch: str = "N") -> ValueInfoProto:
    """Return the type of a tensor of a graph that holds a column; `batch` names its first axis."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(column.numpy), [batch, *column.shape])


def type_of(value: ValueInfoProto | None) -> str:
    """Return a tensor's type as text, such as `float[N, 8]`."""
    if value is not None and value.type.WhichOneof("value") not in (None, "tensor_type"):
        return str(value.type.WhichOneof("value")).removesuffix("_type")
    if value is None or not value.type.tensor_type.elem_type:
        return "of unknown type"
    tensor = value.type.tensor_type
    dims = ", ".join(str(d.dim_value or d.dim_param or "?") for d in tensor.shape.dim)
    return f"{kind_of(tensor.elem_type).lower()}[{dims}]"


def kind_of(number: int) -> str:
    """Return the name of an element type, such as `FLOAT`."""
    return TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else f"UNKNOWN {number}"
