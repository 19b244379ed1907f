"""State and Delta: which tables score, and what turns one state's tables into the next one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import pack, unpack
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints


@dataclass(frozen=True)
class State:
    """What scored: release, swap since the service's first, and the journal position that its tables contain.

    >>> str(State(release=17, swap=4203, position=9000))
    '17+4203'
    """

    release: int
    swap: int
    position: int

    def __str__(self) -> str:
        return f"{self.release}+{self.swap}"


@dataclass(frozen=True)
class Delta:
    """New rows of the served tables: `tables` has each one's rows int64[R] and values float32[R, W].

    `base` is the state that it applies to; None makes it whole: every row of every table, and rows are then None. `received`
    float64[M] are the times (Unix seconds) at which the feedback that it newly contains was received, `published` its own.
    """

    state: State
    base: State | None
    tables: Mapping[str, tuple[Ints | None, Floats]]
    received: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    published: float = 0.0

    def encode(self) -> bytes:
        """Return the delta as bytes, its digest among them."""
        base = self.base or State(-1, -1, -1)
        arrays = {
            "state": np.array([[s.release, s.swap, s.position] for s in (self.state, base)], np.int64),
            "received": self.received,
            "published": np.array([self.published]),
        }
        for name, (rows, values) in self.tables.items():
            arrays[f"values/{name}"] = values
            if rows is not None:
                arrays[f"rows/{name}"] = rows
        return b"".join(pack(arrays))

    @classmethod
    def decode(cls, data: bytes, source: str) -> Delta:
        """Read what `encode` wrote; raises `Corrupt` naming `source`."""
        arrays = unpack(data, source)
        try:
            state, base = (State(*row) for row in _typed(arrays, "state", np.int64, 2).tolist())
            tables: dict[str, tuple[Ints | None, Floats]] = {}
            for key, values in arrays.items():
                kind, _, name = key.partition("/")
                if kind == "values":
                    rows = f"rows/{name}"
                    tables[name] = (_typed(arrays, rows, np.int64, 1) if rows in arrays else None, values)
            received = _typed(arrays, "received", np.float64, 1)
            (published,) = _typed(arrays, "published", np.float64, 1).tolist()
            return cls(state, None if base.swap < 0 else base, tables, received, published)
        except (KeyError, ValueError, TypeError) as error:
            raise Corrupt(f"{source} is no delta: {error}") from error


def _typed(arrays: Mapping[str, npt.NDArray[Any]], name: str, dtype: npt.DTypeLike, axes: int) -> npt.NDArray[Any]:
    array = arrays[name]
    if array.dtype != dtype or array.ndim != axes:
        raise ValueError(f"its {name} is {array.dtype}{list(array.shape)}")
    return array
