"""Slices: base and served loss and calibration, apart for the values of a declared column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.log_loss import log_loss, possible, score

SCORERS = ("base", "served")
OTHER = "other"
#: A slice more is a series more in six metrics, for each worker.
MOST = 32
#: An example counts half after so many more of its slice.
HALF_LIFE = 5_000
_FADES = 0.5 ** (1.0 / HALF_LIFE)
_WEIGHT, _LABEL, _SCORE, _LOSS = range(4)
_KERNEL = "void(int64[::1], float32[::1], float32[::1], float32[::1], float32[::1], int64[::1], float64[:, :, ::1], int64[::1])"


@numba.njit(_KERNEL, cache=True)
def _add(ids, base, served, label, weight, values, sums, examples):  # type: ignore[no-untyped-def]
    for i in range(ids.shape[0]):
        w, y = np.float64(weight[i]), np.float64(label[i])
        if not abs(w) + abs(base[i]) + abs(served[i]) < np.inf or (y != 0.0 and y != 1.0):
            continue
        at = 0
        while at < values.shape[0] and values[at] != ids[i]:
            at += 1
        examples[at] += 1
        for s in range(2):
            z = np.float64(base[i] if s == 0 else served[i])
            mine = sums[at, s]
            mine *= _FADES
            mine[_WEIGHT] += w
            mine[_LABEL] += w * y
            mine[_SCORE] += w * score(z)
            mine[_LOSS] += w * log_loss(z, y)


class Slices:
    """Log loss and calibration ratio of both scorers by slice, over each slice's recent examples.

    `declared` names id columns and of each the values that are slices; every other value belongs to "other". With a weight w
    that halves every `HALF_LIFE` examples of the slice: log loss = Σ w·loss / Σ w in nats, each loss at most `log_loss.BOUND`;
    calibration = Σ w·σ(z) / Σ w·y.

    >>> slices = Slices({"country": ["de", "fr"]}, Schema.of({"country": "int64"}))
    >>> country, one = np.array([id64("de"), id64("de"), id64("us")]), np.float32([1, 1, 1])
    >>> slices.update({"country": country}, np.float32([0, 0, 0]), np.float32([0, 0, 9]), np.float32([0, 1, 1]), one)
    >>> report = slices.report()["country"]
    >>> list(report), report["de"]["base"]["examples"], round(report["de"]["served"]["calibration_ratio"], 4)
    (['de', 'fr', 'other'], 2, 0.9999)
    """

    def __init__(self, declared: Mapping[str, Sequence[str | int]], schema: Schema) -> None:
        self._names: dict[str, list[str]] = {}
        self._values: dict[str, npt.NDArray[np.int64]] = {}
        for column, values in declared.items():
            if schema.need(column, "slices").kind != "id":
                raise ConfigurationError(f"slices has the column {column!r}, which is {schema[column]}; expected an id column")
            names = [str(value) for value in values]
            if not names or len({*names, OTHER}) != len(names) + 1 or len(names) > MOST:
                raise ConfigurationError(
                    f"slices has {names!r} for the column {column!r}; expected 1 to {MOST} values, each once, none {OTHER!r}"
                )
            ids = np.array([id64(value) if isinstance(value, str) else int(value) for value in values], np.int64)
            self._names[column], self._values[column] = [*names, OTHER], ids
        self._reset()

    @property
    def columns(self) -> tuple[str, ...]:
        """The declared columns."""
        return tuple(self._names)

    def saw(self, examples: Examples) -> None:
        """Take joined examples."""
        rows, label, weight = examples.measured()
        # A row of before a column was declared is none of its slices.
        columns = {name: examples.columns[name][rows] for name in self._names if name in examples.columns}
        self.update(columns, examples.base[rows, 0], examples.served[rows, 0], label, weight)

    def update(
        self,
        columns: Mapping[str, npt.NDArray[np.int64]],
        base: npt.ArrayLike,
        served: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
    ) -> None:
        """Take N examples: the columns' ids, logits, labels 0 or 1 and weights; a row that is not finite is left out."""
        b, s, y, w = (np.ascontiguousarray(a, np.float32) for a in (base, served, label, weight))
        for column, values in self._values.items():
            if column in columns:
                ids = np.ascontiguousarray(columns[column], np.int64)
                _add(ids, b, s, y, w, values, self._sums[column], self._examples[column])

    def report(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """Return {column: {slice: {scorer: {examples, log_loss, calibration_ratio}}}}; None without a divisor."""
        return {
            column: {name: self._measures(column, at) for at, name in enumerate(names)} for column, names in self._names.items()
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        sums = {f"{column}/sums": array.copy() for column, array in self._sums.items()}
        return sums | {f"{column}/examples": array.copy() for column, array in self._examples.items()}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; begin anew where other slices were declared; raises `Corrupt` at other shapes.

        A slice whose losses are not `possible` begins anew.
        """
        self._reset()
        if set(arrays) != set(self.state()):
            return
        for column in self._names:
            sums, examples = arrays[f"{column}/sums"], arrays[f"{column}/examples"]
            if sums.shape != self._sums[column].shape or examples.shape != self._examples[column].shape:
                raise Corrupt(f"the saved slices of {column!r} are {sums.shape}; expected {self._sums[column].shape}")
            self._sums[column][...], self._examples[column][...] = sums, examples
            self._sums[column][~possible(sums[..., _LOSS], np.abs(sums[..., _WEIGHT]) + HALF_LIFE)] = 0.0

    def _reset(self) -> None:
        self._sums = {column: np.zeros((len(names), len(SCORERS), 4)) for column, names in self._names.items()}
        self._examples = {column: np.zeros(len(names), np.int64) for column, names in self._names.items()}

    def _measures(self, column: str, at: int) -> dict[str, dict[str, float | None]]:
        found: dict[str, dict[str, float | None]] = {}
        for scorer, sums in zip(SCORERS, self._sums[column][at], strict=True):
            found[scorer] = {
                "examples": int(self._examples[column][at]),
                "log_loss": _ratio(sums[_LOSS], sums[_WEIGHT]),
                "calibration_ratio": _ratio(sums[_SCORE], sums[_LABEL]),
            }
        return found


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below > 0 and math.isfinite(above) else None
