"""Stream: labelled rows in time order, with their side tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats, Ints
from riverdelta.core.losses import LOG_LOSS, Loss


@dataclass(frozen=True)
class SideTable:
    """Facts about the ids of column `key`: `values` float32[R, D] (multi-hot or real), one row for each of `keys` int64[R]."""

    key: str
    keys: Ints
    values: Floats
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """N rows of a log in time order: columns as a request has them, labels float32[N], times float64[N] in seconds.

    Parameters
    ----------
    name
        What errors call it.
    columns
        Columns of requests: ids, numbers and vectors.
    label
        The labels as `loss` codes them.
    time
        When each row was scored, in seconds, ascending.
    tables
        Facts about ids, by name.
    loss
        The loss of the task, which says which labels are valid.
    group
        For a loss of lists the list of each row, int64[N]; rows of one list are adjacent.
    propensity
        For a loss of lists the probability that the row was examined, float32[N] (default: none is known).

    Raises
    ------
    InvalidInput
        If lengths differ, times decrease, or a label is invalid.
    """

    name: str
    columns: Mapping[str, npt.NDArray[Any]]
    label: Floats
    time: npt.NDArray[np.float64]
    tables: Mapping[str, SideTable] = field(default_factory=dict)
    loss: Loss = LOG_LOSS
    group: Ints | None = None
    propensity: Floats | None = None

    def __post_init__(self) -> None:
        for name, array in {**self.columns, **self._rows()}.items():
            if len(array) != len(self.label):
                raise InvalidInput(
                    f"{self.name}: {name!r} has {len(array)} rows and label has {len(self.label)}; expected the same number"
                )
        if (np.diff(self.time) < 0).any():
            row = int(np.argmax(np.diff(self.time) < 0)) + 1
            raise InvalidInput(f"{self.name}: time decreases at row {row}; sort the rows by time")
        self.loss.check_labels(self.label, f"{self.name}: row")

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Stream:
        columns = {name: column[rows] for name, column in self.columns.items()}
        kept: dict[str, Any] = {name: array[rows] for name, array in self._rows().items()}
        return replace(self, columns=columns, **kept)

    def _rows(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays with one value for each row, besides the columns."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}

    def select(self, *names: str) -> Stream:
        """Return the stream with only these columns."""
        return replace(self, columns={name: self.columns[name] for name in names})

    def halves(self) -> tuple[Stream, Stream]:
        """Return the first and the second half of the rows."""
        middle = len(self) // 2
        return self[:middle], self[middle:]
