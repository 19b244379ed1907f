"""Waiting: the scored rows that feedback may still name, the newest in memory, the others in the journal."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, nest, split, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.core.keys import keys, requests
from riverdelta.core.records import OUTPUTS, Impressions, by_output
from riverdelta.learning.joiner.shelf import Rows, Shelf

COLUMN = "column/"
#: Rows that were found: the indices of their keys, the shelf that holds them, and their places in it.
Group = tuple[Rows, Shelf, Rows]
#: A row's key within its incarnation is request · 2²⁰ + index.
#: The share of the memory that blocks read back from the journal may take.
_READ_BACK_SHARE = 4


class Source:
    """Where impressions are read back from; this base class has none, so rows that do not fit in memory are lost."""

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the sequence number of the record with a request's rows, or None if it is deleted."""
        return None

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` if they cannot be read."""
        raise Corrupt(f"record {sequence} was not kept")


class Waiting:
    """Finds scored rows by key; which of them are in memory affects only speed, never results.

    Parameters
    ----------
    limit
        Memory in bytes. Rows of the oldest record leave first; a row needed later is read back from `source`, and the blocks
        read last are kept in a quarter of the memory. Raise it if labels come late, to save reads.
    unread
        Columns that take no memory, as nothing learns from them.
    propensity
        Whether the propensities of rows are kept (default False).
    """

    def __init__(self, limit: int, unread: Collection[str] = (), propensity: bool = False) -> None:
        self.source, self._propensity = Source(), propensity
        self.limit, self._unread = limit, frozenset(unread)
        #: The size of the widest row so far, in bytes.
        self.row_bytes = 0
        #: Rows that had left memory and were read back.
        self.read_back = 0
        #: By worker, the rows that only a checkpoint of version 0.1 has.
        self.kept: dict[int, Shelf] = {}
        self._shelves: dict[int, Shelf] = {}
        self._blocks: OrderedDict[int, Shelf] = OrderedDict()

    @property
    def rows(self) -> int:
        """The number of rows in memory, without those read back."""
        return sum(shelf.rows for shelf in self._shelves.values())

    @property
    def bytes(self) -> int:
        """The size of the rows in memory, in bytes."""
        return sum(shelf.bytes for group in (self._shelves, self._blocks) for shelf in group.values())

    def add(self, sequence: int, impressions: Impressions) -> None:
        """Add the rows of record `sequence`; raises `Corrupt` if they do not follow those before."""
        shelf = self._shelves.setdefault(impressions.incarnation, Shelf())
        shelf.add(self._rows(sequence, impressions))
        self.row_bytes = max(self.row_bytes, shelf.row_bytes)
        # A shelf has room for as many rows again.
        limit = (self.limit - self.limit // _READ_BACK_SHARE) // 2
        while sum(shelf.rows * shelf.row_bytes for shelf in self._shelves.values()) > limit:
            full = [shelf for shelf in self._shelves.values() if shelf.rows]
            oldest = min(full, key=lambda shelf: int(shelf["sequence"][shelf.first]))
            oldest.remove(oldest.oldest())
        # The last worker's shelf keeps its room until then; an empty one of another may be a dead worker's.
        self._shelves = {number: shelf for number, shelf in self._shelves.items() if shelf.rows}
        if sum(shelf.bytes for shelf in self._shelves.values()) > 2 * limit:
            for shelf in self._shelves.values():
                shelf.compact()

    def state(self) -> dict[str, Array]:
        """Return the rows that only a checkpoint of version 0.1 had, worker by worker."""
        rows = {str(n): {name: shelf[name][shelf.all()] for name in shelf.names} for n, shelf in self.kept.items()}
        return nest(rows)

    def load(self, arrays: Arrays) -> None:
        """Restore the saved rows that the source does not have."""
        self.kept = {}
        for worker, rows in split(arrays).items():
            numbers, of = np.unique(requests(take(rows, "key")), return_inverse=True)
            gone = np.array([self.source.locate(int(worker), number) is None for number in numbers.tolist()], np.bool_)[of]
            if gone.any():
                self.kept[int(worker)] = shelf = Shelf()
                shelf.add({name: by_output(column[gone]) if name in OUTPUTS else column[gone] for name, column in rows.items()})

    def restrict(self, wanted: Callable[[int, Ints], npt.NDArray[np.bool_]]) -> None:
        """Drop the kept rows that are not `wanted`, a function of each worker and its keys."""
        for incarnation, shelf in self.kept.items():
            at = shelf.all()
            shelf.remove(at[~wanted(incarnation, shelf["key"][at])])
        self.kept = {incarnation: shelf for incarnation, shelf in self.kept.items() if shelf.rows}

    def forget(self, keys: Mapping[int, Ints]) -> int:
        """Remove rows, given by incarnation and key, from memory and from its bytes; return how many."""
        forgotten = 0
        for shelves in (self._shelves, self.kept):
            for incarnation, mine in keys.items():
                if shelf := shelves.get(incarnation):
                    at, found = shelf.find(mine)
                    shelf.remove(at[found])
                    forgotten += int(found.sum())
        self._blocks.clear()
        self._shelves, self.kept = ({n: s for n, s in of.items() if s.rows} for of in (self._shelves, self.kept))
        return forgotten

    def find(self, incarnation: Ints, key: Ints) -> list[Group]:
        """Return the rows of the keys that can be found, worker by worker."""
        groups: list[Group] = []
        for number in np.unique(incarnation).tolist():
            missing = np.flatnonzero(incarnation == number)
            for shelf in (shelves[number] for shelves in (self._shelves, self.kept) if number in shelves):
                at, found = shelf.find(key[missing])
                if found.any():
                    groups.append((missing[found], shelf, at[found]))
                missing = missing[~found]
            groups += self._found_in_source(number, key, missing)
        return groups

    def remove(self, groups: list[Group]) -> None:
        """Remove rows that `find` returned."""
        for _, shelf, at in groups:
            # A row may have had two labels in one record.
            shelf.remove(at if (np.diff(at) > 0).all() else np.unique(at))

    def _found_in_source(self, incarnation: int, key: Ints, missing: Rows) -> Iterator[Group]:
        while missing.size:
            request = int(requests(key[missing[0]]))
            block = self._block(incarnation, request)
            at, found = block.find(key[missing])
            if found.any():
                # Copies of only these rows: one record may name rows of more blocks than fit in memory.
                rows = block.take(at[found])
                self.read_back += rows.rows
                yield missing[found], rows, np.arange(rows.rows)
            # Rows of this request that are not in its block are in no other.
            missing = missing[~found & (requests(key[missing]) != request)]

    def _block(self, incarnation: int, request: int) -> Shelf:
        sequence = self.source.locate(incarnation, request)
        if sequence is None:
            return Shelf()
        block = self._blocks.pop(sequence, None)
        if block is None:
            block, impressions = Shelf(), self.source.impressions(sequence)
            if impressions.incarnation != incarnation:
                raise Corrupt(f"journal record {sequence} has rows of another worker than the journal's index says")
            if request not in impressions.request:
                raise Corrupt(
                    f"journal record {sequence} lacks rows of request {request}, which the journal's index says it has"
                )
            block.add(self._rows(sequence, impressions))
            self.row_bytes = max(self.row_bytes, block.row_bytes)
        self._blocks[sequence] = block
        while len(self._blocks) > 1 and sum(b.bytes for b in self._blocks.values()) > self.limit // _READ_BACK_SHARE:
            self._blocks.popitem(last=False)
        return block

    def _rows(self, sequence: int, impressions: Impressions) -> dict[str, npt.NDArray[Any]]:
        return {
            "key": keys(impressions.request, impressions.index),
            "sequence": np.full(len(impressions), sequence, np.int64),
            "time": impressions.time,
            "position": impressions.position,
            **({"propensity": impressions.propensity} if self._propensity else {}),
            **{name: getattr(impressions, name) for name in OUTPUTS},
            **{COLUMN + name: column for name, column in impressions.columns.items() if name not in self._unread},
        }
