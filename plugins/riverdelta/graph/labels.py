"""Labels: whether the labels that a classifier gives rows agree with the classes of its columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.graph.head import Head
from riverdelta.graph.heads import Outputs
from riverdelta.graph.probe import Probe
from riverdelta.graph.wiring import operator

#: The share of rows that has the label of its largest column, in a model of several classes.
_MOST = 0.5
_NUMBERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def check_classes(outputs: Outputs, name: str, head: Head, probe: Probe) -> None:
    """Raise `ModelError` if the base gives rows other labels than the classes of the columns that the head reads.

    Of two classes that is so where the probed rows of the second have the lower numbers in the second column, of more where
    most rows have the label of a column that is not their largest, and of any where there are labels of no class. Rows of one
    class show nothing.
    """
    known = outputs.classes.labels(head.tensor, head.width)
    if head.width < 2 or (head.width > 2 and head.column is not None) or known is None:
        return
    if (label := _label_of(outputs, known)) is None:
        return
    columns, labels = probe.values(Head(head.tensor, None, head.width), label)
    are = labels == (range(len(known)) if label.bare else known)
    rows = np.arange(len(columns))
    if head.width == 2:
        places, (low, high) = columns[:, 1].argsort().argsort(), are.T
        wrong = low.any() and high.any() and np.mean(places[high]) < np.mean(places[low])
    else:
        theirs = columns[rows, are.argmax(axis=1)] >= columns.max(axis=1)
        wrong = (are.any(axis=0).sum() > 1) and np.mean(theirs) < _MOST
    if wrong or not are.any(axis=1).all():
        tensor = outputs.split(name)[0]
        lines = " or ".join(f"output={f'{tensor}[{at}]'!r}" for at in range(2))
        if head.column is None:
            lines = f"task=Multiclass(classes={known!r}) with the classes in the order of the columns"
        listed = " and ".join(f"{one!r}" for one in known[:8])
        raise ModelError(
            f"{outputs.path.name}: the columns of {tensor!r} seem to be of the classes {listed}, but the "
            f"labels {label.tensor!r} that the model gives rows do not agree; write {lines}"
        )


def _label_of(outputs: Outputs, known: list[Any]) -> Head | None:
    """Return the head of the model's label: the number that it is, or the place of a text in `known`."""
    version = next((one.version for one in outputs.model.opset_import if one.domain == "ai.onnx.ml"), 0)
    for name, value in outputs.values.items():
        kind, maker = value.type.tensor_type.elem_type, outputs.wiring.makers.get(name)
        if maker is not None and operator(maker) == "TreeEnsembleClassifier" and len(known) == 2:
            return None  # ONNX Runtime labels rows 0 and 1 here, whatever the numbers of the two classes are
        if kind in _NUMBERS and not isinstance(known[0], str):
            return Head(name)
        if kind == TensorProto.STRING and version:
            texts = [str(one) for one in known]
            new = {"keys_strings": texts, "values_floats": [*map(float, range(len(known)))], "default_float": -1.0}
            places = helper.make_node("LabelEncoder", [name], [name], domain="ai.onnx.ml")
            for key, given in ({"classes_strings": texts} if version == 1 else new).items():
                places.attribute.append(helper.make_attribute(key, given))
            return Head(name, bare=places)
    return None
