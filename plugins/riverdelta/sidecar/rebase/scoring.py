"""Scoring: scores old impressions with the new scorer, by tables as old as those that served them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from riverdelta.core.features import Floats, Ints
from riverdelta.core.records import BEFORE, BEFORE_AGAIN, Impressions
from riverdelta.learning.learner import Learner
from riverdelta.sidecar.rebase.rows import Rows


class Scoring:
    """Scores each row of upcoming records when the learner is at the position of the tables that served it.

    If that position has already passed when its record is read, the row is scored at once, by somewhat newer tables; never by
    tables that contain its own record. `again` is whether the old home was itself rebased.
    """

    def __init__(self, rows: Rows, scorer: Learner, again: bool = False) -> None:
        self._rows, self._scorer, self._again = rows, scorer, again
        self._awaited: dict[int, Impressions] = {}
        self._due: dict[int, list[tuple[Impressions, Ints]]] = {}

    def expect(self, sequence: int, logged: Impressions, now: int) -> None:
        """Add a usable record, while the learner is at position `now`."""
        base, columns = self._rows.of_record(logged)
        before = {column: logged.columns.get(column, _flat(getattr(logged, name))) for name, column in BEFORE.items()}
        if self._again:
            before |= {column: _flat(getattr(logged, name)) for name, column in BEFORE_AGAIN.items()}
        position = np.clip(logged.position, now, sequence - 1)
        outputs = np.empty((2, *base.shape), np.float32)
        scored = replace(
            logged, base=base, corrected=outputs[0], served=outputs[1], position=position, columns=columns | before
        )
        self._awaited[sequence] = scored
        for at in np.unique(position).tolist():
            self._due.setdefault(at, []).append((scored, np.flatnonzero(position == at)))

    def score(self, now: int) -> None:
        """Score the rows that were served by tables at position `now`, the learner's."""
        for scored, rows in self._due.pop(now, ()):
            columns = {name: scored.columns[name][rows] for name in self._scorer.stack.reads}
            scored.corrected[rows], scored.served[rows] = self._scorer.serve(columns, scored.base[rows])

    def take(self, sequence: int) -> Impressions | None:
        """Return a record with all rows scored, None if it was not expected."""
        return self._awaited.pop(sequence, None)


def _flat(raw: Floats) -> Floats:
    return raw[:, 0] if raw.shape[1] == 1 else raw
