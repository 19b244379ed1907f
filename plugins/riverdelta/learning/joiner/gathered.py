"""Gathered: rows that `Waiting` has found, as columns in the order of their keys, and as examples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats, Ints
from riverdelta.core.feedback import Feedback
from riverdelta.core.records import OUTPUTS
from riverdelta.learning.joiner.shelf import Rows
from riverdelta.learning.joiner.waiting import COLUMN, Group

#: What an example copies from its impression, besides the columns.
_READ = (*OUTPUTS, "time", "position", "propensity")


def count(groups: list[Group]) -> int:
    """Return the number of rows of groups."""
    return sum(len(mine) for mine, _, _ in groups)


def made(
    columns: dict[str, npt.NDArray[Any]],
    labels: Feedback,
    weights: tuple[Floats, Floats, Floats],
    group: Ints | None = None,
    propensity: Floats | None = None,
) -> Examples:
    """Return rows of a shelf with their labels."""
    weight, importance, taken_back = weights
    return Examples(
        columns={n.removeprefix(COLUMN): column for n, column in columns.items() if n.startswith(COLUMN)},
        **{name: columns[name] for name in (*OUTPUTS, "position")},
        label=labels.label,
        weight=weight,
        scored=columns["time"],
        importance=importance,
        taken_back=taken_back,
        received=labels.time,
        source=labels.source,
        sent=labels.weights,
        event=labels.events,
        group=group,
        propensity=propensity,
    )


def gather(groups: list[Group], reads: Collection[str] | None) -> tuple[dict[str, npt.NDArray[Any]], Rows]:
    """Return the columns that all groups have, and the index of each row's key, in the keys' order."""
    names = [name for name in groups[0][1].names if name in _READ or name.startswith(COLUMN)]
    if len(groups) == 1:
        mine, shelf, at = groups[0]
        return {name: shelf[name][at] for name in names}, mine
    for _, shelf, _ in groups:
        missing = {n for n in set(names).symmetric_difference(shelf.names) if n.startswith(COLUMN)}
        names = [n for n in names if n not in missing]
        if missing := {n for n in missing if reads is None or n.removeprefix(COLUMN) in reads}:
            raise Corrupt(f"impressions of two workers differ in the columns {', '.join(sorted(missing))}")
    places = np.concatenate([mine for mine, _, _ in groups])
    order = np.argsort(places, kind="stable")
    return {name: np.concatenate([shelf[name][at] for _, shelf, at in groups])[order] for name in names}, places[order]
