"""River's faces of a correction: dicts and data frames in, one-row blocks out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from river.base import MiniBatchClassifier

from riverdelta.core.errors import Unsupported
from riverdelta.core.features import Column, Columns, Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss

if TYPE_CHECKING:
    import pandas as pd

_EMPTY: dict[str, Any] = {"id": 0, "scalar": 0.0}


class RowFaces(MiniBatchClassifier):
    """A block learner as an honest River estimator: the offset is one feature of `x`, with a fixed coefficient of 1.

    Where no schema was bound, the first example that is learned decides each feature's kind: integers and strings are ids
    (as are the columns in `keys`), floats scalars, arrays vectors. A feature that is absent is 0, as in River's own linear
    models. Labels are those of `loss`; another raises `InvalidInput`. Where a loss has no list of labels, `predict_one` and
    `predict_many` return the prediction itself.
    """

    offset: str
    #: The loss that is lowered; a stack sets it before `bind`.
    loss: Loss = LOG_LOSS
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
        """Learn one example: features `x` (the offset among them), a label, an importance."""
        self._learn([x], [y], w)

    def learn_many(self, X: pd.DataFrame, y: pd.Series, w: float = 1.0) -> None:
        """Learn a frame of examples, in order; the result is that of `learn_one` row by row."""
        self._learn(X.to_dict("records"), y, w)

    def predict_proba_one(self, x: Mapping[Any, Any], **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the probability of each label."""
        return dict(zip(self._labels(), self._probabilities([x])[0].tolist(), strict=True))

    def predict_proba_many(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the probability of each label, a row each."""
        import pandas as pd  # River's data-frame faces are the only ones that need it

        labels = self._labels()
        p = self._probabilities(X.to_dict("records"))
        return pd.DataFrame(dict(zip(labels, p.T, strict=True)), index=X.index)

    def predict_one(self, x: Mapping[Any, Any], **kwargs: Any) -> Any:
        """Return the likeliest label."""
        return self._predictions([x])[0]

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """Return the likeliest label, a row each."""
        import pandas as pd

        return pd.Series(self._predictions(X.to_dict("records")), index=X.index)

    def _learn(self, rows: Sequence[Mapping[Any, Any]], labels: Any, w: float) -> None:
        label = self.loss.check_labels(labels)
        if self._schema is None:
            self._schema = Schema({name: self._guess(name, rows[0].get(name)) for name in self.reads})
            self.bind(self._schema)
        self.learn(*self._block(rows), label, np.full(len(rows), w, np.float32))

    def _labels(self) -> list[bool | str | int]:
        """River's labels: False and True where there is one output."""
        if self.loss.labels is None:
            raise Unsupported(f"{self.loss} has no list of labels, and so no probability of each; ask for predict_one")
        return [False, True] if self.loss.outputs == 1 else [int(label) for label in self.loss.labels]

    def _probabilities(self, rows: Sequence[Mapping[Any, Any]]) -> npt.NDArray[np.floating]:
        raw = self.predict(*self._block(rows)) if self._schema is not None and rows else self._offsets(rows)
        p = self.loss.inverse_link(raw)
        return np.hstack([1.0 - p, p]) if self.loss.labels is not None and self.loss.outputs == 1 else p

    def _predictions(self, rows: Sequence[Mapping[Any, Any]]) -> list[Any]:
        p = self._probabilities(rows)
        if self.loss.labels is None:
            return p[:, 0].tolist()
        labels = self._labels()
        return [labels[at] for at in p.argmax(axis=1)]

    def _block(self, rows: Sequence[Mapping[Any, Any]]) -> tuple[dict[str, npt.NDArray[Any]], Floats]:
        return {name: self._column(name, rows) for name in self.reads}, self._offsets(rows)

    def _offsets(self, rows: Sequence[Mapping[Any, Any]]) -> Floats:
        outputs = self.loss.outputs
        return np.array([np.broadcast_to(row.get(self.offset, 0.0), outputs) for row in rows], np.float32).reshape(-1, outputs)

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
