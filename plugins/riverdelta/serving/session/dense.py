"""Dense: fits the tables that grow by need to the graph of an older release, where they have a row for each slot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Ints
from riverdelta.storage.registry.state import Delta


class Dense:
    """Rewrites deltas: rows of `table`, of which `index` int32[slots, 1] has the row of each slot, become those of slots."""

    def __init__(self, index: str, table: str) -> None:
        self.index, self.table = index, table
        #: The slot of each row, None while the deltas have a row for each slot, too.
        self._slot_of: Ints | None = None

    def rewritten(self, delta: Delta) -> Delta:
        """Return a delta for a table with a row for each slot; raises `Corrupt` if its rows do not fit its index."""
        tables = dict(delta.tables)
        try:
            at, rows = tables.pop(self.index, (np.empty(0, np.int64), np.empty((0, 1), np.int32)))
            if delta.base is None:
                if self.index in delta.tables and self.table in tables:
                    values = tables[self.table][1]
                    self._slot_of = np.zeros(len(values), np.int64)
                    self._slot_of[rows[:, 0]] = np.arange(len(rows))
                    tables[self.table] = None, values[rows[:, 0]]
                else:
                    self._slot_of = None
            elif self._slot_of is not None and at is not None:
                size = max(len(self._slot_of), int(rows.max(initial=0)) + 1)
                self._slot_of = np.concatenate([self._slot_of, np.zeros(size - len(self._slot_of), np.int64)])
                self._slot_of[rows[:, 0]] = at
                if self.table in tables:
                    changed, values = tables[self.table]
                    changed = np.asarray(changed)
                    own = changed != 0  # row 0 is that of slots without one
                    tables[self.table] = self._slot_of[changed[own]], values[own]
        except (IndexError, TypeError, ValueError) as error:
            raise Corrupt(f"state {delta.state}: the rows of {self.table!r} do not fit {self.index!r}: {error}") from error
        return replace(delta, tables=tables)
