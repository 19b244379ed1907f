"""Buffer: the rows of one process that are not durable yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import TooLarge
from riverdelta.core.features import Floats, Ints
from riverdelta.core.records import Impressions
from riverdelta.storage.registry.state import State

#: A block takes no further request beyond this many rows, or bytes of them: a late label reads all of its row's block back.
_BLOCK_ROWS, _BLOCK_BYTES = 16_384, 2 << 20
#: The most rows of one request: a row's index has 20 bits in the joiner.
_REQUEST_ROWS = 1 << 20


@dataclass(frozen=True)
class Block:
    """Impressions ready to be stored, and int64[R, 2]: the numbers and row counts of their requests."""

    impressions: Impressions
    requests: Ints


@dataclass(frozen=True)
class _Request:
    number: int
    rows: int
    columns: Mapping[str, npt.NDArray[Any]]
    logits: tuple[Floats, Floats, Floats]
    propensity: Floats | None
    state: State
    time: float
    trace: str | None


class Buffer:
    """Numbers requests and keeps their rows until they are stored; not thread-safe by itself."""

    def __init__(self, incarnation: int, limit: int) -> None:
        self.incarnation, self.limit = incarnation, limit
        self.rows = self.dropped = 0
        self._next = 0
        self._waiting: deque[_Request] = deque()

    @property
    def requests(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def add(
        self,
        columns: Mapping[str, npt.NDArray[Any]],
        base: Floats,
        corrected: Floats,
        served: Floats,
        propensity: Floats | None,
        state: State,
        time: float,
        trace: str | None = None,
    ) -> int:
        """Keep one request and return its number; past the limit the oldest are dropped and counted."""
        if len(base) > _REQUEST_ROWS:
            raise TooLarge(f"the request has {len(base)} rows; the journal takes at most {_REQUEST_ROWS}: send it in parts")
        number, self._next = self._next, self._next + 1
        logits = (base, corrected, served)
        self._waiting.append(_Request(number, len(base), columns, logits, propensity, state, time, trace))
        self.rows += len(base)
        while self.rows > self.limit and len(self._waiting) > 1:
            self._drop()
        return number

    def block(self) -> Block | None:
        """Return the oldest of what waits as one block; it goes on waiting until `forget` or `discard`."""
        waiting: list[_Request] = []
        rows = size = 0
        for request in islice(self._waiting, len(self._waiting)):
            rows += request.rows
            size += sum(array.nbytes for array in (*request.columns.values(), *request.logits))
            if waiting and (rows > _BLOCK_ROWS or size > _BLOCK_BYTES):
                break
            waiting.append(request)
        return _block(self.incarnation, waiting) if waiting else None

    def forget(self, block: Block) -> None:
        """Let go of a block that is durable now."""
        newest = int(block.requests[-1, 0])
        while self._waiting and self._waiting[0].number <= newest:
            self.rows -= self._waiting.popleft().rows

    def discard(self) -> None:
        """Drop and count everything: some of it cannot be made a block."""
        while self._waiting:
            self._drop()

    def _drop(self) -> None:
        dropped = self._waiting.popleft().rows
        self.rows -= dropped
        self.dropped += dropped


def _block(incarnation: int, waiting: list[_Request]) -> Block:
    counts = np.array([r.rows for r in waiting], np.int64)
    numbers = np.array([r.number for r in waiting], np.int64)

    def each(values: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.repeat(np.array(values, dtype), counts)

    propensities = [np.full(r.rows, np.nan, np.float32) if r.propensity is None else r.propensity for r in waiting]
    base, corrected, served = (np.concatenate([r.logits[i] for r in waiting]) for i in range(3))
    starts = np.cumsum(counts) - counts
    impressions = Impressions(
        incarnation=incarnation,
        request=np.repeat(numbers, counts),
        index=(np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.int32),
        time=each([r.time for r in waiting], np.float64),
        release=each([r.state.release for r in waiting], np.int64),
        swap=each([r.state.swap for r in waiting], np.int64),
        position=each([r.state.position for r in waiting], np.int64),
        base=base,
        corrected=corrected,
        served=served,
        propensity=np.concatenate(propensities),
        columns={name: np.concatenate([r.columns[name] for r in waiting]) for name in waiting[0].columns},
        traces={r.number: r.trace for r in waiting if r.trace is not None},
    )
    return Block(impressions, np.stack([numbers, counts], axis=1))
