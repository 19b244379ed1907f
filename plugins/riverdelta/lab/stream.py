"""Stream: labelled rows in time order, with their side tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats, Ints


@dataclass(frozen=True)
class SideTable:
    """Facts about the ids of column `key`: `values` float32[R, D] (multi-hot or real), one row for each of `keys` int64[R]."""

    key: str
    keys: Ints
    values: Floats
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """N rows: columns (ids int64[N], scalars float32[N]), labels float32[N] in {0, 1}, times float64[N] in seconds.

    Raises `InvalidInput` if lengths differ, times decrease, or a label is neither 0 nor 1.
    """

    name: str
    columns: Mapping[str, npt.NDArray[Any]]
    label: Floats
    time: npt.NDArray[np.float64]
    tables: Mapping[str, SideTable] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in {**self.columns, "time": self.time}.items():
            if len(array) != len(self.label):
                raise InvalidInput(
                    f"{self.name}: {name!r} has {len(array)} rows and label has {len(self.label)}; expected the same number"
                )
        if (np.diff(self.time) < 0).any():
            row = int(np.argmax(np.diff(self.time) < 0)) + 1
            raise InvalidInput(f"{self.name}: time decreases at row {row}; sort the rows by time")
        if not np.isin(self.label, (0, 1)).all():
            raise InvalidInput(f"{self.name}: a label is {self.label[~np.isin(self.label, (0, 1))][0]}; expected 0 or 1")

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice) -> Stream:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return replace(self, columns=columns, label=self.label[rows], time=self.time[rows])

    def select(self, *names: str) -> Stream:
        """Return the stream with only these columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def halves(self) -> tuple[Stream, Stream]:
        """Return the first and the second half of the rows."""
        middle = len(self) // 2
        return self[:middle], self[middle:]
