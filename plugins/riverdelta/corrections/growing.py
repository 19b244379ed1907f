"""Growing: gives the slots of a hashed table rows by need, so that its size is that of what was learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table

#: The name of the table in `served` and in the graph, int32[slots, 1]: the row of each slot, 0 without one.
INDEX = "rows"
#: The name of the array in `learner`, int64[R]: the slot of each row, and for row 0 the number of slots.
SLOTS = "slots"


class Growing:
    """The rows of one served table and of the arrays that go with it. A slot gets the next row when it is first learned.

    Row 0 is that of all other slots, and stays zero. The memory doubles when it is full; only used rows are shown, published
    and saved.

    Parameters
    ----------
    served, learner
        Those of the correction. INDEX and SLOTS are added, which belong into its `grows` (SLOTS) and `since`.
    slots
        The number of slots.
    table
        The name of the served table, which has row 0 alone.
    arrays
        The names of the arrays in `learner` with the same rows.

    Notes
    -----
    A kernel takes the arrays of `room`, writes a row of INDEX and SLOTS for each slot that it gives one, and marks the slot;
    `keep` then shows the rows used.

    >>> served, learner = {"mean": Table([[0.0]], slots=8)}, {}
    >>> rows = Growing(served, learner, 8, "mean")
    >>> values, touched, slot_of = rows.room(1)
    >>> values[1], slot_of[1], served[INDEX].values[5] = 0.5, 5, 1
    >>> rows.keep(2)
    >>> served["mean"].values[served[INDEX].values[:, 0]].ravel().tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]
    """

    def __init__(
        self, served: dict[str, Table], learner: dict[str, npt.NDArray[Any]], slots: int, table: str, *arrays: str
    ) -> None:
        self._served, self._learner, self.slots, self.table = served, learner, slots, table
        self.index = served[INDEX] = Table(np.zeros((slots, 1)), np.int32)
        learner[SLOTS] = np.array([slots])
        self._names = (SLOTS, *arrays)
        #: The used rows, row 0 among them.
        self.used = 1
        self._room = self._arrays()

    def room(self, more: int) -> tuple[npt.NDArray[Any], ...]:
        """Return the table's values and marks, SLOTS and the arrays, with room for `more` rows beyond the used ones."""
        if (need := self.used + more) > (there := len(self._room[0])) <= self.slots:
            size = min(max(need, 2 * there), self.slots + 1)
            self._room = tuple(_longer(array, size) for array in self._room)
            self._show()
        return self._room

    def keep(self, used: int) -> None:
        """Show the rows up to `used`."""
        if used != self.used:
            self.used = used
            self._show()

    def reset(self, slots: npt.NDArray[np.integer[Any]]) -> int:
        """Reset the rows of slots, which stay used, and return how many there are."""
        rows = np.unique(self.index.values[slots, 0]).astype(np.int64)
        values, touched, _, *others = self._arrays()
        for array in (values, *others):
            array[rows] = 0
        touched[rows] = True
        return int((rows > 0).sum())

    def restore(self) -> None:
        """Rebuild INDEX after SLOTS, the table and the arrays were loaded; those of a version without SLOTS have all slots.

        Raises `Corrupt` if they do not fit.
        """
        values, _, slot_of, *others = self._arrays()
        if not len(slot_of) and len(values) == self.slots:
            learned = np.flatnonzero(np.any([array.any(axis=1) for array in (values, *others)], axis=0))
            slot_of = np.r_[self.slots, learned]
            values, *others = (np.r_[np.zeros_like(array[:1]), array[learned]] for array in (values, *others))
        known = slot_of[1:][(slot_of[1:] >= 0) & (slot_of[1:] < self.slots)]
        if {len(slot_of)} != {1 + len(np.unique(known)), len(values), *map(len, others)} or slot_of[0] != self.slots:
            had = f"{len(values)} rows of {[*slot_of[:1].tolist(), 'all'][0]} slots"
            raise Corrupt(f"the saved {self.table!r} has {had}; expected {self.slots} slots: another version or stack saved it")
        self.index.values[:] = 0
        self.index.values[known, 0] = np.arange(1, len(slot_of))
        self.used = len(slot_of)
        self._room = (values, np.ones(self.used, np.bool_), slot_of, *others)
        self._show()

    def saved(self) -> dict[str, Mapping[str, npt.NDArray[Any]]]:
        """Return what a correction saves: no INDEX, and rows in the order of their slots, whenever those were learned."""
        order = np.r_[0, 1 + np.argsort(self._learner[SLOTS][1:])]
        served = {key: table.values for key, table in self._served.items() if key != INDEX}
        return {
            "served": served | {self.table: served[self.table][order]},
            "learner": self._learner | {name: self._learner[name][order] for name in self._names},
        }

    def export(self, nodes: Nodes, slots: str) -> str:
        """Append the nodes that read the row of each of the `slots` int64[N], and return their tensor float32[N, 1, W]."""
        table = nodes.table(self.table, self._served[self.table].values, grows=True)
        return nodes.add("Gather", table, nodes.add("Gather", nodes.table(INDEX, self.index.values), slots))

    def _arrays(self) -> tuple[npt.NDArray[Any], ...]:
        table = self._served[self.table]
        return (table.values, table.touched, *(self._learner[name] for name in self._names))

    def _show(self) -> None:
        table = self._served[self.table]
        table.values, table.touched, *arrays = (array[: self.used] for array in self._room)
        self._learner |= zip(self._names, arrays, strict=True)


def _longer(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    made = np.zeros((size, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made
