"""What a journal answers: what became of feedback, and how it does itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one piece of feedback."""

    ACCEPTED = "accepted"
    #: The same label again: the client may have retried; nothing changes.
    DUPLICATE = "duplicate"
    #: Another label than the one accepted before, which stays (see `on_conflict`).
    CONFLICT = "conflict"
    #: A label for a row that had already matured as a negative.
    LATE = "late"
    #: The request had fewer rows.
    OUT_OF_RANGE = "out_of_range"
    #: This service did not issue the id.
    BAD_ID = "bad_id"
    #: Retention has deleted the impression, or is about to.
    EXPIRED = "expired"
    #: The id is genuine, and its rows are not in this journal: the worker that scored died, or gave them up, before they were
    #: durable, or the journal was restored from a backup made before.
    IMPRESSION_LOST = "impression_lost"


@dataclass(frozen=True)
class Answer:
    """The outcome of each item, in order, and the journal position at which the accepted ones lie."""

    outcomes: list[Outcome]
    position: int


@dataclass(frozen=True)
class Health:
    """How the journal does: rows not yet durable, rows given up, and the last error while it lasts."""

    pending_rows: int
    dropped_rows: int
    error: str | None
