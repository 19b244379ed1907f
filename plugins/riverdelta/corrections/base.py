"""The contract: a correction maps an offset to a better raw output, and is written once, three ways.

Read this file first. `predict`, `learn` and `export` live side by side in one class, share one kernel, and are held together
by the laws in `riverdelta.checks`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Columns, Floats, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.coefficients import Coefficients
from riverdelta.corrections.rows import RowFaces


class Table:
    """A served table: float32[rows, width], exactly the ONNX initializer, and which rows changed since they were last sent."""

    def __init__(self, values: npt.ArrayLike) -> None:
        self.values: Floats = np.array(values, np.float32, order="C", ndmin=2)
        self.touched: npt.NDArray[np.bool_] = np.zeros(len(self.values), np.bool_)


class Correction(RowFaces):
    """Raw output = offset + residual, with a residual of exactly zero before the first example.

    Every face takes a block of N rows: `columns` (see `core.features`), `offset` float32[N, K], `label` float32[N] and
    `weight` float32[N] (importance, > 0); a raw output is float32[N, K]. K, the labels and what is lowered are those of
    `loss`. A block equals its rows one by one, to the last bit.

    `served` are the tables that score; `learner` holds everything else that learning needs, each array changed in place.
    Both are made by `bind` and together are the complete state.
    """

    offset: str
    served: dict[str, Table]
    learner: dict[str, npt.NDArray[Any]]

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The names of the columns that it reads."""

    @abstractmethod
    def bind(self, schema: Schema) -> None:
        """Check the columns it reads against `schema` and make fresh tables for `loss`; raises `ConfigurationError`."""

    @abstractmethod
    def predict(self, columns: Columns, offset: Floats) -> Floats:
        """Return each row's raw output."""

    @abstractmethod
    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats:
        """Learn the rows in order and return each row's raw output before its own update."""

    @abstractmethod
    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        """Append ONNX nodes that compute `predict` and return the name of its tensor, float32[N, K].

        `columns` maps each column to its tensor in the graph; tables enter by `nodes.table`, under their names in `served`.
        """

    def widen(self, keep: float) -> None:
        """Keep the share `keep` of what makes coefficients sure: they stay, and the next examples move them more.

        Nothing happens where a correction has no such belief.
        """

    def sync(self) -> None:
        """Write the learner's state into `served`, where learning does not do so with every update."""

    def restore(self) -> None:
        """Rebuild what is derived from `served` and `learner`, after both were loaded from a checkpoint."""

    def coefficients(self) -> dict[str, Coefficients]:
        """Return what was learned as named coefficients, by table, for people to read."""
        return {key: Coefficients.unnamed(table.values) for key, table in self.served.items()}

    def occupancy(self) -> dict[str, float]:
        """Return the used share of each hashed table, 0 to 1."""
        return {}
