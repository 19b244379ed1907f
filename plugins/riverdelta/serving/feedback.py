"""Feedback: what the data plane has checked of it, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput, NothingAccepted
from riverdelta.core.features import Floats
from riverdelta.core.feedback import check_places, check_propensities, check_times, check_weights
from riverdelta.storage.journal import Outcome
from riverdelta.storage.journal.ids import Row
from riverdelta.storage.journal.names import Resolver, RowName
from riverdelta.storage.log.base import Index

#: The outcomes of labels that are new.
JOINED = (Outcome.ACCEPTED, Outcome.LATE)
#: A row, its client's ids, or why there is no row; None for an id that this service did not issue.
Meant = Row | RowName | Outcome | None


@dataclass(frozen=True)
class Items:
    """Checked feedback: the row of each id, None if this service did not issue it, and the labels float32[M].

    A row by its client's ids is found when it is stored. `more` has what else the items have, as `checked` returns it.
    """

    rows: Sequence[Meant]
    labels: Floats
    more: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def checked(
    labels: Floats,
    lists: bool,
    now: float,
    weights: Any = None,
    times: Any = None,
    propensities: Any = None,
    positions: Any = None,
    complete: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """Return what items with these labels have besides them, by the names of the optional arrays of a record of feedback.

    `weights` are numbers from 0 to 100 (default 1) and `times` Unix seconds of the events, NaN if unknown (default). For
    `lists`, `propensities` are the probabilities with which rows were examined and `positions` their places, NaN if unknown;
    `complete` says that no more feedback comes for the lists of these items. Raises `InvalidInput` naming a malformed item.
    """
    if not lists and (complete or propensities is not None or positions is not None):
        raise InvalidInput(
            "propensity, position and complete belong to a row of a list, and this scorer ranks no lists: leave them out, or "
            'write "weight": 1 / propensity'
        )
    found = {
        "weight": None if weights is None else check_weights(weights, labels),
        "event": None if times is None else check_times(times, labels, now),
        "propensity": None if propensities is None else check_propensities(propensities, len(labels)),
        "place": None if positions is None else check_places(positions, len(labels)),
        "complete": np.ones(len(labels), np.bool_) if complete else None,
    }
    return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class FeedbackAnswer:
    """The outcome of each item, in order, and the journal position of the accepted ones."""

    outcomes: list[Outcome]
    position: int

    def refusal(self) -> NothingAccepted | None:
        """Return the error of a call whose items are all refused permanently; None if it has another item, or none.

        >>> print(FeedbackAnswer([Outcome.BAD_ID, Outcome.EXPIRED, Outcome.BAD_ID], 0).refusal())
        no item is accepted, and nothing is stored: 2 bad_id, 1 expired; sending them again changes nothing
        """
        if not self.outcomes or not all(outcome.refused for outcome in self.outcomes):
            return None
        counts = ", ".join(f"{items} {outcome}" for outcome, items in Counter(self.outcomes).most_common())
        return NothingAccepted(f"no item is accepted, and nothing is stored: {counts}; sending them again changes nothing")


def found(rows: Sequence[Meant], index: Index) -> list[Meant]:
    """Return rows with those by their clients' ids found in the journal's index, or why they are not there."""
    resolver = Resolver(index)
    return [resolver.find(row) if isinstance(row, RowName) else row for row in rows]
