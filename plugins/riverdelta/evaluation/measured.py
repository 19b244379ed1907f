"""Measured: the rows that every measure of losses takes, and sums of them that do not depend on block sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Ints
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles, Group


class Rows(NamedTuple):
    """N rows: raw outputs of two scorers float64[2, N, K], labels and weights float64[N], and which rows are measurable.

    A row is measurable if its raw outputs and weight are finite and its label is valid.
    """

    raw: Doubles
    label: Doubles
    weight: Doubles
    good: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, loss: Loss, first: npt.ArrayLike, second: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike) -> Rows:
        """Return the rows given; raises `InvalidInput` if lengths differ."""
        given = [np.asarray(one) for one in (first, second, label, weight)]
        rows = len(given[0])
        if len(given[1]) != rows or not given[2].shape == given[3].shape == (rows,):
            shapes = ", ".join(str(list(one.shape)) for one in given)
            raise InvalidInput(
                f"two raw outputs, label and weight have shapes {shapes}; expected the same length N for all four"
            )
        raw, (labels, weights) = np.empty((2, rows, loss.outputs)), np.empty((2, rows))
        for out, one in zip((raw[0], raw[1], labels, weights), given, strict=True):
            out[...] = one.reshape(out.shape)
        good = np.logical_and.reduce(np.isfinite(raw), axis=(0, 2)) & np.isfinite(weights) & loss.valid(labels)
        return cls(raw, labels, weights, good)

    def examples(self, loss: Loss, group: Group = None) -> Counted:
        """Return the examples that are measurable: rows, or for a loss of lists those lists that have a label above 0."""
        starts = loss.starts(len(self.label), group, each=True)
        good = by_list(np.logical_and, self.good, starts)
        kept = np.repeat(good, np.diff(starts))
        label, weight, lists = self.label[kept], self.weight[kept], None if group is None else np.asarray(group)[kept]
        lost = [loss.value(raw[kept], label, lists) for raw in self.raw]
        first = starts[:-1][good]
        if not loss.lists:
            return Counted(first, weight, weight * np.stack(lost))
        within = loss.starts(len(label), lists, each=True)
        some = by_list(np.add, label, within) > 0 if len(label) else good[good]
        sign = np.where(by_list(np.add, weight, within) < 0, -1.0, 1.0)
        sums = np.stack([by_list(np.add, weight * one, within) for one in lost]) if len(label) else np.empty((2, 0))
        return Counted(first[some], sign[some], sums[:, some])


class Counted(NamedTuple):
    """E measurable examples: the first row int64[E] of each, its weight float64[E], and weighted losses float64[2, E].

    A list counts once, with the losses of its rows by their weights; if these are negative it is taken back.
    """

    first: Ints
    weight: Doubles
    lost: Doubles


def by_list(combine: np.ufunc, of_rows: npt.NDArray[Any], starts: Ints) -> npt.NDArray[Any]:
    """Return one number for each example from those of its rows, N + 1 `starts` being what `Loss.starts` gives for each.

    >>> by_list(np.add, np.array([1.0, 2.0, 3.0]), np.array([0, 2, 3])).tolist()
    [3.0, 3.0]
    """
    return of_rows if len(starts) == len(of_rows) + 1 or not len(of_rows) else combine.reduceat(of_rows, starts[:-1])


def possible(loss: Loss, losses: Doubles, rows: Doubles) -> npt.NDArray[np.bool_]:
    """Return whether each sum of losses is possible for its number of rows; version 0.1 saved sums of unbounded losses."""
    return np.abs(losses) <= loss.bound * rows
