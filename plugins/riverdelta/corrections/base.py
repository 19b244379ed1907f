"""The contract: a correction maps an offset to a better raw output, and is written once, three ways.

Read this file first. `predict`, `learn` and `export` live side by side in one class, share one kernel, and are held together
by the laws in `riverdelta.checks`.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from contextlib import suppress
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError
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
    #: The name that `named` gave it within its stack.
    own_name: str | None = None
    #: The options that its maker named; the others have the defaults of the library, of which a home keeps its own.
    given: frozenset[str] = frozenset()
    #: Options that change nothing of what is learned: a home stays the same whatever they are.
    incidental: ClassVar[tuple[str, ...]] = ("offset",)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # What is left out goes without a name here, and what does not fit is for `__init__` to refuse.
        with suppress(TypeError):
            self.given = frozenset(inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments)
        return self

    def named(self, name: str) -> Self:
        """Return this correction, which saved state, tables and `riverdelta diff` know as `name` from now on.

        Without it a stack makes a name of the class and the key, and counts those that are alike: `entity_user_id_2`. Raises
        `ConfigurationError` where `name` is not 1 to 64 letters, digits, `_`, `-` and `.`.

        >>> from riverdelta.corrections.calibration import Calibration
        >>> Calibration().named("slow").clone().own_name
        'slow'
        """
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ConfigurationError(f"name is {name!r}; expected 1 to 64 letters, digits, '_', '-' and '.', such as 'slow'")
        self.own_name = name
        return self

    def clone(self, new_params: dict[str, Any] | None = None, include_attributes: bool = False) -> Self:
        """Return a fresh correction of the same parameters and name."""
        fresh: Self = super().clone(new_params, include_attributes)
        fresh.own_name, fresh.given = self.own_name, self.given.union(new_params or ())
        return fresh

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

    def inflate(self, keep: float) -> None:
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
