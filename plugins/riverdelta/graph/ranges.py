"""Ranges: the values that the tensors of a graph can have, whatever its inputs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

#: The lowest and the highest value of a tensor.
Range = tuple[float, float]
ANY: Range = (-inf, inf)
#: A sum of float32 products may exceed its exact bound by this.
ROUNDING = 1e-5
#: Larger constants, such as embedding tables, are not read.
_MOST_VALUES = 1 << 18
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SQUASHING = (b"LOGISTIC", b"SOFTMAX", b"SOFTMAX_ZERO")
#: The first output has values of the first input; so has every part of a Split.
_PASSING = frozenset(
    "Identity Reshape Squeeze Unsqueeze Flatten Cast Slice Split Transpose Dropout Expand Tile Gather GatherElements GatherND "
    "ReduceMax ReduceMin ReduceMean ArrayFeatureExtractor".split()
)
_FIXED: dict[str, Range] = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), (0.0, 1.0)),
    **dict.fromkeys(("Tanh", "Erf", "Softsign"), (-1.0, 1.0)),
    "LogSoftmax": (-inf, 0.0),
}
#: These rise with each of their inputs.
_RISING: dict[str, Callable[..., Any]] = {
    "Exp": np.exp,
    "Log": np.log,
    "Relu": partial(np.maximum, 0),
    "Softplus": partial(np.logaddexp, 0),
    "Add": np.add,
    "Sum": lambda *x: sum(x),
    "Mean": lambda *x: sum(x) / len(x),
    "Min": min,
    "Max": max,
    "Clip": lambda x, low=-inf, high=inf: min(max(x, low), high),
}
#: These rise or fall with each of their inputs.
_MONOTONE: dict[str, Callable[..., Any]] = {
    "Neg": np.negative,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Reciprocal": np.reciprocal,
    "QuantizeLinear": lambda x, scale, zero=0.0: x / scale + zero,
    "DequantizeLinear": lambda x, scale, zero=0.0: (x - zero) * scale,
}


def ranges_of(graph: GraphProto, folder: Path) -> dict[str, Range]:
    """Return the range of each computed tensor that has a bound, for every input; external data is read from `folder`.

    >>> import onnx.parser
    >>> text = "g (float[N] x) => (float[N] y) <float c = {0.5}> { s = Sigmoid(x) y = Mul(s, c) }"
    >>> ranges_of(onnx.parser.parse_graph(text), Path())
    {'s': (0.0, 1.0), 'y': (0.0, 0.5)}

    Notes
    -----
    Interval arithmetic (Moore 1966): the bounds may be too far apart and, up to rounding, never too near. An operator that is
    not listed here has none.
    """
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, Range] = {}
    makers: dict[str, NodeProto] = {}

    def constant(name: str) -> npt.NDArray[Any] | None:
        if isinstance(held := constants.get(name), TensorProto):
            held = constants[name] = _read(held, folder)
        return held

    def of(name: str) -> Range:
        if name in found:
            return found[name]
        held = constant(name)
        return ANY if held is None or not held.size else (float(held.min()), float(held.max()))

    for node in graph.node:
        makers.update(dict.fromkeys(node.output, node))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
        inputs = [of(name) for name in node.input]
        op = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx", "ai.onnx.ml") else node.op_type
        made, outputs = ANY, node.output[:1]
        if op == "Constant":
            constants[node.output[0]] = _constant(next(iter(attributes.values()), None))
        elif op in _PASSING and (op != "Cast" or attributes.get("to") in _FLOATS):
            # A table of constants may hold logits, probabilities or anything else.
            made, outputs = found.get(node.input[0], ANY), node.output if op == "Split" else outputs
        elif op == "MatMul" and _averages(constant(node.input[1])):
            made = inputs[0]
        elif op == "Concat" or (op == "Where" and not all(name in constants for name in node.input[1:])):
            chosen = inputs[op == "Where" :]
            made = min(low for low, _ in chosen), max(high for _, high in chosen)
        elif op == "Normalizer":
            made = (0.0, 1.0) if inputs[0][0] >= 0 else ANY
        elif op.endswith("Classifier"):
            outputs = node.output[1:]
            made = (0.0, 1.0) if attributes.get("post_transform") in _SQUASHING or "prob_a" in attributes else ANY
        else:
            made = (0.0, 1.0) if _is_share(node, makers, of) else _computed(op, inputs)
        if made != ANY:
            found.update(dict.fromkeys(outputs, made))
    return found


def _constant(value: Any) -> Any:
    """Return a Constant's value as a tensor, or numbers as an array; None if it is text or sparse."""
    if isinstance(value, float | int | list):
        value = np.asarray(value)
        return value if value.dtype.kind in "fi" else None
    return value if isinstance(value, TensorProto) else None


def _read(tensor: TensorProto, folder: Path) -> npt.NDArray[Any] | None:
    """Return a constant of numbers, None if it is large or cannot be read."""
    if tensor.data_type == TensorProto.STRING or np.prod(tensor.dims, dtype=float) > _MOST_VALUES:
        return None
    try:
        return numpy_helper.to_array(tensor, str(folder))
    except Exception:  # damaged data raises errors of any class: the session that serves it says what is wrong
        return None


def _computed(op: str, inputs: list[Range]) -> Range:
    """Return the range of an operator of numbers; a NaN counts as infinite."""
    if op in _FIXED:
        return _FIXED[op]
    try:
        with np.errstate(all="ignore"):
            if op in _RISING:
                low, high = (float(_RISING[op](*ends)) for ends in zip(*inputs, strict=True))
                return -inf if isnan(low) else low, inf if isnan(high) else high
            if op in _MONOTONE and not (op in ("Div", "Reciprocal") and inputs[-1][0] <= 0 <= inputs[-1][1]):
                corners = [corner for ends in product(*inputs) if not isnan(corner := float(_MONOTONE[op](*ends)))]
                return (min(corners), max(corners)) if corners else ANY
    except (TypeError, ValueError):  # the wrong number of inputs
        pass
    return ANY


def _averages(weights: npt.NDArray[Any] | None) -> bool:
    """Whether a product with constant weights selects or averages."""
    if weights is None or not weights.size or weights.min() < 0:
        return False
    return bool(np.abs(weights.sum(axis=max(0, weights.ndim - 2)) - 1).max() <= ROUNDING)


def _is_share(node: NodeProto, makers: Mapping[str, NodeProto], of: Callable[[str], Range]) -> bool:
    """Whether a node divides a positive number by a sum of it and others, as in eᶻ / (1 + eᶻ) and a written-out softmax."""
    total = makers.get(node.input[1]) if node.op_type == "Div" else None
    if total is None or total.op_type not in ("Add", "Sum", "ReduceSum"):
        return False
    parts = total.input[:1] if total.op_type == "ReduceSum" else total.input
    return node.input[0] in parts and all(of(part)[0] >= 0 for part in parts)
