"""River's faces of a correction: dicts and data frames in, one-row blocks out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from river.base import MiniBatchClassifier

from riverdelta.core.features import Column, Columns, Floats, Schema
from riverdelta.core.link import sigmoid

if TYPE_CHECKING:
    import pandas as pd

_EMPTY: dict[str, Any] = {"id": 0, "scalar": 0.0}


class RowFaces(MiniBatchClassifier):
    """A block learner as an honest River classifier: the offset is one feature of `x`, with a fixed coefficient of 1.

    Where no schema was bound, the first example that is learned decides each feature's kind: integers and strings are ids
    (as are the columns in `keys`), floats scalars, arrays vectors. A feature that is absent is 0, as in River's own linear
    models.
    """

    offset: str
    _schema: Schema | None = None
    _multiclass = False

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]: ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that can only be ids."""
        return ()

    @abstractmethod
    def bind(self, schema: Schema) -> None: ...

    @abstractmethod
    def predict(self, columns: Columns, offset: Floats) -> Floats: ...

    @abstractmethod
    def learn(self, columns: Columns, offset: Floats, label: Floats, weight: Floats) -> Floats: ...

    def learn_one(self, x: Mapping[Any, Any], y: Any, w: float = 1.0) -> None:
        """Learn one example: features `x` (the offset among them), a boolean label, an importance."""
        columns, offset = self._learned_block([x])
        self.learn(columns, offset, np.array([bool(y)], np.float32), np.array([w], np.float32))

    def predict_proba_one(self, x: Mapping[Any, Any], **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the probability of each label."""
        p = float(self._probabilities([x])[0])
        return {False: 1.0 - p, True: p}

    def learn_many(self, X: pd.DataFrame, y: pd.Series, w: float = 1.0) -> None:
        """Learn a frame of examples, in order; the result is that of `learn_one` row by row."""
        columns, offset = self._learned_block(X.to_dict("records"))
        self.learn(columns, offset, y.to_numpy().astype(np.float32), np.full(len(X), w, np.float32))

    def predict_proba_many(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the probability of each label, a row each."""
        import pandas as pd  # River's data-frame faces are the only ones that need it

        p = self._probabilities(X.to_dict("records")) if len(X) else np.empty(0)
        return pd.DataFrame({False: 1.0 - p, True: p}, index=X.index)

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """Return the likelier label, a row each."""
        return self.predict_proba_many(X)[True] > 0.5

    def _probabilities(self, rows: Sequence[Mapping[Any, Any]]) -> npt.NDArray[np.floating]:
        logits = self.predict(*self._block(rows)) if self._schema is not None else self._offsets(rows)
        return sigmoid(logits)[:, 0]

    def _learned_block(self, rows: Sequence[Mapping[Any, Any]]) -> tuple[dict[str, npt.NDArray[Any]], Floats]:
        if self._schema is None:
            self._schema = Schema({name: self._guess(name, rows[0].get(name)) for name in self.reads})
            self.bind(self._schema)
        return self._block(rows)

    def _block(self, rows: Sequence[Mapping[Any, Any]]) -> tuple[dict[str, npt.NDArray[Any]], Floats]:
        return {name: self._column(name, rows) for name in self.reads}, self._offsets(rows)

    def _offsets(self, rows: Sequence[Mapping[Any, Any]]) -> Floats:
        return np.array([[row.get(self.offset, 0.0)] for row in rows], np.float32)

    def _column(self, name: str, rows: Sequence[Mapping[Any, Any]]) -> npt.NDArray[Any]:
        assert self._schema is not None
        column = self._schema[name]
        empty = _EMPTY.get(column.kind, np.zeros([n or 0 for n in column.shape], np.float32))
        values = [row.get(name, empty) for row in rows]
        if column.kind == "id":
            values = [v if isinstance(v, str) else int(v) for v in values]
        return column.check(values)

    def _guess(self, name: str, value: Any) -> Column:
        if isinstance(value, np.ndarray | list | tuple):
            return Column(name, "float32", (len(value),))
        if name in self.keys or (isinstance(value, str | int | np.integer) and not isinstance(value, bool)):
            return Column(name, "int64")
        return Column(name, "float32")
