"""Ranges: the values that the tensors of a graph can have, whatever its inputs are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, NodeProto

from riverdelta.graph.wiring import FLOATS, Spot, Wiring, attributes, operator

#: The lowest and the highest value of a tensor.
Range = tuple[float, float]
ANY: Range = (-inf, inf)
#: A sum of float32 products may exceed its exact bound by this.
ROUNDING = 1e-5
_SQUASHING = (b"LOGISTIC", b"SOFTMAX", b"SOFTMAX_ZERO")
_TRUTHS = frozenset("Equal Greater GreaterOrEqual Less LessOrEqual And Or Not Xor IsNaN".split())
#: Sums within sums are followed this far.
_DEEPEST = 8
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
    wiring = Wiring(graph, folder)
    found: dict[str, Range] = {}

    def of(name: str) -> Range:
        if name in found:
            return found[name]
        held = wiring.constant(name)
        return (float(held.min()), float(held.max())) if held is not None and held.size and held.dtype.kind in "biuf" else ANY

    for node in graph.node:
        given, op = attributes(node), operator(node)
        inputs = [of(name) for name in node.input]
        made, outputs = ANY, node.output[:1]
        if op in _PASSING and (op != "Cast" or given.get("to") in FLOATS):
            # A table of constants may hold logits, probabilities or anything else.
            made, outputs = found.get(node.input[0], ANY), node.output if op == "Split" else outputs
        elif op == "MatMul" and _averages(wiring.constant(node.input[1])):
            made = inputs[0]
        elif op == "Concat" or (op == "Where" and not all(wiring.is_constant(name) for name in node.input[1:])):
            chosen = inputs[op == "Where" :]
            made = min(low for low, _ in chosen), max(high for _, high in chosen)
        elif op == "Normalizer":
            made = (0.0, 1.0) if inputs[0][0] >= 0 else ANY
        elif op == "TreeEnsemble":  # of one target ONNX Runtime leaves the transform out
            made = (0.0, 1.0) if given.get("post_transform") in (1, 2, 3) and given.get("n_targets", 1) > 1 else ANY
        elif op.endswith("Classifier"):
            outputs = node.output[1:]
            # Of a single score ONNX Runtime makes a logistic, and leaves a softmax out.
            squashing = _SQUASHING[:1] if single_score(node) else _SQUASHING
            squashed = given.get("post_transform") in squashing or "prob_a" in given
            made = (0.0, 1.0) if squashed else _leaves(node)
        elif op == "ReduceSum":
            made = (0.0, inf) if inputs[0][0] >= 0 or _is_truth(node.input[0], wiring) else ANY
        elif _is_share(node, wiring, of):
            made = (0.0, 1.0)
        else:
            made = (-inf, 0.0) if _is_log_share(node, wiring) else _computed(op, inputs)
        if made != ANY:
            found.update(dict.fromkeys(outputs, made))
    return found


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


def _is_truth(name: str, wiring: Wiring) -> bool:
    """Whether a number is 1 for true and 0 for false, as a label is."""
    cast = wiring.makers.get(name)
    maker = wiring.makers.get(cast.input[0]) if cast is not None and operator(cast) == "Cast" else None
    return maker is not None and operator(maker) in _TRUTHS


def _averages(weights: npt.NDArray[Any] | None) -> bool:
    """Whether a product with constant weights selects or averages."""
    if weights is None or not weights.size or weights.min() < 0:
        return False
    return bool(np.abs(weights.sum(axis=max(0, weights.ndim - 2)) - 1).max() <= ROUNDING)


def _is_share(node: NodeProto, wiring: Wiring, of: Callable[[str], Range]) -> bool:
    """Whether a node divides a positive number by a sum of it and others, as in eᶻ / (1 + eᶻ) and a written-out softmax."""
    return node.op_type == "Div" and of(node.input[0])[0] >= 0 and _covers(node.input[1], node.input[0], wiring, of)


def _covers(total: str, part: str, wiring: Wiring, of: Callable[[str], Range]) -> bool:
    """Whether a number is the sum of a part and of numbers that are not negative."""
    for _ in range(_DEEPEST):
        maker = wiring.makers.get(total)
        op = "" if maker is None else operator(maker)
        if maker is None or op not in ("Add", "Sum", "ReduceSum", "Reshape"):
            return False
        if op == "ReduceSum":
            return wiring.total_of(total) == part
        if part in maker.input and op != "Reshape":
            return all(of(name)[0] >= 0 for name in maker.input)
        rest = [name for name in maker.input if not wiring.is_constant(name)]
        if op != "Reshape":  # what is added may keep the sum from being 0
            rest = [name for name in rest if of(name)[1] == inf and not _is_truth(name, wiring)]
            if any(of(name)[0] < 0 and not _is_truth(name, wiring) for name in maker.input):
                return False
        if len(rest) != 1:
            return False
        total = rest[0]
    return False


def _is_log_share(node: NodeProto, wiring: Wiring) -> bool:
    """Whether a node subtracts the log of the summed exponentials of its first input, as a log-softmax does."""
    if operator(node) != "Sub":
        return False
    total = wiring.makers.get(wiring.way(Spot(node.input[1]))[-1].tensor)
    return total is not None and operator(total) == "ReduceLogSumExp" and total.input[0] == node.input[0]


def single_score(node: NodeProto) -> bool:
    """Whether a classifier has one score, of which ONNX Runtime makes those of two classes."""
    given = attributes(node)
    if operator(node) == "TreeEnsembleClassifier":
        return len(set(given.get("class_ids", ()))) == 1
    return operator(node) == "LinearClassifier" and len(given.get("intercepts", ())) == 1


def _leaves(node: NodeProto) -> Range:
    """Return (0, 1) if that holds the scores of an ensemble of trees without a transform, by its least and largest leaves.

    Other bounds say nothing: every ensemble is bounded. Of two classes and weights for one, ONNX Runtime makes the scores -s
    and s, or 1 - s and s if no weight is negative.
    """
    given = attributes(node)
    weights = np.asarray(given.get("class_weights", ()))
    if operator(node) != "TreeEnsembleClassifier" or not weights.size or given.get("aggregate_function", b"SUM") != b"SUM":
        return ANY
    kinds, trees = np.asarray(given["class_ids"]), np.asarray(given["class_treeids"])
    modes = np.array([mode == b"LEAF" for mode in given["nodes_modes"]])
    owners, bases = np.asarray(given["nodes_treeids"])[modes], given.get("base_values", [0.0])
    ends = []
    for kind in np.unique(kinds):
        sums = np.full(2, bases[int(kind)] if int(kind) < len(bases) else bases[0])
        for tree in np.unique(owners):
            held = weights[(kinds == kind) & (trees == tree)]
            # A leaf without a weight has 0.
            held = np.append(held, 0.0) if len(held) < np.sum(owners == tree) else held
            sums += held.min(), held.max()
        ends += list(sums)
    if single_score(node):
        positive = weights.min() >= 0
        ends += [float(positive) - end for end in ends]
    return (0.0, 1.0) if min(ends) >= -ROUNDING and max(ends) <= 1 + ROUNDING else ANY
