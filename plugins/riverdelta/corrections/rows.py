"""The River interface of a correction: `learn_one`, `predict_one` and the others, for dicts and data frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from river.base import MiniBatchClassifier

from riverdelta.core.checked import column, finite
from riverdelta.core.errors import ConfigurationError, InvalidInput, Unsupported, near
from riverdelta.core.features import Column, Columns, Floats, Schema
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.values import is_list

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[Any, Any]


def offset_key(value: Any) -> str | None:
    """Return the option `offset` if it is the name of a column or None; raises `ConfigurationError` otherwise."""
    example = 'Entity("user", offset="score"), or None if there is no base, which makes each offset 0'
    return None if value is None else str(column("offset", value, example))


class RowFaces(MiniBatchClassifier):
    """Makes a correction a River estimator: each row is a dict that holds the offset beside the features.

    A row holds every feature that the correction reads, and the offset unless the correction was made with `offset=None` (each
    offset is then 0). The kind of a column decides what a feature may be:

    - an id (`int64`): a string, or a 64-bit integer;
    - a scalar (`float32`): an integer or a float, finite as float32;
    - a vector (`float32[D]`): a list, a tuple or an array of D such numbers.

    Numpy scalars count as Python numbers. Anything else, such as True, None, NaN, Decimal, a float for an id or a string for a
    number, raises `InvalidInput` with the row and the feature, and nothing of that call is learned. So does a label that `loss`
    does not have. If a loss has no list of labels, `predict_one` and `predict_many` return the prediction itself.

    Notes
    -----
    `bind` decides the kinds, and clones keep them. Without `bind` the first example decides: a string, an entity's key, a
    member of a cross and a lookup's key are ids; a list is a vector; a float, and anything read as a number, is a scalar. An
    integer that could be either raises `ConfigurationError` with the line to write.
    """

    offset: str | None
    loss: Loss = LOG_LOSS
    bind: Callable[[Schema], None]
    predict: Callable[[Columns, Floats], Floats]
    learn: Callable[[Columns, Floats, Floats, Floats], Floats]
    _schema: Schema | None = None
    _multiclass = False

    def _unit_test_skips(self) -> set[str]:
        # These drop features, which is refused by name; the last one also turns ids into floats.
        dropping = {f"check_{kind}_features" for kind in ("emerging", "disappearing", "radically_disappearing")}
        return dropping | {"check_learn_many_matches_learn_one"}

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The names of the columns that the correction reads."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that can only be ids."""
        return ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that can only be numbers: scalars or vectors."""
        return ()

    @property
    def times(self) -> Mapping[str, int]:
        """The columns of Unix seconds, float64, and how many numbers are made of each.

        A service declares them, and fills those that a request leaves out.
        """
        return {}

    def learn_one(self, x: Row, y: Any, w: float = 1.0) -> None:
        """Learn one example.

        Parameters
        ----------
        x
            The features by name, with the offset.
        y
            The label, one of the loss's.
        w
            The importance, at least 0; 0 learns nothing.
        """
        self._learn([x], [y], w)

    def learn_many(self, X: pd.DataFrame, y: pd.Series, w: float = 1.0) -> None:
        """Learn the rows of a frame in order; the result is that of `learn_one` row by row.

        Raises `InvalidInput` if y is a series with another index than X, in another order too.
        """
        rows, index = _rows(X), getattr(y, "index", None)
        # A list has a method of that name.
        if index is not None and not callable(index) and not X.index.equals(index):
            raise InvalidInput(
                f"y has the index {index!r:.80} and X {X.index!r:.80}; expected the same: y.loc[X.index], or, to pair them by "
                f"position, y.to_numpy()"
            )
        self._learn(rows, y, w)

    def predict_proba_one(self, x: Row, **kwargs: Any) -> dict[bool | str | int, float]:
        """Return the probability of each label."""
        return dict(zip(self._labels(), self._probabilities([x])[0].tolist(), strict=True))

    def predict_proba_many(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the probability of each label, one row for each of X."""
        import pandas as pd  # only the methods for data frames need it

        labels = self._labels()
        return pd.DataFrame(dict(zip(labels, self._probabilities(_rows(X)).T, strict=True)), index=X.index)

    def predict_one(self, x: Row, **kwargs: Any) -> Any:
        """Return the most probable label."""
        return self._predictions([x])[0]

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """Return the most probable label of each row."""
        import pandas as pd

        return pd.Series(self._predictions(_rows(X)), index=X.index)

    def _learn(self, rows: Sequence[Row], labels: Any, w: float) -> None:
        label = self.loss.read_labels(labels)
        if label.shape != (len(rows),):
            raise InvalidInput(
                f"there are {len(rows)} rows and labels of shape {list(label.shape)}; expected one label for each row"
            )
        if not finite(w) or w < 0:
            raise InvalidInput(f"w is {w!r}; expected a finite number of at least 0, such as 1.0")
        if not rows:
            return
        schema = self._kinds(rows[0]) if self._schema is None else self._schema
        block = self._block(rows, schema)
        if not self._bound:
            self.bind(schema)
        self.learn(*block, label, np.full(len(rows), w, np.float32))

    @property
    def _bound(self) -> bool:
        return "served" in vars(self)

    def _labels(self) -> list[bool | str | int]:
        """Return the labels as River has them: False and True if there is one output."""
        if self.loss.labels is None:
            raise Unsupported(f"{self.loss} has no list of labels, and so no probabilities; use predict_one")
        return [False, True] if self.loss.outputs == 1 else [int(label) for label in self.loss.labels]

    def _probabilities(self, rows: Sequence[Row]) -> npt.NDArray[np.floating]:
        # Before the first example the residual is 0, whatever the kinds of the columns.
        columns, raw = self._block(rows, self._schema)
        if self._bound and rows:
            raw = self.predict(columns, raw)
        p = self.loss.inverse_link(raw)
        return np.hstack([1.0 - p, p]) if self.loss.labels is not None and self.loss.outputs == 1 else p

    def _predictions(self, rows: Sequence[Row]) -> list[Any]:
        p = self._probabilities(rows)
        if self.loss.labels is None:
            return p[:, 0].tolist()
        labels = self._labels()
        return [labels[at] for at in p.argmax(axis=1)]

    def _block(self, rows: Sequence[Row], schema: Schema | None) -> tuple[dict[str, npt.NDArray[Any]], Floats]:
        """Return the columns and the offsets of rows; without a schema, only check that each column is there."""
        values = {name: [self._value(x, name, i) for i, x in enumerate(rows)] for name in self.reads}
        columns = {name: schema[name].of_values(values[name]) for name in values} if schema is not None else {}
        outputs = self.loss.outputs
        if self.offset is None:
            return columns, np.zeros((len(rows), outputs), np.float32)
        given = [self._value(x, self.offset, i) for i, x in enumerate(rows)]
        if outputs == 1 and not any(map(is_list, given)):
            return columns, Column(self.offset, "float32").of_values(given).reshape(-1, 1)
        return columns, Column(self.offset, "float32", (outputs,)).of_values(given)

    def _value(self, x: Row, name: str, row: int) -> Any:
        if name in x:
            return x[name]
        made, there = type(self).__name__, near(name, map(str, x))
        if name == self.offset:
            raise InvalidInput(
                f"row {row} lacks the offset {name!r}, the base's raw output: {there}; if there is no base, make the "
                f"correction with offset=None, as in {made}(..., offset=None)"
            )
        raise InvalidInput(
            f"row {row} lacks {name!r}, which {made} reads: {there}; if it counts as 0, write {{{name!r}: 0, **x}}"
        )

    def _kinds(self, x: Row) -> Schema:
        """Return the kinds of the columns; raises `ConfigurationError` for one that the row does not decide."""
        found = {name: self._kind(name, self._value(x, name, 0)) for name in self.reads}
        if asked := [name for name, spec in found.items() if spec is None]:
            as_ids, as_numbers = (
                f"correction.bind(Schema.of({ {name: spec or guess for name, spec in found.items()} }))"
                for guess in ("int64", "float32")
            )
            raise ConfigurationError(
                f"{type(self).__name__} cannot tell whether {asked[0]!r} is an id or a number: row 0 has {x[asked[0]]!r}; "
                f"before the first row, write {as_ids} if it is an id, or {as_numbers} if it is a number"
            )
        return Schema.of({name: spec for name, spec in found.items() if spec is not None})

    def _kind(self, name: str, value: Any) -> str | None:
        if name in self.times:
            return "float64"
        if name in self.keys or isinstance(value, str | bytes):
            return "int64"
        if is_list(value) and len(value):
            return f"float32[{len(value)}]"
        if name in self.numbers or not isinstance(value, int | np.integer) or isinstance(value, bool):
            return "float32"
        return None


def _rows(X: pd.DataFrame) -> list[Row]:
    if not hasattr(X, "columns"):
        raise InvalidInput(f"X is a {type(X).__name__}; expected a data frame: pd.DataFrame(X), or learn_one for a dict")
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise InvalidInput(f"the frame has the column {twice!r} twice; expected each column once")
    return X.to_dict("records")
