"""Feedback: what the data plane has checked of it, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riverdelta.core.errors import NothingAccepted
from riverdelta.core.features import Floats
from riverdelta.core.losses.base import Doubles
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

    A row by its client's ids is found when it is stored. `weights` float32[M] are None if all are 1, and `times` float64[M] of
    the events if all are unknown (NaN).
    """

    rows: Sequence[Meant]
    labels: Floats
    weights: Floats | None = None
    times: Doubles | None = None


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
