"""Nodes: builds a piece of an ONNX graph from nodes, constants, and the overridable tables of corrections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from riverdelta.core.errors import ConfigurationError

#: The prefix of all names that riverdelta adds to a graph.
PREFIX = "riverdelta/"
#: The optional input of a merged model for a loss of lists: the number of each row's list, int64[N].
GROUP = "group"


class Nodes:
    """Collects nodes at one opset; names are unique and contain the correction's name.

    >>> nodes = Nodes(opset=17)
    >>> with nodes.scope("demo"):
    ...     y = nodes.add("Add", "x", nodes.constant(np.float32(1)))
    >>> y, nodes.nodes[0].op_type
    ('riverdelta/demo/add_1', 'Add')
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.tables: dict[str, npt.NDArray[Any]] = {}
        self._growing: set[str] = set()
        self._scope = ""
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes added inside with `name`."""
        before, self._scope = self._scope, f"{self._scope}{name}/"
        try:
            yield
        finally:
            self._scope = before

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output, in the default domain, and return the output's name."""
        return self.add_all(op, 1, *inputs, **attributes)[0]

    def add_all(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node with several outputs and return their names."""
        name = self._name(op.lower())
        names = [name, *(f"{name}:{n}" for n in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, names, name=name, **attributes))
        return names

    def named(self, name: str, tensor: str) -> str:
        """Give a tensor a fixed name in the current scope, by which tests and tools find it."""
        full = f"{PREFIX}{self._scope}{name}"
        self.nodes.append(helper.make_node("Identity", [tensor], [full], name=full))
        return full

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> str:
        """Return the name of a constant tensor of `value`; equal constants are stored once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"{PREFIX}constant_{len(self._known)}"
            self.constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def table(self, name: str, values: npt.NDArray[Any], grows: bool = False) -> str:
        """Return the name of an overridable table: an initializer that is also a graph input, float32 or int32.

        The input of one that `grows` takes any number of rows.
        """
        full = f"{PREFIX}{self._scope}{name}"
        if full in self.tables:
            raise ConfigurationError(f"two tables are named {full!r}; give the corrections different names")
        self.tables[full] = np.ascontiguousarray(values, values.dtype if values.dtype == np.int32 else np.float32)
        self._growing.update([full] * grows)
        return full

    def cast(self, tensor: str, to: int) -> str:
        """Return `tensor` cast to an ONNX element type such as `TensorProto.INT64`."""
        return self.add("Cast", tensor, to=to)

    def column(self, tensor: str) -> str:
        """Return a tensor of shape [N] as [N, 1]."""
        return self.add("Reshape", tensor, self.constant([-1, 1], np.int64))

    def table_protos(self) -> tuple[list[TensorProto], list[onnx.ValueInfoProto]]:
        """Return the tables as initializers and as graph inputs."""
        initializers = [numpy_helper.from_array(values, name) for name, values in self.tables.items()]
        shapes = [[f"{t.name}/rows", *t.dims[1:]] if t.name in self._growing else list(t.dims) for t in initializers]
        inputs = [helper.make_tensor_value_info(t.name, t.data_type, s) for t, s in zip(initializers, shapes, strict=True)]
        return initializers, inputs

    def _name(self, stem: str) -> str:
        return f"{PREFIX}{self._scope}{stem}_{len(self.nodes) + 1}"
