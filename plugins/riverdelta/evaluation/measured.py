"""Measured: the rows that every measure of losses takes, and sums of them that do not depend on block sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Loss
from riverdelta.core.losses.base import Doubles, Group

_Array = npt.NDArray[Any]


def aligned(
    first: npt.ArrayLike, second: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike
) -> tuple[_Array, _Array, _Array, _Array]:
    """Return two raw outputs, labels and weights as arrays; raises `InvalidInput` if lengths differ."""
    given = np.asarray(first), np.asarray(second), np.asarray(label), np.asarray(weight)
    rows = len(given[0])
    if len(given[1]) != rows or not given[2].shape == given[3].shape == (rows,):
        shapes = ", ".join(str(list(one.shape)) for one in given)
        raise InvalidInput(f"two raw outputs, label and weight have shapes {shapes}; expected the same length N for all four")
    return given


class Rows(NamedTuple):
    """N rows: raw outputs of two scorers float64[2, N, K], labels and weights float64[N], and which rows are measurable.

    A row is measurable if its raw outputs and weight are finite and its label is valid, as for all rows of its list by `group`.
    """

    raw: Doubles
    label: Doubles
    weight: Doubles
    good: npt.NDArray[np.bool_]
    group: Group = None

    @classmethod
    def of(
        cls,
        loss: Loss,
        first: npt.ArrayLike,
        second: npt.ArrayLike,
        label: npt.ArrayLike,
        weight: npt.ArrayLike,
        group: Group = None,
    ) -> Rows:
        """Return the rows given, in lists by `group` int64[N]; raises `InvalidInput` if lengths differ."""
        given = aligned(first, second, label, weight)
        rows = len(given[0])
        raw, (labels, weights) = np.empty((2, rows, loss.outputs)), np.empty((2, rows))
        for out, one in zip((raw[0], raw[1], labels, weights), given, strict=True):
            out[...] = one.reshape(out.shape)
        good = np.logical_and.reduce(np.isfinite(raw), axis=(0, 2)) & np.isfinite(weights) & loss.valid(labels)
        if group is not None and rows:
            starts = loss.starts(rows, group, each=True)
            good = np.repeat(np.logical_and.reduceat(good, starts[:-1]), np.diff(starts))
        return cls(raw, labels, weights, good, group)

    def at(self, rows: npt.NDArray[np.bool_]) -> Rows:
        """Return some of the rows; they have no lists."""
        return Rows(self.raw.compress(rows, axis=1), self.label[rows], self.weight[rows], self.good[rows])

    def losses(self, loss: Loss) -> Doubles:
        """Return the losses float64[2, N] of both scorers, not weighted; 0 for rows that are not measurable."""
        out, good = np.zeros((2, len(self.label))), self.good
        lists = None if self.group is None else self.group[good]
        for mine, raw in zip(out, self.raw, strict=True):
            mine[good] = loss.value(raw[good], self.label[good], lists)
        return out


def possible(loss: Loss, losses: Doubles, rows: Doubles) -> npt.NDArray[np.bool_]:
    """Return whether each sum of losses is possible for its number of rows; version 0.1 saved sums of unbounded losses."""
    return np.abs(losses) <= loss.bound * rows
