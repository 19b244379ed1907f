"""Measured types: the types of tensors that shape inference does not know, from a few made-up rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.graph.axes import OTHER_AXIS
from riverdelta.graph.names import subgraphs
from riverdelta.graph.runtime import EXTENSIONS, open_session, quiet

#: The rows of each block, and the length of its other open axes: no length is a number of rows.
_BLOCKS = ((1, 5), (3, 6), (4, 7))
#: The outputs of a larger file are not measured, so that it is read fast.
_MOST_BYTES = 256 << 20
#: The domain of the operators of models that scikit-learn and its like train.
_CLASSICAL = "ai.onnx.ml"
_TEXTS = (
    "",
    "a",
    "Where do I send this form?",
    "It never arrived; the second was damaged, with no answer yet.",
)
Infer = Callable[[Iterable[ValueInfoProto]], dict[str, ValueInfoProto]]


def operators_of(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield those of some nodes, and of the nodes within them, that onnxruntime-extensions computes."""
    for node in nodes:
        yield from [node] if node.domain in EXTENSIONS else []
        yield from operators_of(one for inner in subgraphs(node) for one in inner.node)


def completed(path: Path, model: onnx.ModelProto, infer: Infer) -> dict[str, ValueInfoProto]:
    """Return the type of every tensor by name: what `infer` finds, given the measured types of those it does not know.

    Shape inference skips the operators of onnxruntime-extensions. Their outputs are measured first, as the types of most others
    follow from them. The outputs of a model with these operators, or with those of ai.onnx.ml, are also measured: inference
    does not check what they declare, and some converters declare two columns and make one.
    """
    graph, found = model.graph, infer(())
    own = {name for node in graph.node if any(operators_of([node])) for name in node.output}
    every = {name for node in graph.node for name in filter(None, node.output)}
    if not own and not any(any(operators_of(function.node)) for function in model.functions):
        return found | (_corrected(path, model, found) if any(node.domain == _CLASSICAL for node in graph.node) else {})
    outputs = {value.name for value in graph.output}
    for among in (own | outputs, every):
        if names := {name for name in among if name in outputs or not _known(found.get(name))}:
            measured = measure(path, model, names)
            found = infer(value for name, value in measured.items() if name not in outputs)
            found |= {name: value for name, value in measured.items() if name in outputs}
    return found


def _corrected(path: Path, model: onnx.ModelProto, found: dict[str, ValueInfoProto]) -> dict[str, ValueInfoProto]:
    """Return the measured types of the outputs that have other axes than they declare."""
    names = {value.name for value in model.graph.output if value.type.HasField("tensor_type")}
    try:
        measured = measure(path, model, names) if names and path.stat().st_size <= _MOST_BYTES else {}
    except ModelError:  # made-up texts and ids may be unknown to an encoder
        return {}
    return {name: value for name, value in measured.items() if _known(value) and _lengths(value) != _lengths(found[name])}


def measure(path: Path, model: onnx.ModelProto, names: Collection[str]) -> dict[str, ValueInfoProto]:
    """Return the types of tensors by name, as measured on three blocks of made-up rows.

    An axis as long as the block is the batch axis, one of the same length in all blocks has that length, and any other is open.
    Raises `ModelError` if the model does not compute blocks of several rows.
    """
    asked, stored = onnx.ModelProto(), {tensor.name for tensor in model.graph.initializer}
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(ValueInfoProto(name=name) for name in sorted(names))
    session = open_session(asked.SerializeToString(), ("CPUExecutionProvider",), source=path)
    runs = list[list[Any]]()
    for rows, length in _BLOCKS:
        feeds = {v.name: _made(v, rows, length) for v in model.graph.input if v.name not in stored}
        try:
            runs.append(session.run(sorted(names), feeds, quiet()))
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            raise ModelError(
                f"{path.name} does not compute {rows} rows at once: {' '.join(str(error).split())}; compute an operator that "
                f"takes one text in a Scan over the rows, or tokenize in Python: @online(..., prepare=tokenize)"
            ) from None
    batch = next((v.type.tensor_type.shape.dim[0].dim_param for v in model.graph.input if v.type.tensor_type.shape.dim), "")
    return {name: _type(name, each, batch or "N") for name, *each in zip(sorted(names), *runs, strict=True)}


def _lengths(value: ValueInfoProto) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def _known(value: ValueInfoProto | None) -> bool:
    return value is not None and value.type.tensor_type.elem_type != 0 and value.type.tensor_type.HasField("shape")


def _made(value: ValueInfoProto, rows: int, length: int) -> npt.NDArray[Any]:
    """Return a block of an input: zeros, or texts of different lengths."""
    tensor = value.type.tensor_type
    shape = [d.dim_value or length for d in tensor.shape.dim]
    if shape and not tensor.shape.dim[0].HasField("dim_value"):
        shape[0] = rows
    if tensor.elem_type == TensorProto.STRING:
        # The last texts are the longest, so that blocks have different numbers of tokens.
        return np.resize(np.array(_TEXTS[:rows][::-1], object), shape)
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def _type(name: str, arrays: Collection[Any], batch: str) -> ValueInfoProto:
    """Return the type that values of the blocks have in common; without a shape if they differ in their number of axes."""
    kinds = {array.dtype for array in arrays if isinstance(array, np.ndarray)}
    if len(kinds) != 1 or any(not isinstance(array, np.ndarray) for array in arrays):
        return ValueInfoProto(name=name)
    (kind,) = kinds
    element = TensorProto.STRING if kind.kind in "OUS" else helper.np_dtype_to_tensor_dtype(kind)
    if len({array.ndim for array in arrays}) != 1:
        return helper.make_tensor_value_info(name, element, None)
    shape = list[int | str | None]()
    for axis, lengths in enumerate(zip(*(array.shape for array in arrays), strict=True)):
        rows = lengths == tuple(rows for rows, _ in _BLOCKS)
        other = OTHER_AXIS if axis == 0 else None
        shape.append(batch if rows else lengths[0] if len(set(lengths)) == 1 else other)
    return helper.make_tensor_value_info(name, element, shape)
