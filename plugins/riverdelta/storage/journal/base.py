"""The journal's answers: outcomes of feedback, and its health."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The outcome of one piece of feedback."""

    ACCEPTED = "accepted"
    #: The same label again, as after a client's retry; nothing changes.
    DUPLICATE = "duplicate"
    #: A different label than the accepted one, which stays (see `on_conflict`).
    CONFLICT = "conflict"
    #: A label for a row that has already matured as a negative.
    LATE = "late"
    #: The request had fewer rows, or no row of this id.
    OUT_OF_RANGE = "out_of_range"
    #: This service did not issue the id, or has no request of this name.
    BAD_ID = "bad_id"
    #: Retention has deleted the impression or is about to.
    EXPIRED = "expired"
    #: The id is genuine but its rows are not in this journal: the worker died or dropped them before they were durable, the
    #: journal was restored from an older backup, a rebase could not use the row because it lacks a column, or
    #: `riverdelta forget` erased it.
    IMPRESSION_LOST = "impression_lost"

    @property
    def refused(self) -> bool:
        """Whether nothing is stored for the item, now and whenever it is sent again."""
        return self in _REFUSED


_REFUSED = frozenset({Outcome.OUT_OF_RANGE, Outcome.BAD_ID, Outcome.EXPIRED, Outcome.IMPRESSION_LOST})


@dataclass(frozen=True)
class Answer:
    """The outcome of each item, in order, and the journal position of the accepted ones."""

    outcomes: list[Outcome]
    position: int


@dataclass(frozen=True)
class Health:
    """The journal's health: rows not durable yet, rows dropped, and the current error, if any."""

    pending_rows: int
    dropped_rows: int
    error: str | None
