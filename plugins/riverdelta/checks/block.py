"""A random block of rows for any schema, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats, Schema
from riverdelta.core.link import sigmoid

_EDGES = np.array([0, -1, 1, 2**31 - 1, 2**32, -(2**32), 2**63 - 1, -(2**63)], np.int64)


@dataclass(frozen=True)
class Block:
    """N rows: columns, offset float32[N, 1], label float32[N], weight float32[N]."""

    columns: dict[str, npt.NDArray[Any]]
    offset: Floats
    label: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice) -> Block:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Block(columns, self.offset[rows], self.label[rows], self.weight[rows])


def draw(schema: Schema, rows: int, seed: int) -> Block:
    """Draw rows with few distinct ids (the edges of int64 among them), normal floats, and labels that depend on both."""
    rng = np.random.default_rng(seed)
    columns: dict[str, npt.NDArray[Any]] = {}
    truth = np.zeros(rows)
    for name, column in schema.items():
        if column.kind == "id":
            pool = np.concatenate([_EDGES, np.arange(3, 15)]).astype(column.dtype)
            at = rng.integers(0, len(pool), rows)
            columns[name] = pool[at]
            truth += rng.normal(size=len(pool))[at]
        elif column.kind in ("scalar", "vector"):
            values = rng.normal(size=(rows, *(n or 1 for n in column.shape))).astype(np.float32)
            columns[name] = values
            truth += values.reshape(rows, -1).mean(axis=1)
    offset = rng.normal(scale=2.0, size=(rows, 1)).astype(np.float32)
    label = (rng.random(rows) < sigmoid(1.0 + offset[:, 0] + truth)).astype(np.float32)
    weight = rng.choice(np.array([0.5, 1.0, 2.0], np.float32), rows)
    return Block(columns, offset, label, weight)
