"""Ensembles: the range of what the models of the domain ai.onnx.ml return, from their weights and their post-transform."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.graph.interval import UNKNOWN, Call, Range
from riverdelta.graph.operators import Operator

_PROBABILITIES = (b"LOGISTIC", b"SOFTMAX", b"SOFTMAX_ZERO")
_LABEL = Range(0, inf, known=False, whole=True)


def _regressed(call: Call, raw: Range) -> Range:
    # ONNX Runtime leaves out LOGISTIC and SOFTMAX here.
    return raw if call.attributes.get("post_transform", b"NONE") == b"NONE" else UNKNOWN


def _transformed(call: Call, raw: Range) -> Range:
    transform = call.attributes.get("post_transform", b"NONE")
    if transform in _PROBABILITIES:
        return Range(0, 1)
    return raw if transform == b"NONE" else UNKNOWN


def _tree_sums(attributes: Mapping[str, Any], what: str, trees: int | None = None) -> Range:
    """Return the range of the sums of one leaf a tree, over all classes or targets."""
    tree, kind, weight = (np.asarray(attributes.get(f"{what}_{part}", ())) for part in ("treeids", "ids", "weights"))
    if not weight.size or not tree.shape == kind.shape == weight.shape or not np.isfinite(weight).all():
        return UNKNOWN
    count = len(np.unique(tree))
    keys, of = np.unique(np.stack([kind, tree]), axis=1, return_inverse=True)
    low, high = np.full(keys.shape[1], np.inf), np.full(keys.shape[1], -np.inf)
    np.minimum.at(low, of.ravel(), weight)
    np.maximum.at(high, of.ravel(), weight)
    names, group = np.unique(keys[0], return_inverse=True)
    if what == "class" and len(names) > 1:  # a leaf need not have every class
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    bases = np.asarray(attributes.get("base_values", ()), float)
    start = bases if len(bases) == len(names) else np.zeros(len(names))
    share = count if attributes.get("aggregate_function", b"SUM") == b"AVERAGE" else 1
    ends: list[npt.NDArray[Any]] = [np.bincount(group, end, len(names)) / share + start for end in (low, high)]
    return Range(float(ends[0].min()), float(ends[1].max()))


def _trees(call: Call) -> Range:
    if call.attributes.get("aggregate_function", b"SUM") not in (b"SUM", b"AVERAGE"):
        return UNKNOWN
    return _regressed(call, _tree_sums(call.attributes, "target"))


def _classifying_trees(call: Call) -> Range:
    raw = _tree_sums(call.attributes, "class")
    if len(set(call.attributes.get("class_ids", ()))) == 1:
        # Two classes with the weights of one: ONNX Runtime adds the other's score, 1 - s or -s.
        positive = min(call.attributes["class_weights"]) >= 0
        raw = raw | ((Range(1, 1) if positive else Range(0, 0)) - raw)
    return _transformed(call, raw)


def _supported_vectors(call: Call) -> Range:
    return Range(0, 1) if call.attributes.get("prob_a") else _transformed(call, Range(known=False))


#: The range of each operator's outputs; a classifier's first output is its label.
TABLE: dict[str, tuple[Operator, ...]] = {
    "LinearRegressor": (lambda call: _regressed(call, Range()),),
    "SVMRegressor": (lambda call: _regressed(call, Range(known=False)),),
    "TreeEnsembleRegressor": (_trees,),
    "LinearClassifier": (lambda call: _LABEL, lambda call: _transformed(call, Range())),
    "TreeEnsembleClassifier": (lambda call: _LABEL, _classifying_trees),
    "SVMClassifier": (lambda call: _LABEL, _supported_vectors),
    "Normalizer": (lambda call: Range(0 if call.first.low >= 0 else -1, 1),),
    "ArrayFeatureExtractor": (lambda call: call.first,),
    "FeatureVectorizer": (lambda call: call.first,),
    "Imputer": (lambda call: UNKNOWN,),
    "Binarizer": (lambda call: Range(0, 1, whole=True),),
    "Scaler": (lambda call: Range(known=call.first.known),),
}
