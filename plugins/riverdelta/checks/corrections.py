"""Laws of what a correction computes: its methods and its graph agree, blocks equal rows, it learns, its state is complete.

Each law is a function of a correction, a schema and a loss; it raises `LawBroken` with what it found.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from riverdelta.checks.block import Block, bound, draw, export, learn, lost, predict, some_labels, state
from riverdelta.checks.law import LawBroken, at_most, laws_of, refused, run, same, same_arrays
from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.nodes import PREFIX
from riverdelta.core.values import described
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack

#: The largest difference allowed between Python and ONNX, in raw outputs.
TOLERANCE = 1e-4
#: How far from the numbers that were learned the graph must still agree.
_FAR = 1e4


def fresh_residual_is_zero(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Before the first example the raw output is the offset, bit for bit, in Python and in ONNX."""
    c, block = bound(correction, schema, loss), draw(schema, 64, 0, loss)
    same("predict", predict(c, block), block.offset, block.arrays)
    same("the graph", _onnx(c, schema, block), block.offset, block.arrays)


def learn_returns_the_prediction_before_the_update(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`learn` returns, bit for bit, what `predict` would have returned for each row just before learning it."""
    one, many = bound(correction, schema, loss), bound(correction, schema, loss)
    block = draw(schema, 120, 1, loss)
    before = []
    for a, b in pairwise(block.starts):
        row = block[a:b]
        before.append(predict(one, row))
        learn(one, row)
    same("learn", learn(many, block), np.concatenate(before), block.arrays)


def a_block_equals_its_rows(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """However a block is split, even into empty parts, state and returned outputs are the same to the last bit; lists stay
    complete."""
    block = draw(schema, 150, 2, loss)
    starts, last = block.starts, len(block.starts) - 1
    at_once = bound(correction, schema, loss)
    learned, expected = learn(at_once, block), state(at_once)
    for cuts in (list(range(last + 1)), [0, 0, 1, 2, last // 2, last - 1, last, last], [0, last // 3, 2 * last // 3, last]):
        part = bound(correction, schema, loss)
        pieces = [block[a:b] for a, b in pairwise(starts[cuts])]
        for face, each, found in (("learn", part, learned), ("predict", at_once, predict(at_once, block))):
            rows = [(learn if face == "learn" else predict)(each, piece) for piece in pieces]
            same(f"{face} split at {cuts[:5]}…", np.concatenate(rows), found, block.arrays)
        same_arrays("its state", state(part), expected)


def it_refuses_a_block_that_no_kernel_takes(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`predict` and `learn` raise `InvalidInput` naming an array that is missing or of another type, shape or order, and learn
    nothing of the block."""
    c, block = bound(correction, schema, loss), draw(schema, 9, 20, loss)
    learn(c, block)
    before, numbers = state(c), {"offset": block.offset, "label": block.label, "weight": block.weight}
    for name, array in {**{name: block.columns[name] for name in c.reads}, **numbers}.items():
        wrongs: list[Any] = [np.zeros_like(array, np.int16), array[:, None], array.tolist()]
        wrongs += [np.repeat(array, 2, axis=0)[::2]] if name in numbers else [None]
        wrongs += [array[:-1]] if name != "offset" else []  # that would be too many of everything else
        for wrong in wrongs:
            given = {**block.columns, **numbers, name: wrong}
            columns = {key: given[key] for key in schema if given[key] is not None}
            shown = f"{name} as {described(wrong)}"
            if name not in ("label", "weight"):
                with refused(f"predict with {shown}", InvalidInput, name):
                    c.predict(columns, given["offset"])
            with refused(f"learn with {shown}", InvalidInput, name):
                c.learn(columns, *(given[key] for key in numbers))
    same_arrays("its state after it refused a block", state(c), before)


def it_learns(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Learning one row repeatedly with one label lowers its loss: after 40 examples, or 4,000 if a penalty takes more."""
    labels = some_labels(loss)
    for label in (labels[0], labels[-1]):
        c, row = bound(correction, schema, loss), _one_row(schema, label, loss)
        start = after = lost(predict(c, row), row, loss).sum()
        for times in (40, 360, 3600):
            learn(c, row.times(times))
            after = lost(predict(c, row), row, loss).sum()
            if after != start:
                break
        if not after < start:
            raise LawBroken(f"examples of label {label:g} left its loss at {after:.6g}, which was {start:.6g}; expected less")


def importance_counts(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Of two labels learned in turn, the heavier one has the lower loss: at weights of 3 and 1, at small ones, which no `clip`
    cuts, or after more examples if a penalty takes them."""
    rows = [_one_row(schema, label, loss) for label in some_labels(loss)[[0, -1]]]
    for scale, turns in ((1.0, 20), (1e-3, 20), (1.0, 1000)):
        losses = np.empty((2, 2))
        for i, weights in enumerate(((3.0, 1.0), (1.0, 3.0))):
            c, many, size = bound(correction, schema, loss), rows[0].times(2 * turns), len(rows[0])
            weight = np.tile(np.repeat(np.array(weights, np.float32) * np.float32(scale), size), turns)
            learn(c, replace(many, label=np.tile(np.concatenate([row.label for row in rows]), turns), weight=weight))
            losses[i] = [lost(predict(c, row), row, loss).sum() for row in rows]
        if losses[0, 0] < losses[1, 0] and losses[1, 1] < losses[0, 1]:
            return
    shown = " and ".join(f"{lost[0]:.6g} and {lost[1]:.6g}" for lost in losses.T)
    raise LawBroken(f"with weights of 3 to 1 and of 1 to 3 two labels lost {shown}; expected less where they weigh more")


def absurd_rows_cost_little(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After a few rows of absurd numbers or offsets, wherever they come, the first row included, ordinary rows lose at most a
    third of what learning gains without these, and 5 % of a loss; also where numbers are mostly 0."""
    floats = [name for name in bound(correction, schema, loss).reads if schema[name].kind in ("scalar", "vector")]
    for every in (1, 4) if floats else (1,):
        clean = draw(schema, _ROWS, 24, loss, strength=4.0, every=every)
        counted = (np.arange(_ROWS) % every == every - 1) & (np.arange(_ROWS) >= _ROWS // 2)
        without = _lost(correction, schema, loss, clean)[counted].mean()
        base, starts = lost(clean.offset, clean, loss)[counted].mean(), clean.starts
        for what, size, places in _ABSURD if floats else _ABSURD[-3:]:
            # Of a list, its first row is absurd.
            examples = [np.arange(a, b) for a, b in pairwise(starts)]
            order = [example for at, own in enumerate(examples) for example in [*[own] * places.count(at), own]]
            new = [i for at in range(len(examples)) for i in [*[True] * places.count(at), False]]
            sizes = [len(example) for example in order]
            absurd, block = np.repeat(new, sizes), clean[np.concatenate(order)]
            if clean.group is not None:
                block = replace(block, group=np.repeat(np.arange(len(order)), sizes))
            first = absurd & np.isin(np.arange(len(block)), np.cumsum([0, *sizes[:-1]]))
            for array in [block.offset] if what == "offsets" else [block.columns[name] for name in floats]:
                array[first] = size
            found = _lost(correction, schema, loss, block)[~absurd][counted].mean()
            shown = f"with {what} of {size:g} in new rows before rows {places}, the mean loss of the others"
            at_most(shown, found, without + max(base - without, 0.0) / 3 + max(base, without) / 20)


def ids_keep_their_64_bits(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Large ids that differ by little have outputs of their own, as others do; as float32 or float64 they would be equal."""
    far, near = np.arange(1, 33) << 40, (1 << 60) + np.arange(32) * 37 % 128
    for name in (name for name in bound(correction, schema, loss).reads if schema[name].kind == "id"):
        block, apart = draw(schema, 320, 21, loss), []
        for ids in (far, near):
            c = bound(correction, schema, loss)
            learn(c, replace(block, columns=block.columns | {name: np.tile(ids, 10)}))
            asked = block[:1].times(32)
            apart.append(len(np.unique(predict(c, replace(asked, columns=asked.columns | {name: ids})), axis=0)))
        if apart[1] < apart[0] / 4:
            raise LawBroken(
                f"32 ids of {name!r} from {near.min()} on have {apart[1]} different outputs, and others {apart[0]}; "
                f"expected about as many: keep ids as int64"
            )


def the_graph_agrees(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After learning, ONNX Runtime computes the same as `predict`, for one row too, and for numbers far from those learned."""
    c, block = bound(correction, schema, loss), draw(schema, 400, 5, loss)
    for start in range(0, 400, 100):
        learn(c, block[start : start + 100])
        fresh = draw(schema, 200, 6 + start, loss)
        for rows, allowed in ((fresh, TOLERANCE), (fresh[:1], TOLERANCE), (fresh.scaled(_FAR), _FAR * TOLERANCE)):
            gap = np.abs(_onnx(c, schema, rows) - predict(c, rows))
            at_most("the difference of Python and ONNX", gap, allowed, rows.arrays)


def tables_swap(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """The graph of an untrained correction, fed the served tables of a trained one, computes the outputs of the trained one."""
    fresh, trained, block = bound(correction, schema, loss), bound(correction, schema, loss), draw(schema, 300, 7, loss)
    learn(trained, block)
    trained.sync()
    tables = {f"{PREFIX}c/{key}": table.values for key, table in trained.served.items() if table.values.size}
    gap = np.abs(_onnx(fresh, schema, block, tables) - predict(trained, block))
    at_most("the difference with fed tables", gap, TOLERANCE, block.arrays)


def changed_rows_are_touched(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Every changed row of a served table is marked in `touched`. A table that grows keeps its rows; new ones were zeros."""
    c, block = bound(correction, schema, loss), draw(schema, 100, 8, loss)
    c.sync()
    for part in (block[:1], block[1:8], block[8:]):
        before = {key: table.values.copy() for key, table in c.served.items()}
        for table in c.served.values():
            table.touched[:] = False
        learn(c, part)
        c.sync()
        for key, table in c.served.items():
            if len(table.values) < len(before[key]):
                raise LawBroken(f"{key!r} has {len(table.values)} rows and had {len(before[key])}; rows may only be added")
            former = np.zeros_like(table.values)
            former[: len(before[key])] = before[key]
            missed = np.flatnonzero((table.values != former).any(axis=1) & ~table.touched)
            if missed.size:
                at = missed[0]
                was, now = former[at].tolist(), table.values[at].tolist()
                raise LawBroken(f"row {at} of {key!r} changed from {was} to {now} and is not marked in `touched`")


def state_round_trips(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """A fresh clone that loads saved state continues to learn bit for bit as the original, also after `inflate`."""
    block = draw(schema, 200, 9, loss)
    old, new = (Stack([bound(correction, schema, loss)], loss) for _ in range(2))
    old.learn(block.columns, block.offset, block.label, block.weight, block.group)
    old.inflate(0.5)
    new.load({name: array.copy() for name, array in old.state().items()})
    more = draw(schema, 100, 10, loss)
    for stack in (old, new):
        stack.learn(more.columns, more.offset, more.label, more.weight, more.group)
    same_arrays("a loaded copy learned differently (some state is in neither served nor learner)", new.state(), old.state())


def rows_as_dicts_agree(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`learn_one` on dicts gives the same state as `learn` on a block, of which each row is then a list."""
    blocks, dicts, block = bound(correction, schema, loss), bound(correction, schema, loss), draw(schema, 60, 11, loss)
    if correction.offset is None:
        block.offset.fill(0)
    if loss.lists:
        block = replace(block, group=np.arange(len(block)))
    learn(blocks, block)
    for i in range(len(block)):
        x = {name: column[i] for name, column in block.columns.items()}
        offset = block.offset[i] if loss.outputs > 1 else float(block.offset[i, 0])
        dicts.learn_one(x | {correction.offset: offset}, block.label[i].item(), float(block.weight[i]))
    same_arrays("its state", state(dicts), state(blocks))


LAWS = laws_of(globals())
_ROWS, _LARGEST = 600, float(np.finfo(np.float32).max)
#: What is absurd, how large it is, and before which rows it comes.
_ABSURD = (
    *(("numbers", -999.0, (0,)), ("numbers", 1e6, (0, 0, 0)), ("numbers", 1e30, (50, 200, 201)), ("numbers", _LARGEST, (0,))),
    *(("offsets", 1e9, (0,)), ("offsets", -1e9, (0, 0, 0)), ("offsets", _LARGEST, (50, 200, 201))),
)


def _lost(correction: Correction, schema: Schema, loss: Loss, block: Block) -> Doubles:
    """Return each row's loss before it is learned."""
    return lost(learn(bound(correction, schema, loss), block), block, loss)


def _one_row(schema: Schema, label: np.float32, loss: Loss) -> Block:
    """Return an example of the label; a list has two rows, and with the label 0 the second one is clicked."""
    drawn = draw(schema, 8, 3, loss)
    if not loss.lists:
        offset, weight = np.full((1, loss.outputs), 0.25, np.float32), np.ones(1, np.float32)
        return Block(drawn[5:6].columns, offset, np.full(1, label), weight)
    clicked = np.array([label > 0, label <= 0], np.float32)
    return Block(
        drawn[5:7].columns, np.array([[0.25], [-0.5]], np.float32), clicked, np.ones(2, np.float32), np.zeros(2, np.int64)
    )


def _onnx(c: Correction, schema: Schema, block: Block, tables: Columns | None = None) -> Floats:
    return run(*export(c, schema), {**block.columns, "offset": block.offset, **(tables or {})})
