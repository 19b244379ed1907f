"""Output: the River pipeline of one raw output, with what it serves."""

from __future__ import annotations

from typing import Any

from river.compose import Pipeline

from riverdelta.core.nodes import Nodes
from riverdelta.corrections.table import Table
from riverdelta.river import base
from riverdelta.river.base import Flow, Place, Shape
from riverdelta.river.one_hot_encoder import encoders
from riverdelta.river.snapshot import freeze, thaw, without


class Output:
    """A pipeline that learns the residual of one raw output, and its tables.

    Parameters
    ----------
    pipeline
        The user's pipeline, of which an untrained copy learns.
    shape, place
        The columns, and the position of the pipeline, for the names of its tables.

    Attributes
    ----------
    model
        The pipeline that learns.
    rows
        The rows that the pipeline has learned.
    saved_as
        The name of its saved state.
    """

    def __init__(self, pipeline: Any, shape: Shape, place: Place) -> None:
        self._given = pipeline, shape, place
        model = base.find(pipeline).learner(pipeline)
        self.model = model if isinstance(model, Pipeline) else Pipeline((type(pipeline).__name__, model))
        self._converter = base.convert(self.model, shape, place)
        *self._transformers, self.last = self.model.steps.values()
        self.categories = [table for encoder in encoders(self.model) for table in encoder.tables.values()]
        self.tables: dict[str, Table] = self._converter.tables
        self.saved_as, self.rows, self._stale = place.inside("pipeline").path, 0, False

    def residual(self, x: dict[str, Any]) -> float:
        """Return the residual of a row, 0 before the first example."""
        if not self.rows:
            return 0.0
        for step in self._transformers:
            x = step.transform_one(x)
        found: float = self.last.residual_one(x)
        return found

    def learn(self, x: dict[str, Any], *example: float) -> None:
        """Learn a row; the other arguments are those of the last step's `example`. Raises `OverflowError` as River does."""
        y, w = self.last.example(*example)
        self.rows, self._stale = self.rows + 1, True
        self.model.learn_one(x, y, w=w)

    def start_over(self) -> None:
        """Forget everything learned."""
        fresh = Output(*self._given)
        for key, table in self.tables.items():
            table.put(fresh.tables[key].values)
        self.thaw(fresh.freeze(), 0)

    def freeze(self) -> bytes:
        """Return the pipeline's state; raises `Unsupported` naming what no checkpoint can hold."""
        return freeze(self.model)

    def thaw(self, state: bytes, rows: int) -> None:
        """Restore the pipeline's state beside its tables, after that many rows."""
        thaw(self.model, state)
        self.rows, self._stale = rows, False
        for categories in self.categories:
            categories.reload()

    def sync(self) -> None:
        """Write the pipeline's state into the tables."""
        if self._stale:
            self._converter.write()
            self._stale = False

    def forget(self, name: str, own: int) -> int:
        """Forget an id of the column `name`; return how many rows of tables that is."""
        self.sync()
        thaw(self.model, without(freeze(self.model), name, own))
        return sum(categories.remove(own) for categories in self.categories if categories.column == name)

    def weights(self) -> dict[str, float]:
        """Return the weights by River's keys, and the intercept, in raw outputs."""
        return {"intercept": self.last.level} | {str(key): self.last.weight_of(key) for key in self.last.weights}

    def export(self, nodes: Nodes, flow: Flow) -> str:
        """Append the residual and return its tensor, float64[N, 1]."""
        (residual,) = self._converter.export(nodes, flow).terms
        return residual
