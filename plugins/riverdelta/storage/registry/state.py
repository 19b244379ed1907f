"""State and Delta: identify the tables that score, and turn one state's tables into the next one's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import pack, part, take, unpack
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Floats, Ints


@dataclass(frozen=True)
class State:
    """The tables that scored: release, number of swaps since the first start, and the journal position that they contain.

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

    `base` is the state that it applies to; None makes it a full delta: every row of every table, with rows None. `received`
    float64[M] are the times (Unix seconds) at which the feedback new in it was received, `published` is when it was published.
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
        """Return the delta that `encode` wrote; raises `Corrupt` naming `source` if the bytes are damaged."""
        arrays = unpack(data, source)
        try:
            state, base = (State(*row) for row in take(arrays, "state", np.zeros((2, 3), np.int64)).tolist())
            indices = part(arrays, "rows")
            rows = {name: take(indices, name, np.zeros(0, np.int64), any_rows=True) for name in indices}
            tables = {name: (rows.get(name), values) for name, values in part(arrays, "values").items()}
            received = take(arrays, "received", np.zeros(0), any_rows=True)
            published = float(take(arrays, "published", np.zeros(1))[0])
            return cls(state, None if base.swap < 0 else base, tables, received, published)
        except Corrupt as error:
            raise Corrupt(f"{source} is not a valid delta: {error}") from error
