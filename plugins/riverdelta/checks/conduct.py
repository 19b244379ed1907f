"""Laws of how a correction behaves: reading changes nothing, nothing is shared, and the effect of wild rows is bounded.

Each law is a function of a correction, a schema and a loss; it raises `LawBroken` with what it found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from itertools import product

import numpy as np

from riverdelta.checks.block import Block, bound, draw, export, learn, lost, predict, some_labels, state
from riverdelta.checks.law import LawBroken, at_most, equal, laws_of, same, same_arrays
from riverdelta.core.features import Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack
from riverdelta.corrections.table import Table


def it_reads_only_what_it_names(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Every method needs only the columns that `reads` names."""
    c, block = bound(correction, schema, loss), draw(schema, 20, 12, loss)
    named = replace(block, columns={name: block.columns[name] for name in c.reads})
    learn(c, named)
    predict(c, named)
    export(c, Schema({name: schema[name] for name in c.reads}))


def reading_changes_nothing(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`predict`, `export`, `sync`, `coefficients` and `occupancy` between examples change no bit of later results."""
    asked, other, block = bound(correction, schema, loss), bound(correction, schema, loss), draw(schema, 150, 13, loss)
    for start in range(0, 150, 50):
        for c in (asked, other):
            learn(c, block[start : start + 50])
        first = predict(asked, block)
        for _ in range(9):
            export(asked, schema)
            asked.coefficients(), asked.occupancy()
            same("predict, called again,", predict(asked, block), first, block.arrays)
    same_arrays("its state", state(asked), state(other))


def what_it_is_given_stays_the_callers(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """It does not write into arrays that it was given, and keeps neither these nor those that it returned."""
    c, other, block = bound(correction, schema, loss), bound(correction, schema, loss), draw(schema, 60, 14, loss)
    given = block[:20].copy()
    for start in range(0, 60, 20):
        part = block[start : start + 20]
        for name, array in given.arrays.items():
            array[:] = part.arrays[name]
        learn(other, part)
        for face in (predict, learn):
            found = face(c, given)
            for name, array in part.arrays.items():
                same(f"{name}, which {face.__name__} was given,", given.arrays[name], array)
            if not any(np.shares_memory(found, array) for array in given.arrays.values()):
                found.fill(7)
    same_arrays("its state", state(c), state(other))


def clones_share_nothing(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """A clone of a trained correction has its options and is untrained, and learning does not change the original."""
    old, block = bound(correction, schema, loss), draw(schema, 60, 15, loss)
    options = {name for kind in type(correction).__mro__ for name in signature(kind.__init__).parameters}  # type: ignore[misc]
    for name in sorted(options & vars(correction).keys()):
        equal(f"the option {name!r} of its clone", repr(getattr(old, name)), repr(getattr(correction, name)))
    fresh = state(old)
    learn(old, block)
    trained, clone = state(old), bound(old, schema, loss)
    same_arrays("its state", state(clone), fresh)
    learn(clone, draw(schema, 30, 16, loss))
    same_arrays("its state", state(old), trained)


def served_tables_keep_their_form(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After `bind` the served tables stay the same objects, float32 (int32 for rows of another table) in C order and of one
    shape, but for the rows of one that grows, with a mark for each row."""
    c = bound(correction, schema, loss)
    made, stack = {key: (table, _form(table)) for key, table in c.served.items()}, Stack([c], loss)
    learn(c, draw(schema, 60, 17, loss))
    for change in (
        c.sync,
        lambda: c.inflate(0.5),
        lambda: stack.load({key: array.copy() for key, array in stack.state().items()}),
    ):
        change()
        equal("the names of its served tables", list(c.served), list(made))
        for key, (table, form) in made.items():
            equal(f"the form of {key!r}", _form(c.served[key]), form)
            equal(f"the form of {key!r}", form, ("int32" if form[0] == "int32" else "float32", table.shape, True, "bool", True))
            if c.served[key] is not table:
                raise LawBroken(f"served[{key!r}] is not the Table that `bind` made; write into its values")


def its_reports_fit(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`occupancy` gives shares from 0 to 1, and `coefficients` a name and a size for each column of what was learned."""
    c, block = bound(correction, schema, loss), draw(schema, 60, 23, loss)
    for part in (block[:0], block):
        learn(c, part)
        c.sync()
        for name, share in c.occupancy().items():
            if not 0.0 <= share <= 1.0:
                raise LawBroken(f"occupancy()[{name!r}] is {share}; expected a share from 0 to 1")
        found = c.coefficients()
        for name, each in found.items():
            columns = each.values.shape[1]
            equal(f"the names and sizes of coefficients()[{name!r}]", (len(each.features), len(each.sizes)), (columns, columns))
        if any(table.values.any() for table in c.served.values()) and not found:
            raise LawBroken("coefficients() is empty after examples; expected those of each table")


def a_forgotten_id_is_as_never_learned(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After `forget_id` an id has the outputs of one that was never learned and learns as fast; most other rows keep theirs."""
    for name in (name for name in bound(correction, schema, loss).reads if schema[name].kind == "id"):
        c, block = bound(correction, schema, loss), draw(schema, 300, 25, loss)
        block.columns[name][::3] = _OWN
        learn(c, block)
        mine, others = block[np.arange(0, 300, 3)], block[np.arange(1, 300, 3)]
        new = replace(mine, columns=mine.columns | {name: np.full_like(mine.columns[name], _NEVER)})
        before, apart = predict(c, others), (predict(c, mine) != predict(c, new)).any()
        for own, rows in ((_OWN, mine), (_NEVER, new)):
            c.forget_id(name, own, {key: rows.columns[key] for key in c.reads if schema[key].kind == "id"})
        same(
            f"the outputs of a forgotten id of {name!r}, and of one that was never learned",
            predict(c, mine),
            predict(c, new),
            mine.arrays,
        )
        learned, lost = np.abs(before - others.offset).mean(), np.abs(predict(c, others) - before).mean()
        if apart and lost > 0.9 * learned:  # else all ids share their coefficients
            raise LawBroken(f"forgetting an id of {name!r} moved the outputs of others by {lost:.3g}, of {learned:.3g} learned")
        moved = []
        for rows in (mine, new):
            again = bound(correction, schema, loss)
            Stack([again], loss).load(Stack([c], loss).state())
            one = rows[: rows.starts[1]]
            learn(again, one)
            moved.append(np.abs(predict(again, one) - predict(c, one)).sum())
        at_most(
            f"how much less an example moves a forgotten id of {name!r} than one never learned", moved[1] / 2 - moved[0], 1e-6
        )


def inflating_moves_no_output(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """`inflate` leaves every raw output bit for bit the same, and the next examples move it at least as much as without."""
    block, more = draw(schema, 300, 18, loss), draw(schema, 30, 19, loss)
    moved: dict[float | None, float] = {}
    for keep in (None, 1.0, 0.25, 0.0):
        c = bound(correction, schema, loss)
        learn(c, block)
        before = predict(c, block)
        if keep is not None:
            c.inflate(keep)
        c.sync()
        same(f"predict after inflate({keep})", predict(c, block), before, block.arrays)
        learn(c, more)
        moved[keep] = float(np.abs(predict(c, block) - before).mean())
        at_most(f"the mean move of a row without inflate({keep})", moved[None], 1.01 * moved[keep] + 1e-6)


def what_cannot_be_learned_leaves_no_trace(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """A row of weight 0, or with a number that is not finite, changes no bit of the state and no other row of its block."""
    c, other = bound(correction, schema, loss), bound(correction, schema, loss)
    odd = [("weight", 0.0), *product(("offset", "label", "weight"), _NOT_FINITE)]
    odd += [(name, value) for name in c.reads if schema[name].dtype in ("float32", "float64") for value in _NOT_FINITE]
    for seed, (name, value) in enumerate(odd):
        block = draw(schema, 9, 2000 + seed, loss)
        block.arrays[name].reshape(9, -1)[4, -1] = value
        rows = np.delete(np.arange(9), 4)
        with np.errstate(all="ignore"):
            found, expected = learn(other, block)[rows], learn(c, block[rows])
        what = f"with a row whose {name} is {value:g}: "
        same(f"{what}learn", found, expected, block[rows].arrays)
        same_arrays(f"{what}its state", state(other), state(c))


def a_wild_example_is_bounded(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After examples of any finite numbers, an ordinary row's residual is within `radius` for each number that is read, any
    finite row's within four times that, also without ordinary examples before, and ordinary examples still teach; a small
    `radius`, where it is an option, bounds as well. Where the raw output is in the label's unit, `radius` counts in twice the
    root mean square of ordinary errors, and in the largest error once wild ones are the majority or the first."""
    asked = [correction]
    if "radius" in signature(type(correction)).parameters:
        asked.append(correction.clone({"radius": 0.5}))
    made = [(warm, bound(each, schema, loss)) for warm in (True, False) for each in asked]
    block = draw(schema, 400, 22, loss)
    usual = block[:50].copy()
    for array in (usual.offset, *(column for column in usual.columns.values() if column.dtype.kind == "f")):
        np.clip(array, -1, 1, out=array)
    row, labels = usual[:1], some_labels(loss)
    read = 2 + sum(correction.times.get(name, int(np.prod([n or 1 for n in schema[name].shape]))) for name in correction.reads)
    wild = [(1, *each) for each in product(_WEIGHTS, _SIZES, _OFFSETS, (labels[0], labels[-1]))]
    wild += [(1, 3e38, 1.0, -30.0, labels[-1]), (400, 10.0, 1.0, -60.0, labels[-1]), (400, 10.0, 1.0, 60.0, labels[0])]
    in_units = loss.dispersion == "unit"
    usual_error = 2.0 * float(np.sqrt(np.mean((block.offset[:, 0] - block.label) ** 2))) if in_units else 1.0
    for warm, c in made:
        learn(c, block[: len(block) * warm])
        error = usual_error
        for times, weight, size, offset, label in wild:
            numbers = np.full_like(row.offset, offset), np.full(1, label), np.full(1, weight, np.float32)
            if in_units and (times > 1 or not warm):
                error = max(error, abs(offset - label))
            learn(c, Block(row.scaled(size).columns, *numbers, group=row.group).times(times))
            shown = f"after {times} of weight {weight:g}, offset {offset:g}, label {label:g}, columns × {size:g}, the residual"
            for times_radius, rows in ((1 if warm else 4, usual), *((4, far) for far in _far(usual))):
                moved = np.abs(predict(c, rows).astype(np.float64) - rows.offset) - np.spacing(np.abs(rows.offset))
                at_most(shown, moved, times_radius * error * c.radius * read, rows.arrays)
    # A residual at its bound can still move the other way; untrained, the same options show how far 200 examples move it.
    lowered = _lowered(bound(correction, schema, loss), row, labels, loss)
    for warm, c in made[:: len(asked)]:
        # One that is beyond its bound may take longer to come back.
        now = _lowered(c, row, labels, loss) or _lowered(c, row, labels, loss, 4_000)
        if not now >= lowered / 1000:
            raise LawBroken(
                f"ordinary examples lowered the loss by {now:.6g} after the wild ones{' and ordinary ones' * warm}, and by "
                f"{lowered:.6g} without these; expected at least a thousandth of that"
            )


def a_class_that_was_no_label_stays_the_base_s(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """After examples of some classes the outputs of the others are the offset, bit for bit."""
    labels = some_labels(loss)
    for taught in [labels[:1], labels[-1:], labels[1:]] if loss.classes is not None else []:
        c, block = bound(correction, schema, loss), draw(schema, 120, 26, loss)
        learn(c, block[np.flatnonzero(np.isin(block.label, taught))])
        others = [k for k in range(loss.outputs) if k not in taught]
        shown = f"the outputs {others} after labels {[f'{label:g}' for label in taught]}"
        same(shown, predict(c, block)[:, others], block.offset[:, others], block.arrays)


def residuals_follow_the_unit_of_the_label(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Where the raw output is in the label's unit, labels and offsets in another unit give residuals in that unit."""
    block = draw(schema, 300, 27, loss)
    expected = learn(bound(correction, schema, loss), block) - block.offset
    for unit in (1e-3, 1e6) if loss.dispersion == "unit" else ():
        size = np.float32(unit)
        other = replace(block, offset=block.offset * size, label=block.label * size)
        found = (learn(bound(correction, schema, loss), other) - other.offset) / size
        gap = np.abs(found - expected)
        at_most(f"the difference of residuals with labels × {unit:g}", gap, 1e-3 * (1.0 + np.abs(expected)), block.arrays)


def what_a_list_shares_teaches_nothing(correction: Correction, schema: Schema, loss: Loss = LOG_LOSS) -> None:
    """Another offset for all rows of a list changes no residual, and a list of one row, or without a label above 0, none."""
    if not loss.lists:
        return
    block = draw(schema, 150, 28, loss)
    moved = replace(block, offset=block.offset + np.repeat(np.float32(2.5), len(block))[:, None])
    one, other = bound(correction, schema, loss), bound(correction, schema, loss)
    found, expected = learn(other, moved) - moved.offset, learn(one, block) - block.offset
    starts = block.starts[:-1]
    for residuals in (found, expected):
        residuals -= np.repeat(
            np.add.reduceat(residuals, starts) / np.diff(block.starts)[:, None], np.diff(block.starts), axis=0
        )
    at_most("how far a shift of a list's offsets moves residuals within it", np.abs(found - expected), 1e-3, block.arrays)
    before, none = predict(one, block), replace(block, label=np.zeros_like(block.label))
    for what, rows in (("lists of one row", replace(block, group=np.arange(len(block)))), ("lists without labels", none)):
        learn(one, rows)
        at_most(f"how far {what} move outputs", np.abs(predict(one, block) - before), 1e-6, block.arrays)


LAWS = laws_of(globals())
#: An id to forget, and one that is never learned.
_OWN, _NEVER = 7_000_000_007, 9_000_000_009
_NOT_FINITE = (np.nan, np.inf, -np.inf)
_WEIGHTS, _SIZES, _OFFSETS = (1e-30, 1e4, 3e38), (1e-30, 1e6, 1e30), (-30.0, 0.0, 30.0)
#: How far the numbers of ordinary rows, at most 1, are moved.
_FAR = 1e4, 1e30, 3.4e38


def _form(table: Table) -> tuple[object, ...]:
    values, touched = table.values, table.touched
    in_order = values.flags.c_contiguous and values.ndim == 2
    return str(values.dtype), table.shape, in_order, str(touched.dtype), touched.shape == values.shape[:1]


def _far(rows: Block) -> Iterator[Block]:
    """Yield the rows with any finite numbers and offsets."""
    for size, offset in zip(_FAR, (1e9, -_FAR[-1], 0.0), strict=True):
        yield replace(rows.scaled(size), offset=rows.offset + np.float32(offset))


def _lowered(c: Correction, row: Block, labels: Floats, loss: Loss, times: int = 200) -> float:
    """Return by how much that many examples of the first or the last label lower its loss, whichever is more."""
    found = []
    for label in (labels[0], labels[-1]):
        one = replace(row, label=np.full(1, label), weight=np.ones(1, np.float32))
        before = lost(predict(c, one), one, loss)[0]
        learn(c, one.times(times))
        found.append(float(before - lost(predict(c, one), one, loss)[0]))
    return max(found)
