"""Law: the error that a broken law raises, and how the laws run a piece of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isfunction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import helper

from riverdelta.core.features import Columns
from riverdelta.core.nodes import Nodes

OPSET = 17


class LawBroken(AssertionError):
    """What was checked does not keep a law; the message says which and by how much."""


def laws_of(module: Mapping[str, Any]) -> tuple[Callable[..., None], ...]:
    """Return the laws among the names of a module, in their order: its public functions but `check_…`."""
    own = [each for each in module.values() if isfunction(each) and each.__module__ == module["__name__"]]
    return tuple(each for each in own if not each.__name__.startswith(("_", "check_")))


def check(law: Callable[..., None], *of: Any) -> None:
    """Check one law; raises `LawBroken` with its name."""
    try:
        law(*of)
    except LawBroken as broken:
        raise LawBroken(f"{law.__name__}: {broken}") from broken


@contextmanager
def refused(what: str, error: type[Exception], naming: str = "") -> Iterator[None]:
    """Raise `LawBroken` where the block does not raise an error that names what it should."""
    try:
        yield
    except error as raised:
        if naming not in str(raised):
            raise LawBroken(f"{what}: the error does not name {naming!r}: {raised}") from raised
    else:
        raise LawBroken(f"{what} is not refused; expected {error.__name__}")


def equal(what: str, found: object, expected: object) -> None:
    """Raise `LawBroken` where a value is not what was expected."""
    if found != expected:
        raise LawBroken(f"{what}: {found!r:.300}; expected {expected!r:.300}")


def run(nodes: Nodes, tensor: str, feeds: Columns) -> npt.NDArray[Any]:
    """Return what ONNX Runtime makes of `tensor`, every feed being an input of the graph or one of its tables."""
    initializers, overridable = nodes.table_protos()
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
        if name not in nodes.tables
    ]
    graph = helper.make_graph(
        [*nodes.nodes, helper.make_node("Identity", [tensor], ["out"])],
        "law",
        inputs + overridable,
        [helper.make_empty_tensor_value_info("out")],
        [*nodes.constants, *initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # tables are graph inputs on purpose
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out: npt.NDArray[Any] = session.run(["out"], dict(feeds))[0]
    return out


def same(what: str, got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Raise `LawBroken` where two arrays differ in a bit."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise LawBroken(f"{what} gave {got.dtype}{list(got.shape)}; expected {expected.dtype}{list(expected.shape)}")
    if got.tobytes() != expected.tobytes():
        gap = np.abs(got.astype(np.float64) - expected).max()
        raise LawBroken(f"{what} differs by up to {gap:.3g}; expected equality to the last bit")


def at_most(what: str, got: npt.ArrayLike, most: npt.ArrayLike) -> None:
    """Raise `LawBroken` where a number is above what is allowed, or NaN."""
    found, allowed = np.broadcast_arrays(got, most)
    if not (found <= allowed).all():
        at = int(np.flatnonzero(~(found <= allowed).ravel())[0])
        raise LawBroken(f"{what} is {found.ravel()[at]:.6g}; at most {allowed.ravel()[at]:.6g} is allowed")
