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
_WEIGHT, _OF, _PART, _LOSS = range(4)
_KERNEL = types.void(*[types.float64[:, :, ::1]] * 2, *[types.int64[::1]] * 2)


@numba.njit(_KERNEL, cache=True)
def _add(facts, sums, slices, examples):  # type: ignore[no-untyped-def]
    """Add facts[N, S, (weight, of, part, loss)] to the sums of each row's slice, in which older rows decay."""
    for i in range(facts.shape[0]):
        examples[slices[i]] += 1
        for s in range(facts.shape[1]):
            mine, w = sums[slices[i], s], facts[i, s, 0]
            mine *= _FADES
            mine[0] += w
            for f in range(1, 4):
                mine[f] += w * facts[i, s, f]


class Slices:
    """The loss of base and served outputs for each slice, over its recent examples; also calibration, or accuracy of classes.

    With a weight w that halves every `HALF_LIFE` examples of the slice: loss = Σ w·loss / Σ w, each loss at most
    `Loss.bound`; calibration_ratio = Σ w·prediction / Σ w·y; accuracy = Σ w·hit / Σ w. The rows of a list may be of several
    slices, so that the loss of lists is here by click or grade, Σ w·loss / Σ w·y.

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
        #: What is reported beside the loss, if anything.
        self._beside = "accuracy" if loss.classes else None if loss.lists or loss.outputs > 1 else "calibration_ratio"
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
        """Add N examples: ids by column, raw outputs, labels, weights and lists; rows that are not finite are left out."""
        rows = Rows.of(self.loss, base, served, label, weight, group)
        facts = self._facts(rows)
        for column, values in self._values.items():
            if column in columns:
                which = np.full(len(rows.label), len(values))
                for at, value in enumerate(values.tolist()):
                    which[columns[column] == value] = at
                _add(facts, self._sums[column], which[rows.good], self._examples[column])

    def report(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """Return {column: {slice: {scorer: {examples, loss, …}}}}; a value whose divisor is 0 is null."""
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

    def _facts(self, rows: Rows) -> Doubles:
        """Return [M, scorer, (weight, of, part, loss)] of the measurable rows; part / of is reported beside the loss."""
        good = rows.good
        raw, label, weight = rows.raw[:, good], rows.label[good], rows.weight[good]
        of, part = label, np.zeros((len(SCORERS), len(label)))
        if self.loss.classes:
            of, part = np.ones(len(label)), (raw.argmax(2) == label).astype(np.float64)
        elif self._beside:
            part = np.stack([self.loss.inverse_link(one)[:, 0] for one in raw])
        elif self.loss.lists:
            weight = weight * label
        lost = rows.losses(self.loss)[:, good]
        if self.loss.lists:
            # A click's share of its grade; a row without one has no weight.
            lost = np.divide(lost, label, out=np.zeros_like(lost), where=label > 0)
        facts = np.empty((len(label), len(SCORERS), 4))
        for f, fact in enumerate((weight[:, None], of[:, None], part.T, lost.T)):
            facts[:, :, f] = fact
        return facts

    def _measures(self, examples: int, sums: Doubles) -> dict[str, float | None]:
        weight, of, mine, lost = sums.tolist()
        found = {"examples": examples, "loss": share(lost, weight)}
        return found | ({self._beside: share(mine, of)} if self._beside else {})
