"""River: a River pipeline as a correction, learned by River's own `learn_one`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from river.compose import Pipeline, Select
from river.linear_model import LogisticRegression
from river.linear_model.base import GLM
from river.preprocessing import OneHotEncoder, StandardScaler

from riverdelta.core import checked
from riverdelta.core.errors import ConfigurationError, Corrupt, Unsupported
from riverdelta.core.features import Columns, Floats, Ints, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction
from riverdelta.corrections.centred import Limits
from riverdelta.corrections.coefficients import At, Coefficients, Ids
from riverdelta.corrections.rows import offset_key
from riverdelta.river import base
from riverdelta.river.base import Flow, Place, Shape
from riverdelta.river.columns import named, river_names, selected
from riverdelta.river.one_hot_encoder import encoders
from riverdelta.river.snapshot import freeze, thaw, without
from riverdelta.river.unit import Unit

_log = logging.getLogger(__name__)
#: The largest gradient of an example that weighs more than this, and how many `radius` from the offset is divergence.
_CLIP, _DIVERGED = 10.0, 100.0
#: Floats closer to 0 count as 0: float32 tables cannot hold the statistics of smaller ones.
_TINY = float(np.float32(1e-30))


class River(Correction):
    """Learns the residual by a River pipeline and serves it in ONNX, for losses of one output and single rows.

    Parameters
    ----------
    pipeline
        StandardScaler, MinMaxScaler, OneHotEncoder, FeatureHasher, Select, Discard and unions of them, into LogisticRegression
        (log loss only) or LinearRegression, with any optimizer, loss, penalty and schedule of River. It starts untrained: what
        it has learned before is not used. Set `drop_zeros=True` in OneHotEncoder; otherwise River visits every category in each
        row.
    features
        The columns that the pipeline reads. They may be left out if every branch begins with a `compose.Select`.
    slots
        The rows of the table of each id column of a OneHotEncoder, 1 to 2**24. An id may take one of 8 places; one that finds
        all taken is not learned: 1 new category in 1,000 in a table that is a quarter full, 1 in 30 when it is half full
        (`occupancy`). Use four times the number of categories; each row takes 16 bytes.
    offset
        The feature of a row that holds the base's raw output, for `learn_one` and `predict_one`; None if rows have none, and
        then each offset is 0. A service ignores it.

    Raises
    ------
    Unsupported
        If a step or an option of the pipeline cannot be served in ONNX; the message names it.

    Notes
    -----
    River gets an id column as an int, a scalar as a float, and a vector `v` as floats `v_0`, `v_1`, …, row by row, with the
    importance weight; floats from -1e-30 to 1e-30 count as 0. The last step is replaced by a subclass that adds the offset,
    which no scaler changes. LinearRegression lowers any loss by a step of iteratively reweighted least squares
    (`riverdelta.river.offset`). An id that was never learned adds nothing.

    It reads limited numbers (`corrections.centred`). A residual is at most the `reach` of the loss, 30 logits with log loss;
    steps beyond are not taken, and a pipeline 100 times as far has diverged: it starts again, and is logged.

    Examples
    --------
    >>> from river import linear_model, preprocessing
    >>> m = River(preprocessing.StandardScaler() | linear_model.LogisticRegression(), features=("hour",))
    >>> for hour in 4 * list(range(24)):
    ...     m.learn_one({"hour": float(hour), "offset": -1.0}, hour > 12)
    >>> m.predict_proba_one({"hour": 20.0, "offset": -1.0})[True] > m.predict_proba_one({"hour": 4.0, "offset": -1.0})[True]
    True
    """

    def __init__(
        self, pipeline: Any, features: Sequence[str] | None = None, slots: int = 2**16, offset: str | None = "offset"
    ) -> None:
        self.pipeline, self.slots, self.offset = pipeline, checked.slots(slots), offset_key(offset)
        self.features = features if features is None else named(features)
        steps = list(pipeline.steps.values()) if isinstance(pipeline, Pipeline) else [pipeline]
        if not steps or not isinstance(steps[-1], GLM):
            last = type(steps[-1]).__name__ if steps else "nothing"
            raise Unsupported(f"the pipeline ends in {last}; it can end in LogisticRegression or LinearRegression")
        base.check(pipeline)
        if not self.reads:
            raise ConfigurationError('River(...) has no features; name columns, as in River(pipeline, features=("hour",))')

    _unsaved: bool

    since = "limits", *Limits.NAMES, *Unit.NAMES

    @classmethod
    def _unit_test_params(cls):  # type: ignore[no-untyped-def]
        encoded = Select("https") | OneHotEncoder(drop_zeros=True)
        scaled = Select("age_of_domain", "popup_window") | StandardScaler()
        yield {"pipeline": (scaled + encoded) | LogisticRegression()}

    @property
    def reads(self) -> tuple[str, ...]:
        return selected(self.pipeline) if self.features is None else self.features

    @property
    def keys(self) -> tuple[str, ...]:
        return base.find(self.pipeline).keys(self.pipeline, self.reads)[0]

    @property
    def numbers(self) -> tuple[str, ...]:
        # Only an encoder reads ids; every other step reads numbers.
        return tuple(name for name in self.reads if name not in self.keys)

    @property
    def learner(self) -> dict[str, npt.NDArray[Any]]:
        """The pipeline's state, the number of rows it learned and what the limits learned; made on demand, as that is slow."""
        if self._unsaved:
            frozen = {"pipeline": np.frombuffer(freeze(self._model), np.uint8).copy(), "rows": np.array([self._rows])}
            self._learner, self._unsaved = frozen | self._limits.state | self._unit.state, False
        return self._learner

    @learner.setter
    def learner(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._learner, self._unsaved = arrays, False

    def bind(self, schema: Schema) -> None:
        if self.loss.outputs > 1 or self.loss.lists:
            raise Unsupported(f"{self._what()} has one output of single rows, unlike {self.loss}; use Linear or Entity")
        self._columns = Schema({name: schema.need(name, self._what(), "id", "scalar", "vector") for name in self.reads})
        model = base.find(self.pipeline).learner(self.pipeline)
        self._model = model if isinstance(model, Pipeline) else Pipeline((type(self.pipeline).__name__, model))
        names = tuple(n for column in self._columns.values() for n in river_names(column))
        ids = frozenset(name for name, column in self._columns.items() if column.kind == "id")
        self._converter = base.convert(self._model, Shape(names, ids), Place("", self.slots))
        *self._transformers, self._last = self._model.steps.values()
        if isinstance(self._last, LogisticRegression) and not self.loss.logit:
            raise Unsupported(f"{self._what()} cannot lower {self.loss}; end it in LinearRegression")
        self._categories = [c for encoder in encoders(self._model) for c in encoder.tables.values()]
        self._rows, self._restarts, self._stale, self._unsaved = 0, 0, False, True
        self._numeric = tuple(name for name in self._columns if name not in self.keys)
        self._unit, self._limits = Unit(self.loss), Limits(sum(len(river_names(self._columns[name])) for name in self._numeric))
        self.served, self.radius = self._converter.tables | {"limits": self._limits.table}, self.loss.reach
        freeze(self._model)  # refuse now what a checkpoint could not save
        super().bind(schema)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        out[:] = offset
        if self._rows:
            numbers, known = self._limits.apply(self._numbers(columns, len(offset))), self._limits.known
            for i, (x, o) in enumerate(zip(self._dicts(columns, numbers), offset[:, 0].tolist(), strict=True)):
                out[i, 0] = self._predicted(self._raw(x if known else self._ids(x), o), o)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        out = self.room(columns, offset, label, weight, group)
        numbers = self._numbers(columns, len(offset))
        # Numbers that are not finite would stay in the state permanently.
        parts = [offset[:, 0], label, weight, *(columns[name].T for name in self._numeric)]
        learned = (weight != 0.0) & np.isfinite(np.vstack(parts)).all(axis=0)
        start = self._limits.learn(numbers, learned)
        for i, (x, o) in enumerate(zip(self._dicts(columns, numbers), offset[:, 0].tolist(), strict=True)):
            z = self._raw(x if i > start else self._ids(x), o) if self._rows else o
            diverged = bool(learned[i]) and not abs(z - o) < _DIVERGED * self.radius
            out[i, 0] = o if diverged else self._predicted(z, o)
            if not learned[i]:
                continue
            anew = bool(self._unit.state) and self._unit.observe(o, float(label[i]))
            if diverged or anew:
                self._restart(diverged)
                z = o
            y, w = self._last.target(self.loss, z, float(label[i]), self._bounded(float(weight[i]), z, o, float(label[i])))
            self._last.shift = o
            self._rows, self._stale, self._unsaved = self._rows + 1, True, True
            try:
                self._model.learn_one(x if i >= start else self._ids(x), y, w=w)
            except OverflowError:
                self._restart()
        return out

    def _what(self) -> str:
        return f"River({self.pipeline})"

    def _bounded(self, weight: float, raw: float, offset: float, label: float) -> float:
        """Return a weight, limited to a gradient of 10 or that of `unit`; 0 if a residual beyond `radius` would grow."""
        if not self._unit.state and weight <= _CLIP and abs(raw - offset) < self.radius:
            return weight
        gradient = float(self.loss.derivatives(raw, label)[0][0, 0])
        if abs(raw - offset) >= self.radius and gradient * (raw - offset) <= 0:
            return 0.0
        most, least = (self._unit.most(raw, label, weight, _CLIP), 0.0) if self._unit.state else (_CLIP, 1.0)
        return min(weight, max(most / max(abs(gradient), _TINY), least))

    def _predicted(self, raw: float, offset: float) -> float:
        return offset if math.isnan(raw) else min(max(raw, offset - self.radius), offset + self.radius)

    def _raw(self, x: dict[str, Any], offset: float) -> float:
        for step in self._transformers:
            x = step.transform_one(x)
        z: float = self._last.raw_one(x, offset)
        return z

    def _restart(self, diverged: bool = True) -> None:
        self._restarts += diverged
        if diverged and self._restarts & (self._restarts - 1) == 0:  # at restart 1, 2, 4, 8, …
            words = "%s diverged and starts again, untrained (restart %d); scale its inputs or lower its learning rate"
            _log.warning(words, self._what(), self._restarts)
        fresh = self.clone()
        fresh.loss = self.loss
        fresh.bind(self._columns)
        for key, table in self._converter.tables.items():
            table.values[:] = fresh.served[key].values
            table.touched[:] = True
        self.learner = fresh.learner | self._limits.state | self._unit.state
        self.restore()

    def sync(self) -> None:
        if self._stale:
            self._converter.write()
            self._stale = False

    def restore(self) -> None:
        try:
            thaw(self._model, self._learner["pipeline"].tobytes())
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise Corrupt(f"the saved state of {self._what()} cannot be read: {error!r}") from error
        self._rows, self._stale, self._unsaved = int(self._learner["rows"][0]), False, False
        self._limits.restore(self._rows > 0)
        for categories in self._categories:
            categories.reload()

    def coefficients(self) -> dict[str, Coefficients]:
        weights = {"intercept": self._last.intercept, **self._last.weights}

        def find(ids: Ids) -> list[At]:
            # River's key of an encoded id.
            return [At(0, f"{name}_{value}", f"{name}={value}") for name, value in ids.items() if f"{name}_{value}" in weights]

        return {
            "weights": Coefficients(
                tuple(map(str, weights)), np.array([[*weights.values()]], np.float64), np.full(len(weights), np.nan), find=find
            )
        }

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        if name not in self.keys:
            return 0
        self.sync()
        thaw(self._model, without(freeze(self._model), name, own))
        self._unsaved = True
        return sum(categories.remove(own) for categories in self._categories if categories.column == name)

    def occupancy(self) -> dict[str, float]:
        used = {id(one.table): len(one.rows) / self.slots for one in self._categories}
        return {name: used[id(table)] for name, table in self.served.items() if id(table) in used}

    def _numbers(self, columns: Columns, rows: int) -> npt.NDArray[np.float64]:
        """Return the columns that are read as numbers, float64[N, D]; NaN and what is close to 0 are 0."""
        parts = [columns[name].reshape(rows, len(river_names(self._columns[name]))) for name in self._numeric]
        parts = [np.where(np.abs(part) > _TINY, part, np.float32(0)) if part.dtype.kind == "f" else part for part in parts]
        return np.concatenate([np.empty((rows, 0)), *parts], axis=1, dtype=np.float64)

    def _dicts(self, columns: Columns, numbers: npt.NDArray[np.float64]) -> Iterator[dict[str, Any]]:
        """Yield each row as the dict of Python ints and floats that River reads."""
        values, rest = dict[str, list[Any]](), iter(numbers.T.tolist())
        for name, column in self._columns.items():
            if name in self._numeric:
                values |= {part: next(rest) for part in river_names(column)}
            else:
                values[name] = columns[name].tolist()
        for row in zip(*values.values(), strict=True):
            yield dict(zip(values, row, strict=True))

    def _ids(self, x: dict[str, Any]) -> dict[str, Any]:
        """Return a row without its numbers."""
        return {name: x[name] for name in self.keys}

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        blocks, ids, at = list[tuple[tuple[base.Name, ...], str]](), dict[base.Name, str](), 0
        limits = nodes.table("limits", self._limits.table.values) if self._numeric else ""
        for name, column in self._columns.items():
            names, tensor = river_names(column), columns[name]
            if column.kind == "id":
                ids[name] = tensor
            else:
                tensor = nodes.add("Shrink", tensor, lambd=_TINY)  # NaN becomes 0
            if name in self._numeric:
                tensor = self._limits.export(nodes, limits, tensor, at, len(names))
                at += len(names)
            blocks.append((names, tensor))
        (residual,) = self._converter.export(nodes, Flow(tuple(blocks), ids)).terms
        ends = [nodes.constant(np.float32(end)) for end in (-self.radius, self.radius)]
        return nodes.add("Add", offset, nodes.add("Clip", nodes.cast(residual, TensorProto.FLOAT), *ends))
