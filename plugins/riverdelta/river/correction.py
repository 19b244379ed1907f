"""River: a River pipeline as a correction, learned by River's own `learn_one`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
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
from riverdelta.core.losses.base import Doubles
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.base import Correction
from riverdelta.corrections.centred import Limits
from riverdelta.corrections.coefficients import At, Coefficients, Ids, of_output
from riverdelta.corrections.rows import offset_key
from riverdelta.river import base
from riverdelta.river.base import Place
from riverdelta.river.columns import Reader, named, selected
from riverdelta.river.derivatives import Derivatives
from riverdelta.river.output import Output

_log = logging.getLogger(__name__)
#: How many `radius` from the offset is divergence.
_DIVERGED = 100.0


class River(Correction):
    """Learns the residual by a River pipeline and serves it in ONNX, one for each raw output.

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
    importance weight; floats from -1e-30 to 1e-30 count as 0. The last step is replaced by a subclass that learns beside the
    offset, which no scaler changes. LinearRegression lowers any loss by steps of iteratively reweighted least squares
    (`riverdelta.river.offset`), values in a unit of their own (`riverdelta.river.derivatives`). An id that was never learned
    adds nothing.

    With K outputs there are K pipelines, which learn each row in turn: K times the time and the tables. One whose class was
    never a label has learned nothing. The rows of a list are learned with the gradient of the list, and a list without one
    teaches nothing.

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

    additive = True
    since = "limits", *Limits.NAMES, *Derivatives.NAMES

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
        """The pipelines' state, the number of rows each learned, and the rest; made on demand, as that is slow."""
        if self._unsaved:
            frozen = {one.saved_as: np.frombuffer(one.freeze(), np.uint8).copy() for one in self._outputs}
            rows = {"rows": np.array([one.rows for one in self._outputs])}
            self._learner, self._unsaved = frozen | rows | self._limits.state | self._derivatives.state, False
        return self._learner

    @learner.setter
    def learner(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._learner, self._unsaved = arrays, False

    def bind(self, schema: Schema) -> None:
        columns = Schema({name: schema.need(name, self._what(), "id", "scalar", "vector") for name in self.reads})
        self._reader = Reader(columns, self.keys)
        several = self.loss.outputs > 1
        self._outputs = [
            Output(self.pipeline, self._reader.shape, Place(f"{k}" * several, self.slots)) for k in range(self.loss.outputs)
        ]
        if isinstance(self._outputs[0].last, LogisticRegression) and not self.loss.logit:
            raise Unsupported(f"{self._what()} cannot lower {self.loss}; end it in LinearRegression")
        self._restarts, self._unsaved = 0, True
        self._limits = Limits(self._reader.width)
        self._derivatives, self.radius = Derivatives(self.loss), self.loss.reach
        self.served = {name: table for output in self._outputs for name, table in output.tables.items()}
        self.served["limits"] = self._limits.table
        self._outputs[0].freeze()  # refuse now what a checkpoint could not save
        super().bind(schema)

    def predict(self, columns: Columns, offset: Floats) -> Floats:
        out = self.room(columns, offset)
        numbers = self._limits.apply(self._reader.numbers(columns, len(offset)))
        self._serve(self._residuals(self._reader.rows(columns, numbers), self._limits.known), offset, out)
        return out

    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats, group: Ints | None = None) -> Floats:
        out, starts = self.room(columns, offset, label, weight, group), self.loss.starts(len(offset), group, each=True)
        numbers = self._reader.numbers(columns, len(offset))
        # Numbers that are not finite would stay in the state permanently.
        parts = [offset.T, label, weight, *(columns[name].T for name in self._reader.numeric)]
        learned = (weight != 0.0) & np.isfinite(np.vstack(parts)).all(axis=0)
        known = self._limits.learn(numbers, learned, starts)
        rows, residual = self._reader.rows(columns, numbers), np.empty(offset.shape)
        examples, ok = [each.astype(np.float64) for each in (offset, label, weight)], learned.tolist()
        for a, b in pairwise(starts.tolist()):
            xs = list(islice(rows, b - a))
            residual[a:b] = self._residuals(xs, known < a)
            if of := [i for i in range(a, b) if ok[i]]:
                read = [xs[i - a] if known < b else self._reader.ids(xs[i - a]) for i in of]
                self._learn_list(read, residual[of], *(each[of] for each in examples))
        self._serve(residual, offset, out)
        return out

    def _learn_list(
        self, xs: list[dict[str, Any]], residual: Doubles, offset: Doubles, label: Doubles, weight: Doubles
    ) -> None:
        """Learn the rows of a list from their derivatives before any of them is learned."""
        self._unsaved = True
        near = np.abs(residual) < _DIVERGED * self.radius
        if not near.all():
            for far in np.flatnonzero(~near.all(axis=0)):
                self._restart(self._outputs[far])
                residual[:, far] = 0.0
        *derivatives, changed = self._derivatives.learn(offset, offset + residual, label, weight)
        if changed:
            self._measure()
            for output in self._outputs:
                output.start_over()
            residual[:] = 0.0
        arrays = (each.tolist() for each in (*derivatives, residual, offset, label, weight))
        gradient, curvature, residuals, offsets, labels, weights = arrays
        for k, output in enumerate(self._outputs):
            if not any(each[k] for each in gradient):
                continue  # it teaches nothing: no label had this class, or nothing was chosen
            for i, x in enumerate(xs):
                r, g = residuals[i][k], gradient[i][k]
                # A residual beyond the radius does not grow.
                kept = 1.0 if abs(r) < self.radius or g * r > 0.0 else 0.0
                try:
                    output.learn(x, r, g, kept * curvature[i][k], offsets[i][k], labels[i], kept * weights[i])
                except OverflowError:
                    self._restart(output)

    def _what(self) -> str:
        return f"River({self.pipeline})"

    def _residuals(self, rows: Iterable[dict[str, Any]], numbers: bool) -> Doubles:
        """Return the residuals float64[N, K] of rows, of which pipelines read the numbers or the ids alone."""
        read = rows if numbers else map(self._reader.ids, rows)
        found = [[output.residual(x) for output in self._outputs] for x in read]
        return np.array(found, np.float64).reshape(-1, len(self._outputs))

    def _serve(self, residual: Doubles, offset: Floats, out: Floats) -> None:
        """Fill out[N, K] with the raw outputs; without a residual that is the offset, bit for bit."""
        near = np.clip(residual, -self.radius, self.radius)
        out[:] = np.where(np.isnan(near) | (near == 0.0), offset, offset.astype(np.float64) + near)

    def _restart(self, output: Output) -> None:
        self._restarts += 1
        if self._restarts & (self._restarts - 1) == 0:  # at restart 1, 2, 4, 8, …
            words = "%s diverged and starts again, untrained (restart %d); scale its inputs or lower its learning rate"
            _log.warning(words, self._what(), self._restarts)
        output.start_over()

    def _measure(self) -> None:
        """Give pipelines the unit of their residuals."""
        for output in self._outputs:
            output.last.unit = self._derivatives.unit

    def sync(self) -> None:
        for output in self._outputs:
            output.sync()

    def restore(self) -> None:
        for output, rows in zip(self._outputs, self._learner["rows"].tolist(), strict=True):
            try:
                output.thaw(self._learner[output.saved_as].tobytes(), rows)
            except (ValueError, LookupError, AttributeError, TypeError) as error:
                raise Corrupt(f"the saved state of {self._what()} cannot be read: {error!r}") from error
        self._measure()
        self._unsaved = False
        self._limits.restore(any(output.rows for output in self._outputs))

    def coefficients(self) -> dict[str, Coefficients]:
        outputs = len(self._outputs)
        weights = {
            of_output(key, k, outputs): weight for k, one in enumerate(self._outputs) for key, weight in one.weights().items()
        }

        def find(ids: Ids) -> list[At]:
            # River's key of an encoded id.
            titles = {
                of_output(f"{name}_{own}", k, outputs): f"{name}={own}" for name, own in ids.items() for k in range(outputs)
            }
            return [At(0, title, spelled) for title, spelled in titles.items() if title in weights]

        values = np.array([[*weights.values()]], np.float64)
        return {"weights": Coefficients(tuple(weights), values, np.full(len(weights), np.nan), find=find)}

    def forget_id(self, name: str, own: int, rows: Columns) -> int:
        if name not in self.keys:
            return 0
        self._unsaved = True
        return sum(output.forget(name, own) for output in self._outputs)

    def occupancy(self) -> dict[str, float]:
        used = {id(one.table): len(one.rows) / self.slots for output in self._outputs for one in output.categories}
        return {name: used[id(table)] for name, table in self.served.items() if id(table) in used}

    def export(self, nodes: Nodes, columns: dict[str, str], offset: str) -> str:
        flow = self._reader.export(nodes, columns, self._limits)
        residuals = [output.export(nodes, flow) for output in self._outputs]
        residual = residuals[0] if len(residuals) == 1 else nodes.add("Concat", *residuals, axis=1)
        ends = [nodes.constant(np.float32(end)) for end in (-self.radius, self.radius)]
        return nodes.add("Add", offset, nodes.add("Clip", nodes.cast(residual, TensorProto.FLOAT), *ends))
