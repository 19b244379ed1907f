"""Each law is one function of a correction and a schema; it raises `LawBroken` with what it saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper

from riverdelta.checks.block import Block, draw
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack

#: The largest allowed difference between Python and ONNX, in logits.
TOLERANCE = 1e-4
_OPSET = 17
_TYPES = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


class LawBroken(AssertionError):
    """A correction does not keep a law; the message says which and by how much."""


Law = Callable[[Correction, Schema], None]


def check_correction(correction: Correction, schema: Schema) -> None:
    """Check every law on fresh clones of `correction`, on random rows of `schema`; raises `LawBroken`."""
    for law in LAWS:
        law(correction, schema)


def fresh_residual_is_zero(correction: Correction, schema: Schema) -> None:
    """Before the first example the logit is the offset, bit for bit, in Python and in ONNX."""
    c, block = _bound(correction, schema), draw(schema, 64, 0)
    _same("fresh_residual_is_zero", "predict", c.predict(block.columns, block.offset), block.offset)
    _same("fresh_residual_is_zero", "the graph", _onnx(c, schema, block), block.offset)


def learn_returns_the_prediction_before_the_update(correction: Correction, schema: Schema) -> None:
    """`learn` returns, bit for bit, what `predict` would have returned for each row just before learning it."""
    one, many = _bound(correction, schema), _bound(correction, schema)
    block = draw(schema, 120, 1)
    before = []
    for i in range(len(block)):
        row = block[i : i + 1]
        before.append(one.predict(row.columns, row.offset))
        _learn(one, row)
    _same("learn_returns_the_prediction_before_the_update", "learn", _learn(many, block), np.concatenate(before))


def a_block_equals_its_rows(correction: Correction, schema: Schema) -> None:
    """However a block is split, the state and the returned logits are the same to the last bit."""
    block = draw(schema, 150, 2)
    whole = _bound(correction, schema)
    expected = _learn(whole, block)
    for cuts in (list(range(151)), [0, 1, 2, 77, 149, 150], [0, 64, 128, 150]):
        part = _bound(correction, schema)
        got = [_learn(part, block[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        _same("a_block_equals_its_rows", f"learn split at {cuts[:5]}…", np.concatenate(got), expected)
        _same_state("a_block_equals_its_rows", part, whole)


def it_learns(correction: Correction, schema: Schema) -> None:
    """One row learned again and again with one label moves its logit towards that label."""
    for label in (0.0, 1.0):
        c, row = _bound(correction, schema), draw(schema, 8, 3)[5:6]
        row = Block(row.columns, np.full((1, 1), 0.25, np.float32), np.full(1, label, np.float32), np.ones(1, np.float32))
        start = c.predict(row.columns, row.offset)[0, 0]
        for _ in range(40):
            _learn(c, row)
        moved = float(c.predict(row.columns, row.offset)[0, 0] - start)
        if not moved * (1 if label else -1) > 0.01:
            raise LawBroken(f"it_learns: 40 examples of label {label:.0f} moved the logit by {moved:+.6f}")


def importance_counts(correction: Correction, schema: Schema) -> None:
    """Examples of weights 1 and 3 in turn move the state otherwise than examples of weight 1 alone."""
    light, heavy, block = _bound(correction, schema), _bound(correction, schema), draw(schema, 20, 4)
    light.learn(block.columns, block.offset, block.label, np.ones(20, np.float32))
    # Not one weight for all: AdaGrad's steps do not depend on the loss's scale.
    heavy.learn(block.columns, block.offset, block.label, np.tile(np.array([1.0, 3.0], np.float32), 10))
    a, b = (c.predict(block.columns, block.offset) for c in (light, heavy))
    if np.array_equal(a, b):
        raise LawBroken("importance_counts: weights 1 and 3 gave the same logits")


def the_graph_agrees(correction: Correction, schema: Schema) -> None:
    """After learning, ONNX Runtime computes what `predict` computes, and the tables are the served ones."""
    c, block = _bound(correction, schema), draw(schema, 400, 5)
    for start in range(0, 400, 100):
        _learn(c, block[start : start + 100])
        fresh = draw(schema, 200, 6 + start)
        gap = float(np.abs(_onnx(c, schema, fresh) - c.predict(fresh.columns, fresh.offset)).max())
        if not gap <= TOLERANCE:
            raise LawBroken(f"the_graph_agrees: Python and ONNX differ by {gap:.3g} logits; at most {TOLERANCE} is allowed")


def tables_swap(correction: Correction, schema: Schema) -> None:
    """A graph exported fresh, fed the served tables of a trained correction, computes the trained one's logits."""
    fresh, trained, block = _bound(correction, schema), _bound(correction, schema), draw(schema, 300, 7)
    _learn(trained, block)
    trained.sync()
    shapes = {k: t.values.shape for k, t in fresh.served.items()}
    after = {k: t.values.shape for k, t in trained.served.items()}
    if shapes != after:
        raise LawBroken(f"tables_swap: learning changed the tables from {shapes} to {after}; shapes must stay")
    tables = {f"{PREFIX}c/{key}": table.values for key, table in trained.served.items() if table.values.size}
    gap = float(np.abs(_onnx(fresh, schema, block, tables) - trained.predict(block.columns, block.offset)).max())
    if not gap <= TOLERANCE:
        raise LawBroken(f"tables_swap: fed tables give logits that differ by {gap:.3g}; at most {TOLERANCE} is allowed")


def changed_rows_are_touched(correction: Correction, schema: Schema) -> None:
    """Every row of a served table that changed is marked as touched."""
    c, block = _bound(correction, schema), draw(schema, 100, 8)
    c.sync()
    before = {key: table.values.copy() for key, table in c.served.items()}
    for table in c.served.values():
        table.touched[:] = False
    _learn(c, block)
    c.sync()
    for key, table in c.served.items():
        missed = np.flatnonzero((table.values != before[key]).any(axis=1) & ~table.touched)
        if missed.size:
            raise LawBroken(f"changed_rows_are_touched: row {missed[0]} of {key!r} changed and is not marked")


def state_round_trips(correction: Correction, schema: Schema) -> None:
    """State saved and loaded into a fresh clone predicts and goes on learning alike, bit for bit."""
    block = draw(schema, 200, 9)
    old, new = (Stack([correction.clone()]) for _ in range(2))
    for stack in (old, new):
        stack.bind(schema)
    old.learn(block.columns, block.offset, block.label, block.weight)
    new.load({name: array.copy() for name, array in old.state().items()})
    more = draw(schema, 100, 10)
    for stack in (old, new):
        stack.learn(more.columns, more.offset, more.label, more.weight)
    if old.digest() != new.digest():
        raise LawBroken("state_round_trips: a loaded copy learned otherwise; some state is in neither served nor learner")


def rows_as_dicts_agree(correction: Correction, schema: Schema) -> None:
    """River's `learn_one` on dicts leaves the state that `learn` on a block leaves."""
    blocks, dicts, block = _bound(correction, schema), correction.clone(), draw(schema, 60, 11)
    dicts._schema = schema
    dicts.bind(schema)
    _learn(blocks, block)
    for i in range(len(block)):
        x = {name: column[i] for name, column in block.columns.items()}
        dicts.learn_one(x | {correction.offset: float(block.offset[i, 0])}, bool(block.label[i]), float(block.weight[i]))
    _same_state("rows_as_dicts_agree", dicts, blocks)


LAWS: tuple[Law, ...] = (
    fresh_residual_is_zero,
    learn_returns_the_prediction_before_the_update,
    a_block_equals_its_rows,
    it_learns,
    importance_counts,
    the_graph_agrees,
    tables_swap,
    changed_rows_are_touched,
    state_round_trips,
    rows_as_dicts_agree,
)


def _bound(correction: Correction, schema: Schema) -> Correction:
    fresh: Correction = correction.clone()
    fresh.bind(schema)
    return fresh


def _learn(c: Correction, block: Block) -> Floats:
    return c.learn(block.columns, block.offset, block.label, block.weight)


def _onnx(c: Correction, schema: Schema, block: Block, tables: Columns | None = None) -> Floats:
    c.sync()
    nodes = Nodes(_OPSET)
    with nodes.scope("c"):
        logit = c.export(nodes, {name: name for name in schema}, "offset")
    initializers, overridable = nodes.table_protos()
    inputs = [
        helper.make_tensor_value_info(name, _TYPES[column.dtype], ["N", *column.shape]) for name, column in schema.items()
    ]
    inputs.append(helper.make_tensor_value_info("offset", TensorProto.FLOAT, ["N", 1]))
    graph = helper.make_graph(
        [*nodes.nodes, helper.make_node("Identity", [logit], ["logit"])],
        "law",
        inputs + overridable,
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N", 1])],
        [*nodes.constants, *initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # tables are graph inputs on purpose
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out: Floats = session.run(["logit"], {**block.columns, "offset": block.offset, **(tables or {})})[0]
    return out


def _same(law: str, what: str, got: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise LawBroken(f"{law}: {what} gave {got.dtype}{list(got.shape)}; expected {expected.dtype}{list(expected.shape)}")
    if got.tobytes() != expected.tobytes():
        gap = np.abs(got.astype(np.float64) - expected).max()
        raise LawBroken(f"{law}: {what} differs by up to {gap:.3g}; expected equality to the last bit")


def _same_state(law: str, got: Correction, expected: Correction) -> None:
    got.sync()
    expected.sync()
    for key, table in expected.served.items():
        _same(law, f"served table {key!r}", got.served[key].values, table.values)
    for key, array in expected.learner.items():
        _same(law, f"learner table {key!r}", got.learner[key], array)
