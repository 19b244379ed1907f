"""Head: the numbers of each row that are corrected, and how a graph reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from riverdelta.core.nodes import PREFIX, Nodes


@dataclass(frozen=True)
class Head:
    """The numbers of a row: `column` of `tensor`, or all of `tensor`; the other fields make a raw output of them.

    `rest` subtracts the log of the summed exponentials of the other `width` - 1 columns, `negative` changes the sign, `paired`
    puts a 0 before the one number, as the raw output of the first of two classes, and `bare` is the node that makes `tensor`,
    without its transform.
    """

    tensor: str
    column: int | None = None
    width: int = 1
    rest: bool = False
    negative: bool = False
    bare: NodeProto | None = None
    paired: bool = False

    @property
    def outputs(self) -> int:
        """The number of values that it has a row."""
        return 2 if self.paired else 1 if self.column is not None else self.width

    @property
    def reads(self) -> Sequence[str]:
        """The tensors of the base that it needs."""
        return [self.tensor] if self.bare is None else list(self.bare.input)

    def export(self, nodes: Nodes, moved: Mapping[str, str], kind: int) -> str:
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
                found = nodes.add("Reshape", source, nodes.constant([-1, 1 if self.paired else self.width], np.int64))
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
        found = nodes.add("Neg", found) if self.negative else found
        return nodes.add("Mul", found, nodes.constant([[0, 1]], np.float32)) if self.paired else found
