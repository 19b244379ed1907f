"""Block: reproducible random rows for any schema and loss, and what the laws of corrections do with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from riverdelta.checks.law import OPSET
from riverdelta.core.arrays import Array
from riverdelta.core.features import Floats, Ints, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction

#: The rows of a list.
_LIST = 3
_EDGES = np.array([0, -1, 1, 2**31 - 1, 2**32, -(2**32), 2**63 - 1, -(2**63)], np.int64)


@dataclass(frozen=True)
class Block:
    """N rows: columns by name, offset float32[N, K], label float32[N], weight float32[N], and the list of each, or None."""

    columns: dict[str, Array]
    offset: Floats
    label: Floats
    weight: Floats
    group: Ints | None = None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | Ints) -> Block:
        columns = {name: column[rows] for name, column in self.columns.items()}
        group = None if self.group is None else self.group[rows]
        return Block(columns, self.offset[rows], self.label[rows], self.weight[rows], group)

    @property
    def arrays(self) -> dict[str, Array]:
        """Every array by name."""
        lists = {} if self.group is None else {"group": self.group}
        return {**self.columns, "offset": self.offset, "label": self.label, "weight": self.weight, **lists}

    def copy(self) -> Block:
        """Return the same rows in new arrays."""
        return self[np.arange(len(self))]

    def scaled(self, size: float) -> Block:
        """Return the rows with every number in their columns multiplied by `size`."""
        columns = {name: a * np.float32(size) if a.dtype.kind == "f" else a for name, a in self.columns.items()}
        return replace(self, columns=columns)

    def times(self, n: int) -> Block:
        """Return the first example n times: a row, or a list."""
        rows = int(self.starts[1])
        many = self[np.tile(np.arange(rows), n)]
        return many if self.group is None else replace(many, group=np.repeat(np.arange(n), rows))

    @property
    def starts(self) -> Ints:
        """Where each example begins, and the number of rows."""
        if self.group is None:
            return np.arange(len(self) + 1)
        return np.concatenate([[0], np.flatnonzero(np.diff(self.group)) + 1, [len(self)]])


def bound(correction: Correction, schema: Schema, loss: Loss) -> Correction:
    """Return an untrained clone, bound to `schema` for `loss`."""
    fresh: Correction = correction.clone()
    fresh.loss = loss
    fresh.bind(schema)
    return fresh


def predict(c: Correction, block: Block) -> Floats:
    """Return the raw outputs of a block."""
    return c.predict(block.columns, block.offset)


def learn(c: Correction, block: Block) -> Floats:
    """Learn a block and return its raw outputs from before each update."""
    if block.group is None:
        return c.learn(block.columns, block.offset, block.label, block.weight)
    return c.learn(block.columns, block.offset, block.label, block.weight, block.group)


def lost(raw: Floats, block: Block, loss: Loss) -> Doubles:
    """Return the loss of each row of a block at the raw outputs `raw`."""
    return loss.value(raw, block.label, block.group)


def export(c: Correction, schema: Schema) -> tuple[Nodes, str]:
    """Return the graph of a correction and the tensor of its raw output."""
    c.sync()
    nodes = Nodes(OPSET)
    with nodes.scope("c"):
        return nodes, c.export(nodes, {name: name for name in schema}, "offset")


def state(c: Correction) -> dict[str, Array]:
    """Return copies of a correction's served and learner tables."""
    c.sync()
    served = {f"served/{key}": table.values.copy() for key, table in c.served.items()}
    return served | {f"learner/{key}": array.copy() for key, array in c.learner.items()}


def some_labels(loss: Loss) -> Floats:
    """Return labels of a loss in ascending order: all of them if the loss lists them."""
    found = np.linspace(-3.0, 3.0, 13, dtype=np.float32) if loss.labels is None else np.array(sorted(loss.labels), np.float32)
    return found[loss.valid(found)]


def draw(schema: Schema, rows: int, seed: int, loss: Loss = LOG_LOSS, strength: float = 1.0, every: int = 1) -> Block:
    """Return random rows: few distinct ids (the limits of int64 among them), normal floats, and labels that depend on both.

    `strength` is the weight of the floats in the labels, and all floats are 0 except in the last of `every` rows.
    The probability of a label is proportional to exp(-loss), which for a log loss is the predicted probability. A list has 3
    rows, one of them with a label above 0.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, Array] = {}
    truth = np.zeros(rows)
    for name, column in schema.items():
        if column.kind == "id":
            pool = np.concatenate([_EDGES, np.arange(3, 15)]).astype(column.dtype)
            at = rng.integers(0, len(pool), rows)
            columns[name] = pool[at]
            truth += rng.normal(size=len(pool))[at]
        elif column.kind in ("scalar", "vector"):
            values = rng.normal(size=(rows, *(n or 1 for n in column.shape))).astype(np.float32)
            values[np.arange(rows) % every != every - 1] = 0
            columns[name] = values
            truth += strength * values.reshape(rows, -1).mean(axis=1)
        elif column.dtype == "float64":
            columns[name] = rng.uniform(0.0, 4e9, rows)
    offset = rng.normal(scale=2.0, size=(rows, loss.outputs)).astype(np.float32)
    # The same shift of all outputs would not change a softmax.
    raw = 1.0 + offset + truth[:, None] * (-1.0) ** np.arange(loss.outputs)
    labels = some_labels(loss)
    group = None
    if loss.lists:
        group, label = np.arange(rows) // _LIST, np.zeros(rows, np.float32)
        # The row of the largest noisy score is clicked, which has the list's probability.
        for at in np.split(np.arange(rows), range(_LIST, rows, _LIST)) if rows else []:
            label[at[np.argmax(raw[at, 0] + rng.gumbel(size=len(at)))]] = rng.choice(labels[labels > 0])
    else:
        chance = np.cumsum([np.exp(-loss.value(raw, label)) for label in labels], axis=0)
        label = labels[(rng.random(rows) * chance[-1] > chance).sum(axis=0)]
    weight = rng.choice(np.array([0.5, 1.0, 2.0], np.float32), rows)
    return Block(columns, offset, label, weight, group)
