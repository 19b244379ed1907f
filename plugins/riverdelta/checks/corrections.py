"""Each law is one function of a correction, a schema and a loss; it raises `LawBroken` with what it found."""

from __future__ import annotations

import numpy as np

from riverdelta.checks.block import Block, draw, some_labels
from riverdelta.checks.law import OPSET, LawBroken, at_most, check, equal, laws_of, run, same
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.nodes import PREFIX, Nodes
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack

#: The largest allowed difference between Python and ONNX, in raw outputs.
TOLERANCE = 1e-4


def check_correction(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Check every law on fresh clones of `correction` that lower `loss`, on random rows of `schema`; raises `LawBroken`."""
    for law in LAWS:
        check(law, correction, schema, loss)


def fresh_residual_is_zero(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Before the first example the raw output is the offset, bit for bit, in Python and in ONNX."""
    c, block = _bound(correction, schema, loss), draw(schema, 64, 0, loss)
    same("predict", c.predict(block.columns, block.offset), block.offset)
    same("the graph", _onnx(c, schema, block), block.offset)


def learn_returns_the_prediction_before_the_update(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`learn` returns, bit for bit, what `predict` would have returned for each row just before learning it."""
    one, many = _bound(correction, schema, loss), _bound(correction, schema, loss)
    block = draw(schema, 120, 1, loss)
    before = []
    for i in range(len(block)):
        row = block[i : i + 1]
        before.append(one.predict(row.columns, row.offset))
        _learn(one, row)
    same("learn", _learn(many, block), np.concatenate(before))


def a_block_equals_its_rows(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """However a block is split, the state and the returned outputs are the same to the last bit."""
    block = draw(schema, 150, 2, loss)
    whole = _bound(correction, schema, loss)
    expected = _learn(whole, block)
    for cuts in (list(range(151)), [0, 1, 2, 77, 149, 150], [0, 64, 128, 150]):
        part = _bound(correction, schema, loss)
        got = [_learn(part, block[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        same(f"learn split at {cuts[:5]}…", np.concatenate(got), expected)
        _same_state(part, whole)


def it_learns(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """One row learned again and again with one label has a smaller loss of that label."""
    labels = some_labels(loss)
    for label in (labels[0], labels[-1]):
        c, row = _bound(correction, schema, loss), draw(schema, 8, 3, loss)[5:6]
        row = Block(row.columns, np.full((1, loss.outputs), 0.25, np.float32), np.full(1, label), np.ones(1, np.float32))
        start = loss.value(c.predict(row.columns, row.offset), label)[0]
        for _ in range(40):
            _learn(c, row)
        less = float(start - loss.value(c.predict(row.columns, row.offset), label)[0])
        if not less > 0.004:
            raise LawBroken(f"40 examples of label {label:g} made its loss smaller by {less:.6f}")


def importance_counts(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Examples of weights 1 and 3 in turn move the state otherwise than examples of weight 1 alone."""
    light, heavy, block = _bound(correction, schema, loss), _bound(correction, schema, loss), draw(schema, 20, 4, loss)
    light.learn(block.columns, block.offset, block.label, np.ones(20, np.float32))
    # Not one weight for all: AdaGrad's steps do not depend on the loss's scale.
    heavy.learn(block.columns, block.offset, block.label, np.tile(np.array([1.0, 3.0], np.float32), 10))
    a, b = (c.predict(block.columns, block.offset) for c in (light, heavy))
    if np.array_equal(a, b):
        raise LawBroken("weights 1 and 3 gave the same outputs")


def the_graph_agrees(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After learning, ONNX Runtime computes what `predict` computes, and the tables are the served ones."""
    c, block = _bound(correction, schema, loss), draw(schema, 400, 5, loss)
    for start in range(0, 400, 100):
        _learn(c, block[start : start + 100])
        fresh = draw(schema, 200, 6 + start, loss)
        gap = np.abs(_onnx(c, schema, fresh) - c.predict(fresh.columns, fresh.offset))
        at_most("the difference of Python and ONNX", gap, TOLERANCE)


def tables_swap(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """A graph exported fresh, fed the served tables of a trained correction, computes the trained one's outputs."""
    fresh, trained, block = _bound(correction, schema, loss), _bound(correction, schema, loss), draw(schema, 300, 7, loss)
    _learn(trained, block)
    trained.sync()
    shapes, after = ({key: table.values.shape for key, table in c.served.items()} for c in (fresh, trained))
    equal("the shapes of the tables after learning", after, shapes)
    tables = {f"{PREFIX}c/{key}": table.values for key, table in trained.served.items() if table.values.size}
    gap = np.abs(_onnx(fresh, schema, block, tables) - trained.predict(block.columns, block.offset))
    at_most("the difference that fed tables make", gap, TOLERANCE)


def changed_rows_are_touched(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Every row of a served table that changed is marked as touched."""
    c, block = _bound(correction, schema, loss), draw(schema, 100, 8, loss)
    c.sync()
    before = {key: table.values.copy() for key, table in c.served.items()}
    for table in c.served.values():
        table.touched[:] = False
    _learn(c, block)
    c.sync()
    for key, table in c.served.items():
        missed = np.flatnonzero((table.values != before[key]).any(axis=1) & ~table.touched)
        if missed.size:
            raise LawBroken(f"row {missed[0]} of {key!r} changed and is not marked")


def state_round_trips(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """State saved and loaded into a fresh clone predicts and goes on learning alike, bit for bit."""
    block = draw(schema, 200, 9, loss)
    old, new = (Stack([correction.clone()], loss) for _ in range(2))
    for stack in (old, new):
        stack.bind(schema)
    old.learn(block.columns, block.offset, block.label, block.weight)
    new.load({name: array.copy() for name, array in old.state().items()})
    more = draw(schema, 100, 10, loss)
    for stack in (old, new):
        stack.learn(more.columns, more.offset, more.label, more.weight)
    if old.digest() != new.digest():
        raise LawBroken("a loaded copy learned otherwise; some state is in neither served nor learner")


def rows_as_dicts_agree(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """River's `learn_one` on dicts leaves the state that `learn` on a block leaves."""
    blocks, dicts, block = _bound(correction, schema, loss), _bound(correction, schema, loss), draw(schema, 60, 11, loss)
    _learn(blocks, block)
    for i in range(len(block)):
        x = {name: column[i] for name, column in block.columns.items()}
        offset = block.offset[i] if loss.outputs > 1 else float(block.offset[i, 0])
        dicts.learn_one(x | {correction.offset: offset}, block.label[i].item(), float(block.weight[i]))
    _same_state(dicts, blocks)


LAWS = laws_of(globals())


def _bound(correction: Correction, schema: Schema, loss: Loss) -> Correction:
    fresh: Correction = correction.clone()
    fresh.loss = loss
    fresh.bind(schema)
    return fresh


def _learn(c: Correction, block: Block) -> Floats:
    return c.learn(block.columns, block.offset, block.label, block.weight)


def _onnx(c: Correction, schema: Schema, block: Block, tables: Columns | None = None) -> Floats:
    c.sync()
    nodes = Nodes(OPSET)
    with nodes.scope("c"):
        raw = c.export(nodes, {name: name for name in schema}, "offset")
    return run(nodes, raw, {**block.columns, "offset": block.offset, **(tables or {})})


def _same_state(got: Correction, expected: Correction) -> None:
    got.sync()
    expected.sync()
    for key, table in expected.served.items():
        same(f"served table {key!r}", got.served[key].values, table.values)
    for key, array in expected.learner.items():
        same(f"learner table {key!r}", got.learner[key], array)
