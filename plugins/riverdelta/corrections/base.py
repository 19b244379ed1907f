"""The contract of a correction. Read this file first.

A correction has `predict`, `learn` and `export` in one class. They compute the same function, which the laws in
`riverdelta.checks` verify.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, Unbound
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.checked import check_fits, checked_bind
from riverdelta.corrections.coefficients import Coefficients
from riverdelta.corrections.rows import RowFaces
from riverdelta.corrections.table import Table

#: Names of other parts of the merged model.
_RESERVED = ("gate", "tap")


class Correction(RowFaces):
    """Adds a learned residual to a raw output; before the first example the residual is exactly zero.

    A subclass implements `reads`, `bind`, `predict`, `learn` and `export`; `Calibration` is the smallest example. It stores
    each constructor option in an attribute of the same name, which is how clones and a home's definition know it.

    Attributes
    ----------
    served
        The tables that score, by name. `bind` makes them; after that they are the same objects, written in place.
    learner
        Everything else that learning needs, as arrays by name. `served` and `learner` are the complete state.
    loss
        The loss that learning lowers. It gives the number of outputs K and the labels; a stack sets it before `bind`.
    radius
        The bound on an ordinary row's residual for each number that the correction reads, in raw outputs; where the loss is in
        the label's unit, in units of s (`corrections.evidence`).
    own_name
        The name within the stack, set by `named`.
    given
        The options that the constructor call named. The others have the library's defaults, which a home records.
    incidental
        Options that do not affect learning, so that a home accepts any value of them.
    additive
        Whether the residual does not depend on the offset. Lists whose rows were not examined alike are then learned with less
        noise (`Stack.learn`).
    since
        Names of tables and arrays that older saved states lack: arrays then load as zeros, and `restore` makes the tables. The
        graph of an older release ignores such a table.
    grows
        Names of tables and arrays that grow by need (see below).

    Notes
    -----
    A block has N rows: `columns` (see `core.features`), `offset` float32[N, K], `label` float32[N] and `weight` float32[N]
    (importance, >= 0). A raw output is float32[N, K]. `riverdelta.checks` has a law for each of these rules:

    - Learning a block equals learning its rows one by one, to the last bit; the same rows always give the same state.
    - `predict` and `learn` refuse a block with an array that is missing or does not fit, before they learn any of it (`room`).
    - Only `learn` changes raw outputs. `inflate` changes only how much later examples move them.
    - No method writes into an array that it was given, or keeps one, or keeps one that it returned. Clones share nothing.
    - A row of weight 0, or with a number that is not finite, changes nothing.
    - After rows with any finite numbers, an ordinary row's residual is within `radius` for each number read, any finite row's
      within four times that, and ordinary rows are still learned.
    - A few rows of absurd numbers or offsets, wherever they come, the first row included, leave other rows nearly the loss that
      they have without them.
    - An output whose class was never a learned label is the offset. Where the loss is in the label's unit, another unit of
      labels and offsets is another unit of residuals. What is the same for a list teaches nothing.

    A table may grow while the service runs, so that it only has the rows that are used (`corrections.growing.Growing` does all
    of this):

    - `bind` makes it as `Table(values, slots=most)`; `grows` names it, and the arrays in `learner` that have the same rows.
    - `learn` sets `values` and `touched` to longer arrays. Rows come at the end and begin as zeros; none moves or goes.
    - `export` adds it by `nodes.table(..., grows=True)`: its first dimension is symbolic. Another table says which row to read.
    - `saved` may leave out what `restore` makes, and order the rows, as state is compared across restarts.
    """

    served: dict[str, Table]
    learner: dict[str, npt.NDArray[Any]]
    radius: float = 8.0
    own_name: str | None = None
    given: frozenset[str] = frozenset()
    _learned = False
    incidental: ClassVar[tuple[str, ...]] = ("offset",)
    additive: ClassVar[bool] = False
    since: ClassVar[tuple[str, ...]] = ()
    grows: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "bind" in vars(cls):
            cls.bind = checked_bind(cls.bind)  # type: ignore[method-assign]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        # `__init__` reports arguments that do not fit.
        with suppress(TypeError):
            self.given = frozenset(inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments)
        return self

    def named(self, name: str) -> Self:
        """Name this correction and return it; without a name, its stack makes one from class and key, as `entity_user_id`.

        Parameters
        ----------
        name
            How saved state, tables and `riverdelta diff` identify it: 1 to 64 letters, digits, `_`, `-` and `.`, beginning with
            a letter or a digit. Set it when a stack has two corrections of one class and key: without names they become
            `entity_user_id_1` and `entity_user_id_2`, and reordering them would exchange their state.

        Raises
        ------
        ConfigurationError
            If the name is not valid, or is the name of another part of the merged model.

        >>> from riverdelta.corrections.calibration import Calibration
        >>> Calibration().named("slow").clone().own_name
        'slow'
        """
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or name in _RESERVED:
            raise ConfigurationError(
                f"name is {name!r}; expected 1 to 64 letters, digits, '_', '-' and '.' that begin with a letter or a digit, "
                f"other than {' and '.join(map(repr, _RESERVED))}: .named('slow')"
            )
        self.own_name = name
        return self

    def clone(self, new_params: dict[str, Any] | None = None, include_attributes: bool = False) -> Self:
        """Return an untrained correction with the same options, name and kinds of columns."""
        fresh: Self = super().clone(new_params, include_attributes)
        fresh.own_name, fresh._schema, fresh.given = self.own_name, self._schema, self.given.union(new_params or ())
        return fresh

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # `bind` makes the tables, and private attributes beside them.
            if "served" not in vars(self) and (name in ("served", "learner") or re.match(r"_(?!_)", name)):
                raise self._unbound(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _unbound(self, lacks: str) -> Unbound:
        return Unbound(
            f"{type(self).__name__} has no {lacks!r}: it is not bound to columns; bind it first, with "
            f"correction.bind(Schema.of({{'user': 'int64', 'hour': 'float32'}})), or its stack with stack.bind(...)"
        )

    @abstractmethod
    def bind(self, schema: Schema) -> None:
        """Make fresh tables for `loss` and the columns of `schema`.

        A subclass ends with `super().bind(schema)`, which records the kinds of the columns for `learn_one` and `predict_one`.

        Parameters
        ----------
        schema
            The columns of the scorer, at least those in `reads`.

        Raises
        ------
        ConfigurationError
            If a column is missing or has a kind that the correction cannot use, or if the correction has learned from examples.
        """
        self._schema = Schema({name: schema.need(name, type(self).__name__) for name in self.reads})

    @abstractmethod
    def predict(self, columns: Columns, offset: Floats) -> Floats:
        """Return each row's raw output, float32[N, K]."""

    @abstractmethod
    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        """Learn the rows in order and return each row's raw output from before its own update, float32[N, K].

        Parameters
        ----------
        group
            The list of each row, int64[N], only given with (and needed for) a loss of `lists`; by default one list. The raw
            outputs of a list are from before any of it is learned, and `loss.derivatives` takes all of its rows at once.
        """

    @abstractmethod
    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        """Append ONNX nodes that compute `predict` and return the name of its tensor, float32[N, K].

        Parameters
        ----------
        nodes
            The graph. Add each served table by `nodes.table`, under its name in `served`.
        columns
            The tensor of each column.
        offset
            The tensor of the offset, float32[N, K].
        """

    def room(
        self,
        columns: Columns,
        offset: Floats,
        label: Floats | None = None,
        weight: Floats | None = None,
        group: Ints | None = None,
    ) -> Floats:
        """Check a block and return an empty array for its raw outputs; raises `InvalidInput` naming what does not fit."""
        if self._schema is None:
            raise self._unbound("columns")
        rows = len(offset)
        self._schema.fits(columns, rows)
        check_fits("offset", offset, (rows, self.loss.outputs))
        if label is not None and weight is not None:
            check_fits("label", label, (rows,))
            check_fits("weight", weight, (rows,))
            if group is not None:
                check_fits("group", group, (rows,), np.int64)
            self._learned |= rows > 0
        return np.empty_like(offset)

    def inflate(self, keep: float) -> None:
        """Inflate the uncertainty of the coefficients: raw outputs stay as they are, and the next examples move them more.

        Parameters
        ----------
        keep
            The share of the certainty that remains, 0 to 1. A correction without a measure of certainty ignores it.
        """

    def sync(self) -> None:
        """Write the learner's state into `served`, if `learn` does not do so itself; raw outputs stay as they are."""

    def saved(self) -> dict[str, Mapping[str, npt.NDArray[Any]]]:
        """Return the arrays of `served` and `learner` to save, by default all of them, the live ones."""
        return {"served": {key: table.values for key, table in self.served.items()}, "learner": self.learner}

    def restore(self) -> None:
        """Rebuild what is derived from `served` and `learner`, after both have been loaded."""

    def coefficients(self) -> dict[str, Coefficients]:
        """Return the learned coefficients with their names, by table, for `riverdelta diff`."""
        return {key: Coefficients.unnamed(table.values) for key, table in self.served.items()}

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        """Reset the coefficients that belong to one id; return how many rows of tables that is.

        `riverdelta forget` calls it. A correction without coefficients of single ids inherits it.

        Parameters
        ----------
        name
            An id column.
        own
            The id in that column.
        rows
            The id columns, int64[N] each, of the rows that the journal had with this id: of a cross, the coefficients of these
            combinations belong to it too. They may have 0 rows.

        Notes
        -----
        Afterwards the id has the outputs of one that was never learned, and learns as fast. Whatever it shares a slot with is
        reset too; what all rows share stays as it is.
        """
        return 0

    def occupancy(self) -> dict[str, float]:
        """Return the used share of each hashed table, 0 to 1."""
        return {}
