"""Examples: rows joined with their labels, ready to be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats, Ints
from riverdelta.core.records import OUTPUTS, by_output


@dataclass(frozen=True)
class Examples:
    """M joined rows in the order in which their labels came.

    `base`, `corrected`, `served` float32[M, K] are the raw outputs as logged at serving ([M] is read as [M, 1]), by tables
    that contained the journal up to `position` int64[M]. `weight` float32[M] is a row's weight in learning, `importance`
    float32[M] its weight in measures, and `taken_back` float32[M] the importance of the earlier negative by silence of a late
    positive's row (0: none). `sent` float32[M] is the weight that came with the label, a factor of the first two.
    `received` float64[M] is when the label was received, `scored` when the row was scored and `event` when what it reports
    happened (Unix seconds; NaN: unknown); `source` int64[M] is the sender of the label, 0 for a negative by silence.

    For a loss of lists, `group` int64[M] is the number of each row's list; rows of a list are adjacent, rows without a label
    have the label 0, and `sent` is the weight before it was divided by a propensity. It is None for any other loss.
    `propensity` float32[M] are the probabilities with which rows were examined, None if all were examined alike.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    base: Floats
    corrected: Floats
    served: Floats
    label: Floats
    weight: Floats
    received: npt.NDArray[np.float64]
    scored: npt.NDArray[np.float64]
    importance: Floats
    taken_back: Floats
    position: Ints
    source: Ints
    sent: Floats
    event: npt.NDArray[np.float64]
    group: Ints | None = None
    propensity: Floats | None = None

    def __post_init__(self) -> None:
        for name in OUTPUTS:
            object.__setattr__(self, name, by_output(getattr(self, name)))

    @classmethod
    def unserved(
        cls,
        columns: Mapping[str, npt.NDArray[Any]],
        base: Floats,
        label: Floats,
        time: npt.NDArray[np.float64],
        source: Ints | None = None,
        sent: Floats | None = None,
        group: Ints | None = None,
    ) -> Examples:
        """Return examples that no stack has served; their labels come at the time of scoring, from source 1 by default.

        `sent` float32[M] are the weights of the labels (default 1), `group` int64[M] the lists of a loss of lists.
        """
        zeros, weight = np.zeros(len(label), np.int64), np.ones(len(label), np.float32) if sent is None else sent
        return cls(
            columns=columns,
            base=base,
            corrected=base,
            served=base,
            label=label,
            weight=weight,
            received=time,
            scored=time,
            importance=weight,
            taken_back=np.zeros(len(label), np.float32),
            position=zeros,
            source=zeros + 1 if source is None else source,
            sent=weight,
            event=np.full(len(label), np.nan),
            group=group,
        )

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice) -> Examples:
        values = ((field.name, getattr(self, field.name)) for field in fields(self)[1:])
        kept: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values}
        return Examples({name: column[rows] for name, column in self.columns.items()}, **kept)

    def lists(self, rows: slice | npt.NDArray[Any] = slice(None)) -> dict[str, Ints]:
        """Return the argument that says which rows are one list, of all rows or of some; none without lists."""
        return {} if self.group is None else {"group": self.group[rows]}

    def measured(self) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
        """Return the rows that measures count, in order: indices intp[K] of the examples, labels and weights float32[K].

        A late positive is preceded by a row that takes back its earlier negative by silence, with the same weight, so that Σ
        weight·f(row, label) ends up as that of the true labels.
        """
        again = self.taken_back > 0
        rows = np.arange(len(self))
        if not again.any():
            return rows, self.label, self.importance
        rows = np.repeat(rows, 1 + again)
        label, weight = self.label[rows], self.importance[rows]
        back = np.flatnonzero(rows[1:] == rows[:-1])
        label[back], weight[back] = 0.0, -self.taken_back[rows[back]]
        return rows, label, weight


def cuts(rows: int, group: Ints | None, most: int) -> Iterator[slice]:
    """Yield consecutive slices of rows, of at most `most` rows each or of one list that is longer; none cuts a list.

    >>> [(part.start, part.stop) for part in cuts(6, np.array([1, 1, 2, 2, 2, 2]), 3)]
    [(0, 2), (2, 6)]
    """
    if group is None:
        yield from (slice(first, min(first + most, rows)) for first in range(0, rows, most))
        return
    ends, first = np.append(np.flatnonzero(np.diff(group)) + 1, rows), 0
    while first < rows:
        last = max(int(np.searchsorted(ends, first + most, side="right")) - 1, int(np.searchsorted(ends, first, side="right")))
        yield slice(first, int(ends[last]))
        first = int(ends[last])


def number(rows: npt.NDArray[np.bool_], group: Ints | None) -> int:
    """Return how many examples have rows marked in bool[M]: the number of those, or of their lists by `group` int64[M].

    >>> number(np.array([True, True, False]), None), number(np.array([True, True, False]), np.array([4, 4, 2]))
    (2, 1)
    """
    return int(np.count_nonzero(rows if group is None else np.diff(group[rows], prepend=-1)))
