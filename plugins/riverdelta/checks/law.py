"""Law: the error of a broken law, comparisons that name the first wrong row, and ONNX Runtime for a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isfunction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import helper

from riverdelta.core.arrays import Array, Arrays
from riverdelta.core.features import Columns
from riverdelta.core.nodes import Nodes

OPSET = 17
#: No rows to show.
EMPTY: Arrays = {}


class LawBroken(AssertionError):
    """An object breaks a law; the message names the law, the first row that breaks it, and its values."""


def laws_of(module: Mapping[str, Any]) -> tuple[Callable[..., None], ...]:
    """Return the laws of a module in order: its public functions."""
    own = [each for each in module.values() if isfunction(each) and each.__module__ == module["__name__"]]
    return tuple(each for each in own if not each.__name__.startswith("_"))


@contextmanager
def refused(what: str, error: type[Exception], naming: str = "") -> Iterator[None]:
    """Raise `LawBroken` if the block does not raise `error` with `naming` in its message."""
    try:
        yield
    except error as raised:
        if naming not in str(raised):
            raise LawBroken(f"{what}: the error does not name {naming!r}: {raised}") from raised
    else:
        raise LawBroken(f"{what} is not refused; expected {error.__name__}")


def equal(what: str, found: object, expected: object) -> None:
    """Raise `LawBroken` if `found` is not `expected`."""
    if found != expected:
        raise LawBroken(f"{what}: {found!r:.300}; expected {expected!r:.300}")


def run(nodes: Nodes, tensor: str, feeds: Columns) -> Array:
    """Return the value of `tensor` in ONNX Runtime; each feed is an input of the graph or one of its tables."""
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
    options.log_severity_level = 3  # it warns about tables that are inputs
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out: Array = session.run(["out"], dict(feeds))[0]
    return out


def same(what: str, got: Array, expected: Array, rows: Arrays = EMPTY) -> None:
    """Raise `LawBroken` if two arrays differ in any bit, with the values in `rows` of the first row that differs."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise LawBroken(f"{what} is {got.dtype}{list(got.shape)}; expected {expected.dtype}{list(expected.shape)}")
    if got.tobytes() != expected.tobytes():
        at = next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a.tobytes() != b.tobytes())
        shown = f"{_shown(got[at])}; expected {_shown(expected[at])} to the last bit"
        raise LawBroken(f"{what} differs in row {at}{_of(rows, at)}: {shown}")


def same_arrays(what: str, got: Arrays, expected: Arrays) -> None:
    """Raise `LawBroken` naming the array and the row if arrays by name differ in any bit."""
    equal(f"{what}: the names of its arrays", sorted(got), sorted(expected))
    for name, array in expected.items():
        same(f"{what}: {name!r}", np.atleast_1d(got[name]), np.atleast_1d(array))


def at_most(what: str, got: npt.ArrayLike, most: npt.ArrayLike, rows: Arrays = EMPTY) -> None:
    """Raise `LawBroken` if a number is above `most` or NaN, with the values in `rows` of its row."""
    found, allowed = np.broadcast_arrays(np.atleast_1d(got), most)
    if not (found <= allowed).all():
        at = tuple(np.argwhere(~(found <= allowed))[0])
        where = f" in row {at[0]}{_of(rows, int(at[0]))}" if len(found) > 1 or rows else ""
        raise LawBroken(f"{what} is {found[at]:.6g}{where}; at most {allowed[at]:.6g} is allowed")


def _of(rows: Arrays, at: int) -> str:
    return f" ({', '.join(f'{name}={_shown(array[at])}' for name, array in rows.items())})" if rows else ""


def _shown(value: npt.ArrayLike) -> str:
    return f"{np.asarray(value).tolist()!r:.80}"
