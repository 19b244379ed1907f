"""Heads: the number of each row that is corrected, as a tensor of the base, a column of it, or a class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from riverdelta.core.errors import ModelError, Unsupported, near
from riverdelta.core.losses import Loss
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.graph.axes import is_batch, type_of
from riverdelta.graph.classes import Classes
from riverdelta.graph.exporters import with_dynamic_batch
from riverdelta.graph.wiring import FLOATS, Spot, Wiring

_COLUMN = re.compile(r"(?P<tensor>.+)\[(?P<number>-?\d+|'[^']*'|\"[^\"]*\")\]", re.DOTALL)


@dataclass(frozen=True)
class Head:
    """One number a row: `column` of `tensor`, or `tensor` itself; the other fields make a raw output of it.

    `rest` subtracts the log of the summed exponentials of the other `width` - 1 columns, `negative` changes the sign, and
    `bare` is the node that makes `tensor`, without its transform.
    """

    tensor: str
    column: int | None = None
    width: int = 1
    rest: bool = False
    negative: bool = False
    bare: NodeProto | None = None

    @property
    def reads(self) -> Sequence[str]:
        """The tensors of the base that it needs."""
        return [self.tensor] if self.bare is None else list(self.bare.input)

    def export(self, nodes: Nodes, moved: Mapping[str, str], kind: int, outputs: int = 1) -> str:
        """Append its nodes and return its tensor float32[N, outputs]; `kind` is the element type of `tensor`, 0 if unknown.

        `moved` has the new names of tensors of the base.
        """
        source = moved.get(self.tensor, self.tensor)
        if self.bare is not None:
            made = NodeProto()
            made.CopyFrom(self.bare)
            made.input[:] = [moved.get(name, name) for name in made.input]
            made.output[:] = [f"{PREFIX}bare_{at}" for at in range(len(made.output))]
            made.name, source = f"{PREFIX}bare", made.output[-1]
            nodes.nodes.append(made)

        def read(columns: Sequence[int] | None) -> str:
            if columns is None:
                found = nodes.add("Reshape", source, nodes.constant([-1, outputs], np.int64))
            else:
                found = nodes.add("Gather", source, nodes.constant(columns, np.int64), axis=1)
            return found if kind == TensorProto.FLOAT else nodes.cast(found, TensorProto.FLOAT)

        found = read(None if self.column is None else [self.column])
        if self.rest:
            others = read([at for at in range(self.width) if at != self.column])
            if self.width > 2:
                axes = (nodes.constant([1], np.int64),) if nodes.opset >= 18 else ()
                others = nodes.add("ReduceLogSumExp", others, *axes, keepdims=1, **({} if axes else {"axes": [1]}))
            found = nodes.add("Sub", found, others)
        return nodes.add("Neg", found) if self.negative else found


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
        if self.loss.outputs > 1:
            return tensor, Head(read)
        if width == 1:
            if column not in (None, 0):
                raise ModelError(f"{self.path.name}: {name!r}: {tensor!r} has one column; write output={tensor!r}")
            if name is None:
                self._check_only_class(tensor)
            flat = value is not None and len(value.type.tensor_type.shape.dim) < 2
            return tensor, Head(read, None if column is None or flat else 0)
        at = self._column(tensor, read, width, column)
        return f"{tensor}[{at}]", Head(read, at, width)

    def candidates(self) -> list[str]:
        """Return the names of the outputs that may be scores: those of floats, and maps of classes to floats."""
        return [name for name, value in self.values.items() if value.type.tensor_type.elem_type in FLOATS or self._zipped(name)]

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
        if len(found) == 2 and (first := self._first_of_two(*found)) is not None:
            return first
        if len(found) != 1:
            listed = ", ".join(f"{n}: {type_of(o)}" for n, o in self.values.items())
            lines = " or ".join(f"output={name!r}" for name in found[:8])
            raise ModelError(
                f"{self.path.name} has {len(found)} float outputs ({listed}); "
                + (f"write {lines}" if found else "export a score: write output= with the name of an inner float tensor")
            )
        return found[0]

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
        if kind not in (0, *FLOATS):
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
        fits = width == loss.outputs if loss.outputs > 1 else width >= 1
        if dims and (len(dims) > 2 or not fits):
            wanted = "[N], [N, 1] or [N, K] with a column" if loss.outputs == 1 else f"[N, {loss.outputs}]"
            raise Unsupported(f"{path.name}: output {tensor!r} is {type_of(value)}; {loss} takes {wanted}")
        if not dims or dims[0].HasField("dim_value") or not is_batch(self.model, value):
            how = with_dynamic_batch(self.model, path.name)
            raise ModelError(f"{path.name}: output {tensor!r} is {type_of(value)}, without a dynamic batch axis; {how}")
        return width

    def _column(self, tensor: str, read: str, width: int, column: int | str | None) -> int:
        """Return the column that is corrected, of several; raises `ModelError` that ends in the lines to choose from."""
        known, lines = self.classes.of(read, width), self.lines(tensor, width)
        listed, what = ", ".join(known or ()), f"{self.path.name}: output {tensor!r}"
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
        if width > 2:
            kind = f"{width} columns, the task multiclass, or regression of {width} numbers"
            if known is not None or self.classes.shares(read):
                kind = f"{width} classes{f' ({listed})' if known else ''}, the task multiclass"
            raise Unsupported(
                f"{what} has {kind}; this version corrects binary scores. To correct the probability of one class against all "
                f"others, {choose}"
            )
        if (positive := self.classes.positive(read)) is not None:
            return positive
        of = f"the classes {known[0]!r} and {known[1]!r}" if known else "two columns"
        raise ModelError(f"{what} has {of}, and nothing says which is the positive one; {choose}")
