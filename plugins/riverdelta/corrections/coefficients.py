"""Coefficients: the learned numbers of a correction, with a name and a typical size for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: One id by its column's name.
Ids = Mapping[str, int]


class At(NamedTuple):
    """Where an id's coefficients are: the row, the one feature that belongs to the id (None for the full row), and the id."""

    row: int
    feature: str | None
    id: str


@dataclass(frozen=True)
class Coefficients:
    """The coefficients of one served table.

    Parameters
    ----------
    features
        The names of the W columns.
    values
        The coefficients, float[R, W].
    sizes
        The typical size of each feature in its own unit, float64[W]: the root mean square of its nonzero values, or NaN if that
        is unknown. A coefficient times its size is in raw outputs.
    slots
        Whether each row is a slot of hashed ids; otherwise there is one row.
    at
        The slot of each row, ascending, if not every slot has a row; those that have none are 0.
    find
        Returns where given ids have their coefficients, because ids cannot be recovered from slots.

    >>> line = Coefficients(("intercept", "slope"), np.array([[0.5, -0.25]]), np.array([1.0, 2.0]))
    >>> (line.values * line.sizes).tolist()
    [[0.5, -0.5]]
    """

    features: tuple[str, ...]
    values: npt.NDArray[np.floating[Any]]
    sizes: npt.NDArray[np.float64]
    slots: bool = False
    find: Callable[[Ids], list[At]] = lambda ids: []
    at: npt.NDArray[np.int64] | None = None

    @classmethod
    def unnamed(cls, values: npt.NDArray[np.floating[Any]]) -> Coefficients:
        """Return the coefficients of a table whose columns have no names."""
        width = values.shape[1]
        return cls(tuple(f"column {j}" for j in range(width)), values, np.full(width, np.nan), slots=True)


def spelled(ids: Ids, names: Iterable[str]) -> str:
    """Return the ids under `names` as text.

    >>> spelled({"user_id": 42, "item_id": 7}, ("user_id", "item_id"))
    'user_id=42, item_id=7'
    """
    return ", ".join(f"{name}={ids[name]}" for name in names)


def of_output(feature: str, output: int, outputs: int) -> str:
    """Return the name of a coefficient of one output of several.

    >>> of_output("hour", 0, 1), of_output("hour", 0, 2)
    ('hour', 'hour -> 0')
    """
    return feature if outputs == 1 else f"{feature} -> {output}"


def by_output(features: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Return the names of the coefficients of each output, one output after the other.

    >>> by_output(["hour"], 2)
    ('hour -> 0', 'hour -> 1')
    """
    return tuple(of_output(name, k, outputs) for k in range(outputs) for name in features)


def root_mean(squares: npt.ArrayLike, count: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return √(Σx² / n), or NaN if n is 0.

    >>> root_mean([8.0, 0.0], [2, 0]).tolist()
    [2.0, nan]
    """
    total, n = np.asarray(squares, np.float64), np.asarray(count, np.float64)
    return np.sqrt(np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0))
