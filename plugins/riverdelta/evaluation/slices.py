"""Slices: losses of base and served and a measure of the task for each declared value of a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from riverdelta.core.arrays import Arrays, nest, part, take
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.examples import Examples
from riverdelta.core.features import Ints, Schema
from riverdelta.core.hashing import id_of
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles, Group
from riverdelta.evaluation.binned import share
from riverdelta.evaluation.measured import Rows, possible

SCORERS = ("base", "served")
OTHER = "other"
#: Each slice adds a series to six metrics, for every worker.
MOST = 32
#: An example's weight halves after this many more examples of its slice.
HALF_LIFE = 5_000
_FADES = 0.5 ** (1.0 / HALF_LIFE)
#: Σ weight, Σ label, Σ score (for classes: of rows whose class was predicted), Σ loss and, for numbers, Σ |score - label|.
_WEIGHT, _LABEL, _SCORE, _LOSS, _ERROR = range(5)
_CUBE, _INTS = types.float64[:, :, ::1], types.int64[::1]


@numba.njit(types.void(_CUBE, _INTS, _CUBE, _INTS), cache=True)
def _add(facts, slices, sums, examples):  # type: ignore[no-untyped-def]
    """Add facts[E, S, F] to the sums of their slices, in which older examples decay."""
    for i in range(facts.shape[0]):
        examples[slices[i]] += 1
        for s in range(facts.shape[1]):
            mine = sums[slices[i], s]
            for f in range(facts.shape[2]):
                mine[f] = mine[f] * _FADES + facts[i, s, f]


class Slices:
    """The loss of base and served outputs for each slice, over its recent examples, and a measure of the task.

    With a weight w that halves every `HALF_LIFE` examples of the slice: loss = Σ w·loss / Σ w, each loss at most
    `Loss.bound`; with two labels calibration_ratio = Σ w·σ(z) / Σ w·y; for classes accuracy; for numbers
    bias = Σ w·(prediction - y) / Σ w and mae = Σ w·|prediction - y| / Σ w. A list counts once, in the slice of its first row.

    Parameters
    ----------
    declared
        By id column, the values that are slices; every other value belongs to "other".
    schema
        The columns of the scorer.
    loss
        The loss of the task.

    >>> slices = Slices({"country": ["de", "fr"]}, Schema.of({"country": "int64"}))
    >>> country, one = np.array([id_of("de"), id_of("de"), id_of("us")]), np.float32([1, 1, 1])
    >>> slices.update({"country": country}, np.float32([0, 0, 0]), np.float32([0, 0, 9]), np.float32([0, 1, 1]), one)
    >>> report = slices.report()["country"]
    >>> list(report), report["de"]["base"]["examples"], round(report["de"]["served"]["calibration_ratio"], 4)
    (['de', 'fr', 'other'], 2, 0.9999)
    """

    def __init__(self, declared: Mapping[str, str | int | Sequence[str | int]], schema: Schema, loss: Loss = LOG_LOSS) -> None:
        self.loss = loss
        self._width = 4 if loss.logit or loss.classes or loss.lists else 5
        self._names: dict[str, list[str]] = {}
        self._values: dict[str, npt.NDArray[np.int64]] = {}
        for column, values in declared.items():
            if schema.need(column, "slices").kind != "id":
                raise ConfigurationError(
                    f"slices has the column {column!r}, which is {schema[column]}; expected an id column (int64)"
                )
            listed = [values] if isinstance(values, str | int) else list(values)
            names, ids = [str(value) for value in listed], [id_of(value) for value in listed]
            if not names or None in ids or len({*names, OTHER}) != len(names) + 1 or len(names) > MOST:
                raise ConfigurationError(
                    f"slices has {names!r} for the column {column!r}; expected 1 to {MOST} distinct ids other than {OTHER!r}"
                )
            self._names[column], self._values[column] = [*names, OTHER], np.array(ids, np.int64)
        self._begin()

    @property
    def columns(self) -> tuple[str, ...]:
        """The declared columns."""
        return tuple(self._names)

    def observe(self, examples: Examples) -> None:
        """Observe joined examples."""
        rows, label, weight = examples.measured()
        # A row from before its column was declared belongs to none of its slices.
        columns = {name: examples.columns[name][rows] for name in self._names if name in examples.columns}
        self.update(columns, examples.base[rows], examples.served[rows], label, weight, **examples.lists(rows))

    def update(
        self,
        columns: Mapping[str, npt.NDArray[np.int64]],
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
        group: Group = None,
    ) -> None:
        """Add N rows: ids by column, raw outputs, labels and weights; rows that are not finite are left out.

        `group` int64[N] has the list of each row, for a loss of lists.
        """
        rows = Rows.of(self.loss, base, served, label, weight)
        first, facts = self._facts(rows, group)
        for column, values in self._values.items():
            if column in columns:
                which = np.full(len(rows.label), len(values))
                for at, value in enumerate(values.tolist()):
                    which[columns[column] == value] = at
                _add(facts, which[first], self._sums[column], self._examples[column])

    def report(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """Return {column: {slice: {scorer: {examples, loss, measures of the task}}}}; a value whose divisor is 0 is null."""
        return {
            column: {
                name: {
                    scorer: self._measures(int(self._examples[column][at]), self._sums[column][at, s])
                    for s, scorer in enumerate(SCORERS)
                }
                for at, name in enumerate(names)
            }
            for column, names in self._names.items()
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return the state to save."""
        return nest({c: {"sums": self._sums[c].copy(), "examples": self._examples[c].copy()} for c in self._names})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over if the declared slices differ; raises `Corrupt` if shapes differ.

        A slice whose losses are not `possible` starts over.
        """
        self._begin()
        if set(arrays) != set(self.state()):
            return
        for column in self._names:
            saved = part(arrays, column)
            sums = take(saved, "sums", self._sums[column]).copy()
            sums[~possible(self.loss, sums[..., _LOSS], np.abs(sums[..., _WEIGHT]) + HALF_LIFE)] = 0.0
            self._sums[column], self._examples[column] = sums, take(saved, "examples", self._examples[column]).copy()

    def _begin(self) -> None:
        self._sums = {column: np.zeros((len(names), len(SCORERS), self._width)) for column, names in self._names.items()}
        self._examples = {column: np.zeros(len(names), np.int64) for column, names in self._names.items()}

    def _measures(self, examples: int, sums: Doubles) -> dict[str, float | None]:
        weight, label, score, lost, *error = sums.tolist()
        found = {"examples": examples, "loss": share(lost, weight)}
        if self.loss.logit:
            return found | {"calibration_ratio": share(score, label)}
        if self.loss.classes:
            return found | {"accuracy": share(score, weight)}
        return found | ({"bias": share(score - label, weight), "mae": share(error[0], weight)} if error else {})

    def _facts(self, rows: Rows, group: Group) -> tuple[Ints, Doubles]:
        """Return the first row of each measurable example, and facts float64[E, 2, F]."""
        first, weight, lost = rows.examples(self.loss, group)
        label, facts = rows.label[first], np.zeros((len(first), len(SCORERS), self._width))
        facts[..., _WEIGHT], facts[..., _LABEL], facts[..., _LOSS] = weight[:, None], (weight * label)[:, None], lost.T
        for s, raw in enumerate(rows.raw if not self.loss.lists else ()):
            prediction = self.loss.inverse_link(raw[first])
            score = prediction.argmax(axis=1) == label if self.loss.classes else prediction.mean(axis=1)
            facts[:, s, _SCORE] = weight * score
            if self._width > _ERROR:
                facts[:, s, _ERROR] = weight * np.abs(score - label)
        return first, facts
