"""Slices: base and served loss and calibration for each declared value of a column."""

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
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id_of
from riverdelta.core.losses import LOG_LOSS, Loss
from riverdelta.core.losses.base import Doubles
from riverdelta.core.losses.kernels import KERNELS
from riverdelta.evaluation.binned import share
from riverdelta.evaluation.measured import Rows, possible

SCORERS = ("base", "served")
OTHER = "other"
#: Each slice adds a series to six metrics, for every worker.
MOST = 32
#: An example's weight halves after this many more examples of its slice.
HALF_LIFE = 5_000
_FADES = 0.5 ** (1.0 / HALF_LIFE)
_WEIGHT, _LABEL, _SCORE, _LOSS = range(4)
_CUBE, _LINE = types.float64[:, :, ::1], types.float64[::1]
_KERNEL = types.void(_CUBE, _LINE, _LINE, types.boolean[::1], types.int64[::1], types.float64, KERNELS, _CUBE, types.int64[::1])


@numba.njit(_KERNEL, cache=True)
def _add(raw, label, weight, good, slices, bound, loss, sums, examples):  # type: ignore[no-untyped-def]
    """Add each row to the sums of its slice, in which older rows decay."""
    prediction, lost = np.empty((1, raw.shape[2])), np.empty(1)
    for i in range(label.shape[0]):
        if not good[i]:
            continue
        w, y = weight[i], label[i]
        examples[slices[i]] += 1
        for s in range(raw.shape[0]):
            loss.predict(raw[s, i : i + 1], prediction)
            loss.value(raw[s, i : i + 1], label[i : i + 1], lost)
            mine = sums[slices[i], s]
            mine *= _FADES
            mine[_WEIGHT] += w
            mine[_LABEL] += w * y
            mine[_SCORE] += w * prediction[0, 0]
            mine[_LOSS] += w * min(lost[0], bound)


class Slices:
    """The loss of base and served outputs for each slice, over its recent examples; with two labels also calibration.

    With a weight w that halves every `HALF_LIFE` examples of the slice: loss = Σ w·loss / Σ w, each loss at most
    `Loss.bound`; calibration_ratio = Σ w·σ(z) / Σ w·y.

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
        self.update(columns, examples.base[rows], examples.served[rows], label, weight)

    def update(
        self,
        columns: Mapping[str, npt.NDArray[np.int64]],
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
    ) -> None:
        """Add N examples: ids by column, raw outputs, labels and weights; rows that are not finite are left out."""
        rows = Rows.of(self.loss, base, served, label, weight)
        for column, values in self._values.items():
            if column in columns:
                which = np.full(len(rows.label), len(values))
                for at, value in enumerate(values.tolist()):
                    which[columns[column] == value] = at
                _add(*rows, which, self.loss.bound, self.loss.kernels, self._sums[column], self._examples[column])

    def report(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """Return {column: {slice: {scorer: {examples, loss, calibration_ratio}}}}; a value whose divisor is 0 is null."""
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
        self._sums = {column: np.zeros((len(names), len(SCORERS), 4)) for column, names in self._names.items()}
        self._examples = {column: np.zeros(len(names), np.int64) for column, names in self._names.items()}

    def _measures(self, examples: int, sums: Doubles) -> dict[str, float | None]:
        weight, label, score, lost = sums.tolist()
        found = {"examples": examples, "loss": share(lost, weight)}
        return found | ({"calibration_ratio": share(score, label)} if self.loss.logit else {})
