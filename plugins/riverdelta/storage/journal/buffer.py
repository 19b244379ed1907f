"""Buffer: the rows of one process that are not durable yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import TooLarge, Unavailable
from riverdelta.core.features import Floats, Ints
from riverdelta.core.keys import MOST_ROWS
from riverdelta.core.records import OUTPUTS, Impressions, RequestName
from riverdelta.core.values import size_of
from riverdelta.storage.journal.reader import encoded
from riverdelta.storage.log import Entry, Named, Transaction
from riverdelta.storage.registry.state import State

#: A block takes no further request beyond this many rows or bytes: a late label reads its row's entire block back.
_BLOCK_ROWS, _BLOCK_BYTES = 16_384, 2 << 20
_DROPPED = "the rows were dropped, because too many wait; send the request again later"


@dataclass(frozen=True)
class Block:
    """Impressions ready to be stored, with the numbers and row counts of their requests, int64[R, 2]."""

    impressions: Impressions
    requests: Ints
    waiting: Sequence[tuple[int, Rows]]

    def store(self, transaction: Transaction, entry: Entry, names: int) -> dict[int, Named]:
        """Store its record, `entry`, without the requests whose name is taken; return who has each name, by request.

        The texts of its ids are noted while the index has fewer than `names`.
        """
        if texts := {own: text for _, rows in self.waiting for own, text in rows.texts.items()}:
            transaction.note(texts, names)
        incarnation, owners, left = self.impressions.incarnation, dict[int, Named](), list[tuple[int, Rows]]()
        for number, rows in self.waiting:
            if rows.name is not None:
                if (owner := transaction.named(rows.name.request_id)) is None:
                    owner = Named((incarnation, number), rows.content)
                    transaction.name(rows.name.request_id, owner)
                owners[number] = owner
                if owner.request != (incarnation, number):
                    continue
            left.append((number, rows))
        if len(left) == len(self.waiting):
            transaction.index(incarnation, self.requests, transaction.append(entry))
        elif left:
            other = _block(incarnation, left)
            transaction.index(incarnation, other.requests, transaction.append(encoded(other.impressions)))
        return owners


@dataclass(frozen=True)
class Rows:
    """The rows of one request: columns, raw outputs, propensity, the state that scored them, and when (Unix seconds).

    `trace` is the W3C trace id that the request came with, 32 hexadecimal digits. `name` has the client's ids, `content` is
    what the index keeps with them, and `owner` resolves to who has the name. `texts` are those of string ids, by hash, that
    the index should note.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    base: Floats
    corrected: Floats
    served: Floats
    propensity: Floats | None
    state: State
    time: float
    trace: str | None = None
    name: RequestName | None = None
    content: bytes = b""
    owner: Future[Named] | None = None
    texts: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.base)


class Buffer:
    """Numbers requests and keeps their rows until they are stored; not thread-safe."""

    def __init__(self, incarnation: int, limit: int) -> None:
        self.incarnation, self.limit = incarnation, limit
        #: Rows that wait, rows that were dropped, and requests that wait for the owner of their name.
        self.rows = self.dropped = self.claims = 0
        self._next = 0
        self._waiting: deque[tuple[int, Rows]] = deque()

    @property
    def requests(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    def add(self, rows: Rows) -> int:
        """Add one request and return its number; beyond the limit the oldest are dropped and counted."""
        if len(rows) > MOST_ROWS:
            raise TooLarge(f"the request has {len(rows)} rows; at most {MOST_ROWS} are accepted: send it in parts")
        number, self._next = self._next, self._next + 1
        self._waiting.append((number, rows))
        self.rows += len(rows)
        self.claims += rows.owner is not None
        while self.rows > self.limit and len(self._waiting) > 1:
            self._drop(Unavailable(_DROPPED))
        return number

    def block(self) -> Block | None:
        """Return the oldest waiting requests as one block; they stay until `forget` or `discard`."""
        count = rows = size = 0
        first = _shapes(self._waiting[0][1]) if self._waiting else []
        for _, request in self._waiting:
            rows += len(request)
            size += sum(array.nbytes for array in vars(request).values() if isinstance(array, np.ndarray))
            size += sum(map(size_of, request.columns.values()))
            if count and (rows > _BLOCK_ROWS or size > _BLOCK_BYTES or _shapes(request) != first):
                break
            count += 1
        return _block(self.incarnation, list(islice(self._waiting, count))) if count else None

    def forget(self, block: Block, owners: Mapping[int, Named]) -> None:
        """Drop a block that is durable, and resolve who has the names of its requests."""
        newest = int(block.requests[-1, 0])
        while self._waiting and self._waiting[0][0] <= newest:
            number, rows = self._remove()
            if rows.owner is not None:
                rows.owner.set_result(owners[number])

    def withdraw(self, error: Unavailable) -> None:
        """Drop the requests that wait for the owner of their name, and refuse them."""
        for _ in range(len(self._waiting)):
            number, rows = self._remove()
            if rows.owner is None:
                self._waiting.append((number, rows))
                self.rows += len(rows)
            else:
                rows.owner.set_exception(error)

    def discard(self, error: Unavailable) -> None:
        """Drop and count everything, since some of it cannot be encoded."""
        while self._waiting:
            self._drop(error)

    def _drop(self, error: Unavailable) -> None:
        _, rows = self._remove()
        self.dropped += len(rows)
        if rows.owner is not None:
            rows.owner.set_exception(error)

    def _remove(self) -> tuple[int, Rows]:
        number, rows = self._waiting.popleft()
        self.rows -= len(rows)
        self.claims -= rows.owner is not None
        return number, rows


def _shapes(rows: Rows) -> list[tuple[int, ...]]:
    """The shape of a row of each column: of an input with a second axis of any length, two requests may have different ones."""
    return [column.shape[1:] for column in rows.columns.values()]


def _block(incarnation: int, numbered: Sequence[tuple[int, Rows]]) -> Block:
    numbers, waiting = zip(*numbered, strict=True)
    counts = np.array([len(r) for r in waiting], np.int64)

    def each(values: list[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return np.repeat(np.array(values, dtype), counts)

    propensities = [np.full(len(r), np.nan, np.float32) if r.propensity is None else r.propensity for r in waiting]
    starts = np.cumsum(counts) - counts
    impressions = Impressions(
        incarnation=incarnation,
        request=each(list(numbers), np.int64),
        index=(np.arange(counts.sum()) - np.repeat(starts, counts)).astype(np.int32),
        time=each([r.time for r in waiting], np.float64),
        release=each([r.state.release for r in waiting], np.int64),
        swap=each([r.state.swap for r in waiting], np.int64),
        position=each([r.state.position for r in waiting], np.int64),
        **{name: np.concatenate([getattr(r, name) for r in waiting]) for name in OUTPUTS},
        propensity=np.concatenate(propensities),
        columns={name: np.concatenate([r.columns[name] for r in waiting]) for name in waiting[0].columns},
        traces={number: r.trace for number, r in zip(numbers, waiting, strict=True) if r.trace is not None},
        names={number: r.name for number, r in numbered if r.name is not None},
    )
    return Block(impressions, np.stack([numbers, counts], axis=1), numbered)
