"""Probe: scores a few made-up rows with a base, to find the values that its heads take."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, ValueInfoProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.core.features import Schema
from riverdelta.core.nodes import Nodes
from riverdelta.graph.head import Head
from riverdelta.graph.names import make_room
from riverdelta.graph.reading import files_of, opset_of
from riverdelta.graph.runtime import open_session, quiet
from riverdelta.graph.trimming import trim

_log = logging.getLogger(__name__)
#: Models larger than this, with their weights, are not probed, so that an import stays short.
MOST_BYTES = 256 << 20
#: All runs together may take this long; what takes longer is stopped.
MOST_SECONDS = 2.0
#: No block of rows has more numbers than this.
_MOST_NUMBERS = 1 << 21
_ROWS, _LEAST, _AXIS = 32, 8, 8
#: For a model without operators of the default domain.
_OPSET = 13


@dataclass(frozen=True)
class Probe:
    """Scores a few rows with the model at `path`; `shapes` has the types of its tensors."""

    path: Path
    model: onnx.ModelProto
    inputs: Schema
    shapes: Mapping[str, ValueInfoProto]

    def values(self, *heads: Head) -> list[npt.NDArray[np.float64]]:
        """Return the values of each head, float64[n, outputs], in the rows in which all are finite; no rows if there are few.

        The rows, the same at every call: one of zeros; ids up to 1, then up to 1,000, with standard normal numbers; ids up to 3
        with numbers from 0 to 1; and a few of huge numbers, for which a linear score leaves every bound. Texts are among those
        that the graph has. Blocks that the base refuses, such as ids beyond its tables, are left out, and fewer than 8 rows
        count as not probed.
        """
        none, options = [np.empty((0, head.outputs)) for head in heads], quiet()
        if not self.inputs or sum(file.stat().st_size for file in files_of(self.path, self.model)) > MOST_BYTES:
            return none
        model, names = self._scoring(heads)
        try:
            session = open_session(model.SerializeToString(), ("CPUExecutionProvider",), source=self.path)
        except ModelError:  # the session that serves it says why it cannot be opened
            return none
        timer = threading.Timer(MOST_SECONDS, lambda: setattr(options, "terminate", True))
        timer.daemon = True
        timer.start()
        found = [none]
        for block in _blocks(self.inputs, _texts(self.model)):
            try:
                made = session.run(names, block, options)
            except Exception:  # ONNX Runtime's errors share no base class but Exception
                _log.debug("%s: a probed block was refused", self.path, exc_info=True)
                continue
            for head, one in zip(heads, made, strict=True):
                self._check_size(head, one.size / len(next(iter(block.values()))))
            found.append([one.astype(np.float64).reshape(-1, head.outputs) for head, one in zip(heads, made, strict=True)])
        timer.cancel()
        values = [np.concatenate(each) for each in zip(*found, strict=True)]
        finite = np.logical_and.reduce([np.isfinite(one).all(axis=1) for one in values])
        return [one[finite] for one in values] if finite.sum() >= _LEAST else none

    def _check_size(self, head: Head, size: float) -> None:
        """Raise `ModelError` if a row has another number of values than the file declares."""
        if size != head.outputs:
            file, made = self.path.name, f"onnx.helper.make_tensor_value_info({head.tensor!r}, 1, ['N', {size:.9g}])"
            at = next((at for at, value in enumerate(self.model.graph.output) if value.name == head.tensor), 0)
            raise ModelError(
                f"{file}: {head.tensor!r} has {size:.9g} numbers a row, which is not what the file declares; write model = "
                f"onnx.load({file!r}); model.graph.output[{at}].CopyFrom({made}); onnx.save(model, {file!r})"
            )

    def _scoring(self, heads: Sequence[Head]) -> tuple[onnx.ModelProto, list[str]]:
        """Return the model with these heads as its only outputs, and their names."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        if not opset_of(model):
            model.opset_import.append(helper.make_opsetid("", _OPSET))
        moved, nodes = make_room(model.graph, ()), Nodes(opset_of(model))
        kinds = [self.shapes[h.tensor].type.tensor_type.elem_type if h.tensor in self.shapes else 0 for h in heads]
        names = [head.export(nodes, moved, kind) for head, kind in zip(heads, kinds, strict=True)]
        model.graph.node.extend(nodes.nodes)
        model.graph.initializer.extend(nodes.constants)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        trim(model.graph)
        return model, names


def _texts(model: onnx.ModelProto) -> list[str]:
    """Return texts that a model has as constants, such as the categories of an encoder."""
    found: list[str] = ["", "a"]
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type in ("LabelEncoder", "OneHotEncoder", "CategoryMapper"):
                found += [text.decode(errors="replace") for text in attribute.strings[:_ROWS]]
    for tensor in model.graph.initializer:
        found += [text.decode(errors="replace") for text in tensor.string_data[:_ROWS]]
    return found[2:] or found


def _blocks(inputs: Schema, texts: Sequence[str]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    rng = np.random.default_rng(0)
    shapes = {name: [_AXIS if n is None else n for n in column.shape] for name, column in inputs.items()}
    if sum(math.prod((_ROWS, *shape)) for shape in shapes.values()) > _MOST_NUMBERS:
        return
    for rows, most, numbers in (
        (1, 0, np.zeros),
        (_ROWS, 1, rng.standard_normal),
        (_ROWS, 1_000, rng.standard_normal),
        (_ROWS, 3, rng.random),
        (_ROWS // 4, 1, lambda shape: 1e6 * rng.standard_normal(shape)),
    ):
        block = {}
        for name, column in inputs.items():
            kind, shape = column.numpy, (rows, *shapes[name])
            if kind.kind == "O":
                block[name] = rng.choice(np.array(texts, object), shape)
                continue
            largest = 1 if kind.kind == "b" else min(most, 2 ** (8 * kind.itemsize - 1) - 1)
            drawn = np.asarray(numbers(shape) if kind.kind == "f" else rng.integers(0, largest + 1, shape))
            with np.errstate(over="ignore"):
                block[name] = drawn.astype(kind)
        yield block
