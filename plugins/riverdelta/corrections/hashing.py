"""Hashing of ids to slots, in a kernel and in ONNX.

slot = ((a·(lo mod P)) mod P + (b·(hi mod P)) mod P + c) mod P mod slots, with P = 2³¹ - 1, lo = x mod 2³² and
hi = (x - lo) / 2³². This is the multiply-mod-prime family (Carter and Wegman 1979), summed over the two halves of an id and,
for a cross, over its ids. It uses only int64 operations that ONNX Runtime also has on CUDA, and none overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from riverdelta.core import checked
from riverdelta.core.features import Ints
from riverdelta.core.hashing import digest
from riverdelta.core.nodes import Nodes

P = 2**31 - 1


@numba.njit("void(int64[:, ::1], int64[::1], int64[::1], int64, int64, int64[:, ::1], int64)", cache=True)
def _slots(ids, a, b, c, slots, out, column):  # type: ignore[no-untyped-def]
    for i in range(ids.shape[0]):
        total = c
        for j in range(ids.shape[1]):
            x = ids[i, j]
            total += (a[j] * ((x & 0xFFFFFFFF) % P)) % P + (b[j] * ((x >> 32) % P)) % P
        out[i, column] = (total % P) % slots


@dataclass(frozen=True)
class Hash:
    """A hash function from `arity` ids to `slots`, with coefficients drawn from a name.

    >>> h = Hash.draw("user_id", arity=1, slots=8)
    >>> h(np.array([1, 2, -1])).tolist()
    [2, 1, 5]
    """

    a: tuple[int, ...]
    b: tuple[int, ...]
    c: int
    slots: int

    @classmethod
    def draw(cls, name: str, arity: int, slots: int) -> Hash:
        """Draw a, b in [1, P) and c in [0, P) from BLAKE2b of `name`, the same on every machine."""
        checked.slots(slots)
        words = [int.from_bytes(digest(f"{name}/{i}".encode()), "little") for i in range(2 * arity + 1)]
        a = tuple(1 + w % (P - 1) for w in words[:arity])
        b = tuple(1 + w % (P - 1) for w in words[arity : 2 * arity])
        return cls(a, b, words[-1] % P, slots)

    def __call__(self, *ids: npt.NDArray[np.integer]) -> Ints:
        """Return the slots int64[N] of `arity` id columns."""
        out = np.empty((len(ids[0]), 1), np.int64)
        self.into(out, 0, *ids)
        return out[:, 0]

    def into(self, out: Ints, column: int, *ids: npt.NDArray[np.integer]) -> None:
        """Write the slots into one column of `out` int64[N, S]."""
        block = np.ascontiguousarray(np.stack(ids, axis=1), np.int64)
        _slots(block, np.array(self.a), np.array(self.b), self.c, self.slots, out, column)

    def export(self, nodes: Nodes, *ids: str) -> str:
        """Append the same computation on int64 tensors of one shape and return the tensor of the slots."""
        prime, half = nodes.constant(P, np.int64), nodes.constant(2**32, np.int64)
        total = nodes.constant(self.c, np.int64)
        for a, b, x in zip(self.a, self.b, ids, strict=True):
            x = nodes.cast(x, TensorProto.INT64)
            lo = nodes.add("Mod", x, half)
            hi = nodes.add("Div", nodes.add("Sub", x, lo), half)
            for factor, part in ((a, lo), (b, hi)):
                product = nodes.add("Mul", nodes.add("Mod", part, prime), nodes.constant(factor, np.int64))
                total = nodes.add("Add", total, nodes.add("Mod", product, prime))
        return nodes.add("Mod", nodes.add("Mod", total, prime), nodes.constant(self.slots, np.int64))
