"""Showings: the rows that were shown and have no label yet, until silence makes negatives of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.features import Ints
from riverdelta.joiner.waiting import requests

#: So many labels are noted before their showings are taken out, and a sixteenth of the showings more.
_LABELS = 4096


class Showings:
    """Rows in the order in which they were shown; 24 bytes each.

    A label is noted first and takes its showing out later, together with others: at the tick that would have made a negative
    of it, or when the state is asked for.

    >>> showings = Showings()
    >>> showings.add(np.array([1, 1]), np.array([5, 6]), np.array([100.0, 101.0]))
    >>> showings.label(np.array([1]), np.array([5]))
    >>> [array.tolist() for array in showings.due(111.0, 10.0)]
    [[1], [6]]
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, npt.NDArray[Any]] = {
            "incarnation": np.empty(0, np.int64),
            "key": np.empty(0, np.int64),
            "time": np.empty(0, np.float64),
        }
        self._added: list[tuple[Ints, Ints, npt.NDArray[np.float64]]] = []
        self._labelled: list[tuple[Ints, Ints]] = []

    @property
    def bytes(self) -> int:
        """Bytes that the rows take."""
        added = sum(array.nbytes for part in (*self._added, *self._labelled) for array in part)
        return added + sum(column.nbytes for column in self._columns.values())

    def add(self, incarnation: Ints, key: Ints, time: npt.NDArray[np.float64]) -> None:
        """Take rows int64[N] of workers int64[N], shown at float64[N] (Unix seconds)."""
        self._added.append((incarnation, key, time))

    def label(self, incarnation: Ints, key: Ints) -> None:
        """Take labels: their rows will not become negatives."""
        self._labelled.append((incarnation, key))

    def due(self, tick: float, window: float) -> tuple[Ints, Ints]:
        """Take out the rows whose window is over at `tick`; return workers and keys of those without a label, in order."""
        self._gather()
        if sum(len(key) for _, key in self._labelled) > _LABELS + len(self._columns["key"]) // 16:
            self._settle()
        ripe = self._columns["time"] + window <= tick
        incarnation, key = self._columns["incarnation"][ripe], self._columns["key"][ripe]
        self._keep(~ripe)
        silent = ~self._has_label(incarnation, key)
        return incarnation[silent], key[silent]

    def within(self, spans: Mapping[int, tuple[int, int]]) -> bool:
        """Return whether a row is of a worker's requests from one to another, both included."""
        self._settle()
        incarnation, request = self._columns["incarnation"], requests(self._columns["key"])
        return any(
            bool(((incarnation == number) & (first <= request) & (request <= last)).any())
            for number, (first, last) in spans.items()
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        self._settle()
        return dict(self._columns)

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned."""
        self._clear()
        self._columns = {name: np.array(arrays[name], column.dtype) for name, column in self._columns.items()}

    def _settle(self) -> None:
        self._gather()
        if self._labelled:
            self._keep(~self._has_label(self._columns["incarnation"], self._columns["key"]))
            self._labelled.clear()

    def _gather(self) -> None:
        if self._added:
            parts = zip(self._columns.values(), *self._added, strict=True)
            self._columns = dict(zip(self._columns, map(np.concatenate, parts), strict=True))
            self._added.clear()

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        self._columns = {name: column[rows] for name, column in self._columns.items()}

    def _has_label(self, incarnation: Ints, key: Ints) -> npt.NDArray[np.bool_]:
        labelled = np.zeros(len(key), np.bool_)
        if self._labelled:
            of, known = map(np.concatenate, zip(*self._labelled, strict=True))
            for number in np.unique(of).tolist():
                mine = np.flatnonzero(incarnation == number)
                labelled[mine] = np.isin(key[mine], known[of == number])
        return labelled
