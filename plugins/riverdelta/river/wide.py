"""Wide: a float64 as the sum of three float32, so that float32 tables serve River's numbers without loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from riverdelta.core.features import Floats
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table

_LARGEST = float(np.finfo(np.float32).max)


def split(values: npt.ArrayLike) -> Floats:
    """Return float64[K] as float32[K, 3] with exact row sums: 24 bits each, 53 in all (Dekker 1971).

    Numbers beyond the range of float32 are clipped to it; NaN becomes 0.

    >>> float(split([0.1]).astype(np.float64).sum()) == 0.1
    True
    """
    rest = np.nan_to_num(np.clip(np.asarray(values, np.float64), -_LARGEST, _LARGEST), nan=0.0)
    limbs = []
    for _ in range(3):
        limb = rest.astype(np.float32)
        rest = rest - limb
        limbs.append(limb)
    return np.stack(limbs, axis=-1)


def join(nodes: Nodes, table: str, rows: int) -> str:
    """Append the row sums of a table float32[K, 3] and return their tensor, float64[1, K]."""
    total = nodes.add("ReduceSum", nodes.cast(table, TensorProto.DOUBLE), nodes.constant([1], np.int64), keepdims=0)
    return nodes.add("Reshape", total, nodes.constant([1, rows], np.int64))


def store(table: Table, values: npt.ArrayLike) -> None:
    """Write float64[K] into a table float32[K, 3] and mark the rows that changed."""
    rows = split(values)
    changed = (rows != table.values).any(axis=1)
    table.values[changed] = rows[changed]
    table.touched |= changed
