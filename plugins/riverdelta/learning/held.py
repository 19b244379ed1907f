"""Held: the examples that wait, in order, while the breaker is open."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, take
from riverdelta.core.checked import positive
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.corrections.stack import Stack
from riverdelta.learning.erased import Erased

#: Rows of one block in memory.
BLOCK = 1024
_Rows = npt.NDArray[Any]


class Held:
    """Keeps admitted examples as the stack will read them, oldest first, in at most `limit` bytes.

    If they take more, the oldest are dropped and counted. What is kept depends on the examples and their order alone, not on
    the blocks in which they come.

    Parameters
    ----------
    stack
        The stack that will learn them; its columns, its number of outputs and 8 bytes make up an example.
    limit
        Memory in bytes (default 256 MiB); raise it for a service with more feedback in the time that an operator needs.

    Examples
    --------
    >>> from riverdelta.core.features import Schema
    >>> from riverdelta.corrections.calibration import Calibration
    >>> stack = Stack([Calibration()])
    >>> stack.bind(Schema())
    >>> held = Held(stack, limit=24)
    >>> label = np.array([0, 1, 1], np.float32)
    >>> held.put(Examples.unserved({}, np.zeros(3, np.float32), label, np.arange(3.0)), np.ones(3, bool))
    >>> held.report() | {"bytes": held.bytes}
    {'rows': 2, 'bytes': 24, 'since': 0.0, 'dropped': 1, 'skipped': 0}
    >>> held.take(10)[2].tolist(), len(held)
    ([1.0, 1.0], 0)
    """

    def __init__(self, stack: Stack, limit: int = 256 << 20) -> None:
        self._stack, self._limit = stack, int(positive("limit", limit))
        self._blocks: deque[_Rows] = deque()
        #: The first row of the first block, and the end of the last.
        self._first = self._end = 0
        #: When the label of the first example was received, in Unix seconds; NaN while there is none.
        self.since = np.nan
        #: Examples dropped because the limit was reached, and because an operator skipped them.
        self.dropped = self.skipped = 0

    def __len__(self) -> int:
        return BLOCK * (len(self._blocks) - 1) + self._end - self._first if self._blocks else 0

    @property
    def bytes(self) -> int:
        """The memory of the examples."""
        return len(self) * self._kind.itemsize

    def resize(self, limit: int) -> None:
        """Set another limit, in bytes; the oldest examples beyond it are dropped."""
        self._limit = int(positive("limit", limit))
        self._fit()

    def put(self, examples: Examples, which: npt.NDArray[np.bool_]) -> None:
        """Append the examples marked in bool[M]."""
        e, rows = examples, np.zeros(int(which.sum()), self._kind)
        if not len(self):
            self.since = float(e.received[which][0])
        for name in self._stack.reads:
            rows["columns"][name] = e.columns[name][which]
        rows["base"], rows["label"], rows["weight"] = e.base[which], e.label[which], e.weight[which]
        if e.group is not None:
            rows["group"] = e.group[which]
            rows["propensity"] = 1.0 if e.propensity is None else e.propensity[which]
        self._append(rows)
        self._fit()

    def take(self, most: int) -> tuple[dict[str, npt.NDArray[Any]], Floats, Floats, Floats, Ints | None, Floats | None]:
        """Remove the oldest examples, `most` or fewer, or with the rest of the last list.

        Returns columns, base float32[M, K], label and weight float32[M], and for a loss of lists group int64[M] and propensity
        float32[M].
        """
        rows = self._cut(min(most, len(self._first_block())))
        columns = {name: np.ascontiguousarray(rows["columns"][name]) for name in self._stack.reads}
        base, label, weight = (np.ascontiguousarray(rows[name]) for name in ("base", "label", "weight"))
        if not self._stack.loss.lists:
            return columns, base, label, weight, None, None
        return columns, base, label, weight, np.ascontiguousarray(rows["group"]), np.ascontiguousarray(rows["propensity"])

    def skip(self) -> None:
        """Drop all examples, and count them as skipped."""
        self.skipped += len(self)
        self._remove(len(self))

    def forget(self, erased: Erased) -> int:
        """Drop the examples that `erased.like` finds; return how many."""
        left, dropped, since = list[_Rows](), 0, self.since
        while len(self):
            rows = self._first_block().copy()
            gone = erased.like({name: rows["columns"][name] for name in self._stack.reads}, np.ascontiguousarray(rows["base"]))
            left.append(rows[~gone])
            dropped += int(gone.sum())
            self._remove(len(rows))
        for rows in left:
            self._append(rows)
        self.since = since if len(self) else np.nan
        return dropped

    def report(self) -> dict[str, Any]:
        """Return how many examples are held, since when, and how many were not kept."""
        since = None if np.isnan(self.since) else self.since
        return {"rows": len(self), "bytes": self.bytes, "since": since, "dropped": self.dropped, "skipped": self.skipped}

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        rows = np.empty(len(self), self._kind)
        at = 0
        for number, block in enumerate(self._blocks):
            part = block[self._first * (number == 0) : self._end if number == len(self._blocks) - 1 else BLOCK]
            rows[at : at + len(part)] = part
            at += len(part)
        return {
            "rows": rows.view(np.uint8).reshape(len(rows), self._kind.itemsize),
            "since": np.array([self.since]),
            "counts": np.array([self.dropped, self.skipped], np.int64),
        }

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, {} by earlier versions; raises `Corrupt` if it does not fit the stack."""
        rows, since, counts = np.zeros((0, self._kind.itemsize), np.uint8), np.full(1, np.nan), np.zeros(2, np.int64)
        if arrays:
            rows = take(arrays, "rows", rows, any_rows=True)
            since, counts = take(arrays, "since", since), take(arrays, "counts", counts)
        self._remove(len(self))
        self._append(np.ascontiguousarray(rows).reshape(-1).view(self._kind))
        self.since, (self.dropped, self.skipped) = float(since[0]), counts.tolist()
        self._fit()

    @property
    def _kind(self) -> np.dtype[Any]:
        """The dtype of one example, without padding."""
        columns = [(name, column.numpy, column.shape) for name, column in self._stack.schema.items()]
        base = ("base", np.float32, (self._stack.loss.outputs,))
        lists = [("group", np.int64), ("propensity", np.float32)] if self._stack.loss.lists else []
        return np.dtype([("columns", columns), base, ("label", np.float32), ("weight", np.float32), *lists])

    def _append(self, rows: _Rows) -> None:
        at = 0
        while at < len(rows):
            if not self._blocks or self._end == BLOCK:
                self._blocks.append(np.empty(BLOCK, self._kind))
                self._end = 0
            part = rows[at : at + BLOCK - self._end]
            self._blocks[-1][self._end : self._end + len(part)] = part
            self._end += len(part)
            at += len(part)

    def _remove(self, rows: int) -> None:
        """Drop the oldest rows."""
        self._first += rows
        while self._first >= BLOCK:
            self._blocks.popleft()
            self._first -= BLOCK
        if not len(self):
            self._blocks.clear()
            self._first = self._end = 0
            self.since = np.nan

    def _fit(self) -> None:
        if (beyond := len(self) - max(self._limit // self._kind.itemsize, 1)) > 0:
            self.dropped += len(self._cut(beyond))

    def _first_block(self) -> _Rows:
        return self._blocks[0][self._first : self._end if len(self._blocks) == 1 else BLOCK] if self._blocks else self._none

    def _cut(self, rows: int) -> _Rows:
        """Remove the oldest rows, and the rest of their last list, and return them."""
        taken = [self._none]
        while len(self):
            block = self._first_block()
            if rows <= 0:
                same = block["group"] == taken[-1]["group"][-1] if self._stack.loss.lists else np.zeros(1, np.bool_)
                rows = int(np.argmin(np.append(same, False)))
            if rows == 0:
                break
            taken.append(block[:rows])
            rows -= len(taken[-1])
            self._remove(len(taken[-1]))
        return taken[-1] if len(taken) == 2 else np.concatenate(taken)

    @property
    def _none(self) -> _Rows:
        return np.empty(0, self._kind)
