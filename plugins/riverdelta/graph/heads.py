"""Heads: which numbers of each row are corrected, by the names that users write: a tensor of the base, a column, a class."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from riverdelta.core.errors import ModelError, Unsupported, near
from riverdelta.core.losses import Loss
from riverdelta.graph.axes import is_batch, type_of
from riverdelta.graph.classes import Classes
from riverdelta.graph.exporters import with_dynamic_batch
from riverdelta.graph.head import Head
from riverdelta.graph.wiring import FLOATS, Spot, Wiring, operator

_INTEGERS = (TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT8)
#: These pick a label by its place.
_PICKING = ("ArrayFeatureExtractor", "Gather", "LabelEncoder")
_COLUMN = re.compile(r"(?P<tensor>.+)\[(?P<number>-?\d+|'[^']*'|\"[^\"]*\")\]", re.DOTALL)


class Outputs:
    """The outputs of a model that can be corrected, found by the names that users write.

    >>> Outputs.split("probabilities['fraud']"), Outputs.split("scores[1]"), Outputs.split("logit")
    (('probabilities', 'fraud'), ('scores', 1), ('logit', None))
    """

    def __init__(self, path: Path, model: ModelProto, shapes: Mapping[str, ValueInfoProto], loss: Loss) -> None:
        self.path, self.model, self.shapes, self.loss = path, model, shapes, loss
        self.wiring = Wiring(model.graph, path.parent, shapes)
        self.classes = Classes(model.graph, self.wiring)
        self.values = {value.name: value for value in model.graph.output}

    @staticmethod
    def split(name: str) -> tuple[str, int | str | None]:
        """Return the tensor and the column, or class, that a name gives."""
        if (found := _COLUMN.fullmatch(name)) is None:
            return name, None
        number = found["number"]
        return found["tensor"], number[1:-1] if number[0] in "'\"" else int(number)

    def find(self, name: str | None) -> tuple[str, Head]:
        """Return the head that `name` gives, or the model's only one, with its name; raises `ModelError` or `Unsupported`."""
        tensor, column = (self._only(), None) if name is None else (name, None) if name in self.shapes else self.split(name)
        read = self._read(tensor)
        value = self.shapes.get(read)
        width = self._width(tensor, read, value)
        if self._all:
            if column is not None:
                raise ModelError(
                    f"{self.path.name}: {name!r} is one column; write output={tensor!r}: the task {self.loss.task} takes all"
                )
            return tensor, Head(read, None, width)
        self._check_number(tensor, read, width)
        if width == 1:
            if column not in (None, 0):
                raise ModelError(f"{self.path.name}: {name!r}: {tensor!r} has one column; write output={tensor!r}")
            if name is None:
                self._check_only_class(tensor)
            flat = value is not None and len(value.type.tensor_type.shape.dim) < 2
            return tensor, Head(read, None if column is None or flat else 0)
        at = self._column(tensor, read, width, column)
        return f"{tensor}[{at}]", Head(read, at, width)

    def resolved(self, head: Head) -> Loss:
        """Return the loss for a base that is read by `head`; raises `Unsupported` if it takes another number of outputs."""
        known = self.classes.of(head.tensor, head.width) or self._configured(head.width) if self._all else None
        loss = self.loss.of_base(head.outputs, known)
        if loss.outputs != head.outputs:
            raise Unsupported(
                f"{self.path.name}: {head.tensor!r} has {head.outputs} numbers a row; the task {loss.task} takes {loss.outputs}"
            )
        return loss

    def _configured(self, width: int) -> list[str] | None:
        """Return the names of classes in the metadata, as the configuration of a Hugging Face model has them."""
        try:
            found = json.loads(next((one.value for one in self.model.metadata_props if one.key == "id2label"), "null"))
            return [str(found[str(at)]) for at in range(width)] if len(found) == width else None
        except (ValueError, TypeError, KeyError):
            return None

    def candidates(self) -> list[str]:
        """Return the names of the outputs that may be scores: those of floats, and maps of classes to floats.

        Where there are none, a number may also be an integer that is not the label of a classifier.
        """
        found = [
            name for name, value in self.values.items() if value.type.tensor_type.elem_type in FLOATS or self._zipped(name)
        ]
        return found or [name for name in self.values if self._is_count(name)]

    @property
    def _all(self) -> bool:
        """Whether all columns of an output are corrected."""
        return self.loss.outputs != 1

    def _is_count(self, name: str) -> bool:
        """Whether an output is integers, for a task of numbers."""
        maker, value = self.wiring.makers.get(name), self.values.get(name)
        label = maker is not None and (operator(maker).endswith("Classifier") or operator(maker) in ("ArgMax", *_PICKING))
        kind = 0 if value is None else value.type.tensor_type.elem_type
        return kind in _INTEGERS and not label and not self._all and not self.loss.logit

    def _check_number(self, tensor: str, read: str, width: int) -> None:
        """Raise `ModelError` if a number is corrected, and an output has the scores of classes."""
        if self.loss.logit or self.loss.lists or not self.classes.shares(read):
            return
        known = self.classes.of(read, width)
        raise ModelError(
            f"{self.path.name}: output {tensor!r} has the scores of {width} classes{f' ({_listed(known)})' if known else ''}, "
            f'and the task {self.loss.task} corrects a {self.loss.raw.replace("_", " ")}; write task="{_task_of(width)}"'
        )

    def lines(self, tensor: str, width: int) -> list[str]:
        """Return what to write for each column of a tensor: its class, or its number."""
        known = self.classes.of(self._read(tensor), width)
        return [f"output={f'{tensor}[{at}]' if known is None else f'{tensor}[{known[at]!r}]'!r}" for at in range(width)]

    def _of_class(self, name: str) -> list[str]:
        """Return what to write where a name is that of a class, alone or in brackets without quotes."""
        word = name.rpartition("[")[2].strip("]'\" ")
        every = {one: self.classes.of(self._read(one)) or () for one in self.candidates()}
        return [f"write output={f'{one}[{word!r}]'!r}" for one, known in every.items() if word in known]

    def _only(self) -> str:
        found = self.candidates()
        if self._all and (whole := self._tensor_of(found)) is not None:
            return whole
        if not self._all and len(found) == 2 and (first := self._first_of_two(*found)) is not None:
            return first
        if len(found) != 1:
            listed = ", ".join(f"{n}: {type_of(o)}" for n, o in self.values.items())
            lines = " or ".join(f"output={name!r}" for name in found[:8])
            raise ModelError(
                f"{self.path.name} has {len(found)} float outputs ({listed}); "
                + (f"write {lines}" if found else "export a score: write output= with the name of an inner float tensor")
            )
        return found[0]

    def _tensor_of(self, names: Sequence[str]) -> str | None:
        """Return the tensor of whose columns there is one output each, in their order."""
        ways = [[(spot.tensor, spot.column) for spot in self.wiring.way(Spot(name))] for name in names]
        shared = [tensor for tensor, column in (ways[0] if len(ways) > 1 else ()) if column == 0]
        return next((one for one in shared if all((one, at) in way for at, way in enumerate(ways))), None)

    def _first_of_two(self, one: str, other: str) -> str | None:
        """Return the output of the positive class, if two outputs are the columns of one tensor and its classes show it."""
        ways = [{spot.tensor: spot.column for spot in reversed(self.wiring.way(Spot(name)))} for name in (one, other)]
        for tensor, column in reversed(ways[0].items()):
            positive = self.classes.positive(tensor)
            if positive is not None and {column, ways[1].get(tensor)} == {0, 1}:
                return one if column == positive else other
        return None

    def _check_only_class(self, tensor: str) -> None:
        """Raise `ModelError` if an output is one column of two classes, and nothing says that its class is the positive one."""
        for spot in self.wiring.way(Spot(tensor)):
            known = None if spot.column is None else self.classes.of(spot.tensor, 2)
            if known and spot.column in (0, 1) and self.classes.positive(spot.tensor) != spot.column:
                what, lines = f"is the score of {known[spot.column]!r} of the classes", " or ".join(self.lines(spot.tensor, 2))
                raise ModelError(
                    f"{self.path.name}: output {tensor!r} {what} {known[0]!r} and {known[1]!r}, and nothing says that it is "
                    f"the positive one; write {lines}"
                )

    def _zipped(self, name: str) -> NodeProto | None:
        """Return the ZipMap that makes an output, if one does."""
        makers = (self.wiring.makers.get(spot.tensor) for spot in self.wiring.way(Spot(name)))
        return next((node for node in makers if node is not None and node.op_type == "ZipMap"), None)

    def _read(self, tensor: str) -> str:
        """Return the tensor that is read for a name: a map of classes is read before it is made."""
        zipped = self._zipped(tensor)
        return tensor if zipped is None else zipped.input[0]

    def _width(self, tensor: str, read: str, value: ValueInfoProto | None) -> int:
        """Return how many numbers a row of a tensor has; raises the reason why it cannot be corrected."""
        path, loss = self.path, self.loss
        if value is None and read not in self.wiring.makers:
            of = " or ".join(self._of_class(tensor)) or near(tensor, self.values)
            raise ModelError(f"{path.name} has no output {tensor!r}: {of}")
        kind = 0 if value is None else value.type.tensor_type.elem_type
        if kind not in (0, *FLOATS) and not self._is_count(tensor):
            what = f"a {loss.raw} or a prediction of it"
            floats = " or ".join(f"output={name!r}" for name in self.candidates())
            raise ModelError(
                f"{path.name}: output {tensor!r} is {type_of(value)}; {what} is float32"
                + (f": write {floats}" if floats else "")
            )
        if value is None or not value.type.tensor_type.HasField("shape"):
            if (labels := self.classes.of(read)) is not None:
                return len(labels)
            raise ModelError(f"{path.name}: output {tensor!r} has no shape; {with_dynamic_batch(self.model, path.name)}")
        dims = value.type.tensor_type.shape.dim
        width = 1 if len(dims) == 1 else (len(dims) and dims[1].dim_value) or len(self.classes.of(read) or ())
        fits = width > 1 if self._all else width >= 1
        if dims and (len(dims) > 2 or not fits):
            wanted = "[N, K]" if self._all else "[N], [N, 1] or [N, K] with a column"
            other = '; for one score of two outcomes write task="binary"' if self._all and width == 1 else ""
            raise Unsupported(f"{path.name}: output {tensor!r} is {type_of(value)}; the task {loss.task} takes {wanted}{other}")
        if not dims or dims[0].HasField("dim_value") or not is_batch(self.model, value):
            how = with_dynamic_batch(self.model, path.name)
            raise ModelError(f"{path.name}: output {tensor!r} is {type_of(value)}, without a dynamic batch axis; {how}")
        return width

    def _column(self, tensor: str, read: str, width: int, column: int | str | None) -> int:
        """Return the column that is corrected, of several; raises `ModelError` that ends in the lines to choose from."""
        known, lines = self.classes.of(read, width), self.lines(tensor, width)
        listed, what = _listed(known or ()), f"{self.path.name}: output {tensor!r}"
        choose = f"write {' or '.join(lines) if width <= 8 else lines[0]}"
        if isinstance(column, int):
            if not 0 <= column < width:
                raise ModelError(f"{what} has no column {column}, but 0 to {width - 1}; {choose}")
            return column
        if isinstance(column, str):
            if known is None:
                raise ModelError(f"{what} names no classes, so that {column!r} cannot be found; {choose}")
            if column not in known:
                raise ModelError(f"{what} has no class {column!r}, but {listed}; {choose}")
            return known.index(column)
        if width > 2 and self.loss.logit:
            kind, several = f"{width} columns", 'task="multiclass", or for one number of them task="regression" and a column'
            if known is not None or self.classes.shares(read):
                kind, several = f"{width} classes{f' ({listed})' if known else ''}", 'task="multiclass"'
            raise ModelError(
                f"{what} has {kind}; write {several}; or to correct the probability of one class against all others, {choose}"
            )
        if not self.loss.logit and (width > 2 or not self.classes.shares(read)):
            raise ModelError(f"{what} has {width} columns, and the task {self.loss.task} corrects one number a row; {choose}")
        if (positive := self.classes.positive(read)) is not None:
            return positive
        of = f"the classes {known[0]!r} and {known[1]!r}" if known else "two columns"
        raise ModelError(f"{what} has {of}, and nothing says which is the positive one; {choose}")


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")


def _task_of(width: int) -> str:
    return "multiclass" if width > 2 else "binary"
