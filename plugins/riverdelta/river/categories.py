"""Categories: the coefficients of one id column's categories, in a table of fixed size that ONNX can search."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.hashing import Hash, P
from riverdelta.corrections.table import Table

#: The number of rows, from the hashed one, where an id may be.
PROBES = 8
# An id is 22 + 21 + 21 bits, each exact in float32; the last limb is signed. The first limb of an id is never negative.
_LOW, _MIDDLE = 2**22, 2**21
_FREE = (-1.0, -1.0, -1.0, 0.0)


class Categories:
    """An open-addressing hash table float32[slots, 4] with rows (three limbs of an id, coefficient).

    Parameters
    ----------
    column
        The id column.
    salt
        Distinguishes the hash function from those of other tables.
    slots
        The number of rows.
    drop_zeros
        The option of the encoder: whether a row holds its own category alone.

    Notes
    -----
    An id is in one of the `PROBES` rows from its hashed slot (bounded linear probing); an id that finds none free is not
    learned. The slot is a random polynomial of degree 4, modulo P = 2³¹ - 1, of a linear mix of the id's halves: linear probing
    needs 5-wise independence, and a linear hash clusters sequential ids (Pagh, Pagh, Ružić 2007).

    >>> c = Categories("user_id", "demo", slots=16, drop_zeros=True)
    >>> c.add(7), c.add(-2**63), len(c.rows)
    (True, True, 2)
    """

    def __init__(self, column: str, salt: str, slots: int, drop_zeros: bool) -> None:
        self.column, self.slots, self.drop_zeros = column, slots, drop_zeros
        draws = [Hash.draw(f"categories/{salt}/{column}/{i}", 1, slots) for i in range(6)]
        self._mix = replace(draws[0], slots=P)
        self._polynomial = [draw.a[0] for draw in draws[1:]]
        self.table = Table(np.tile(np.array(_FREE, np.float32), (slots, 1)))
        #: The row of each id.
        self.rows: dict[int, int] = {}
        #: The transformers between the encoder and the model, in order.
        self.path: list[Any] = []
        #: Whether a hasher has given several ids one key.
        self.mixed = False
        self._stale: set[int] = set()
        self._probes = np.arange(min(PROBES, slots))

    def owns(self, name: str | int) -> bool:
        """Return whether `name` has the form of River's keys, `<column>_<id>`."""
        return re.fullmatch(rf"{re.escape(self.column)}_-?[0-9]+", str(name)) is not None

    def add(self, key: int) -> bool:
        """Find or make the row of an id; return False if no row is free."""
        if key not in self.rows:
            at = (self._slot(key) + self._probes) % self.slots
            free = at[self.table.values[at, 0] < 0]
            if not free.size:
                return False
            row = self.rows[key] = int(free[0])
            self.table.values[row] = (*_limbs(key), 0.0)
            self.table.touched[row] = True
        self._stale.add(key)
        return True

    def remove(self, key: int) -> bool:
        """Free the row of an id; return whether it had one."""
        row = self.rows.pop(key, None)
        self._stale.discard(key)
        if row is not None:
            self.table.values[row], self.table.touched[row] = _FREE, True
        return row is not None

    def _slot(self, key: int) -> int:
        x, total = int(self._mix(np.array([key], np.int64))[0]), 0
        for coefficient in self._polynomial:
            total = (total * x + coefficient) % P
        return total % self.slots

    def reload(self) -> None:
        """Rebuild the index of ids after the table was overwritten."""
        used = np.flatnonzero(self.table.values[:, 0] >= 0)
        low, middle, high = self.table.values[used, :3].astype(np.int64).T
        keys = ((high * _MIDDLE + middle) * _LOW + low).tolist()
        self.rows = dict(zip(keys, used.tolist(), strict=True))
        self._stale = set()

    def write(self, model: Any) -> float:
        """Write the coefficients that may have changed; return what absent categories add to the intercept."""
        # With a hasher, categories share weights; without drop_zeros, each is in every row, as 0.
        keys: Iterable[int] = self._stale if self.drop_zeros and not self.mixed else self.rows
        rows = np.array([self.rows[key] for key in keys], np.int64)
        on = np.array([self._effect(model, key, 1) for key in keys], np.float64)
        off = np.zeros_like(on)
        if self.path and not self.drop_zeros:
            # A scaler maps that 0 to another number.
            off = np.array([self._effect(model, key, 0) for key in keys], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            coefficient = np.nan_to_num((on - off).astype(np.float32))
        changed = rows[self.table.values[rows, 3] != coefficient]
        self.table.values[rows, 3] = coefficient
        self.table.touched[changed] = True
        self._stale = set()
        # An exact sum does not depend on the order of the rows, which saved state does not keep.
        return math.fsum(off)

    def _effect(self, model: Any, key: int, value: int) -> float:
        x: dict[Any, Any] = {f"{self.column}_{key}": value}
        for step in self.path:
            x = step.transform_one(x)
        return sum((v * model.weight_of(k) for k, v in x.items()), 0.0)

    def export(self, nodes: Nodes, ids: str, table: str) -> str:
        """Append the search and return the coefficients float64[N, 1], 0 for an id without a row."""
        x = nodes.cast(ids, TensorProto.INT64)
        start = nodes.add("Add", nodes.column(self._export_slot(nodes, x)), nodes.constant(self._probes[None]))
        rows = nodes.add("Gather", table, nodes.add("Mod", start, nodes.constant(self.slots, np.int64)))
        held = nodes.add("Gather", rows, nodes.constant([0, 1, 2], np.int64), axis=2)
        coefficient = nodes.add("Gather", rows, nodes.constant(3, np.int64), axis=2)
        equal = nodes.cast(nodes.add("Equal", held, self._export_limbs(nodes, x)), TensorProto.FLOAT)
        matches = nodes.add("ReduceSum", equal, nodes.constant([2], np.int64), keepdims=0)
        hit = nodes.cast(nodes.add("Equal", matches, nodes.constant(3.0, np.float32)), TensorProto.FLOAT)
        found = nodes.add("Mul", hit, coefficient)
        total = nodes.add("ReduceSum", found, nodes.constant([1], np.int64), keepdims=1)
        return nodes.cast(total, TensorProto.DOUBLE)

    def _export_slot(self, nodes: Nodes, x: str) -> str:
        x, prime = self._mix.export(nodes, x), nodes.constant(P, np.int64)
        total = nodes.constant(self._polynomial[0], np.int64)
        for coefficient in self._polynomial[1:]:
            # Below 2⁶² + 2³¹: no overflow.
            grown = nodes.add("Add", nodes.add("Mul", total, x), nodes.constant(coefficient, np.int64))
            total = nodes.add("Mod", grown, prime)
        return nodes.add("Mod", total, nodes.constant(self.slots, np.int64))

    def _export_limbs(self, nodes: Nodes, x: str) -> str:
        """Append `_limbs`; each division is exact, so truncation does not matter."""
        limbs = []
        for size in (_LOW, _MIDDLE):
            width = nodes.constant(size, np.int64)
            limb = nodes.add("Mod", x, width)
            limbs.append(limb)
            x = nodes.add("Div", nodes.add("Sub", x, limb), width)
        wide = [nodes.add("Reshape", limb, nodes.constant([-1, 1, 1], np.int64)) for limb in (*limbs, x)]
        return nodes.cast(nodes.add("Concat", *wide, axis=2), TensorProto.FLOAT)


def _limbs(key: int) -> tuple[int, int, int]:
    rest, low = divmod(key, _LOW)
    high, middle = divmod(rest, _MIDDLE)
    return low, middle, high
