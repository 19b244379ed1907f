"""Labels: whether the labels that a classifier gives rows agree with the classes of its columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.graph.heads import Head, Outputs
from riverdelta.graph.probe import Probe
from riverdelta.graph.wiring import operator

_NUMBERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def check_classes(outputs: Outputs, name: str, head: Head, probe: Probe) -> None:
    """Raise `ModelError` if the base gives rows other labels than the classes of the two columns, of which one is the head's.

    That is so where the probed rows of the second class have the lower numbers in the second column, or where there are labels
    of neither class. Rows of one class show nothing.
    """
    known = outputs.classes.labels(head.tensor, 2)
    if head.width != 2 or head.column is None or known is None or (label := _label_of(outputs, known)) is None:
        return
    rows = probe.values(Head(head.tensor, 1, 2), label)
    numbers = [0, 1] if label.bare else known
    places, (low, high) = rows[:, 0].argsort().argsort(), (rows[:, 1] == one for one in numbers)
    turned = low.any() and high.any() and np.mean(places[high]) < np.mean(places[low])
    if turned or not (low | high).all():
        tensor = outputs.split(name)[0]
        lines = " or ".join(f"output={f'{tensor}[{at}]'!r}" for at in range(2))
        raise ModelError(
            f"{outputs.path.name}: the columns of {tensor!r} seem to be of the classes {known[0]!r} and {known[1]!r}, but the "
            f"labels {label.tensor!r} that the model gives rows do not agree; write {lines}"
        )


def _label_of(outputs: Outputs, known: list[Any]) -> Head | None:
    """Return the head of the model's label: the number that it is, or the place of a text in `known`."""
    version = next((one.version for one in outputs.model.opset_import if one.domain == "ai.onnx.ml"), 0)
    for name, value in outputs.values.items():
        kind, maker = value.type.tensor_type.elem_type, outputs.wiring.makers.get(name)
        if maker is not None and operator(maker) == "TreeEnsembleClassifier":
            return None  # ONNX Runtime labels rows 0 and 1 here, whatever the numbers of the two classes are
        if kind in _NUMBERS and not isinstance(known[0], str):
            return Head(name)
        if kind == TensorProto.STRING and version:
            texts = [str(one) for one in known]
            new = {"keys_strings": texts, "values_floats": [0.0, 1.0], "default_float": -1.0}
            places = helper.make_node("LabelEncoder", [name], [name], domain="ai.onnx.ml")
            for key, given in ({"classes_strings": texts} if version == 1 else new).items():
                places.attribute.append(helper.make_attribute(key, given))
            return Head(name, bare=places)
    return None
