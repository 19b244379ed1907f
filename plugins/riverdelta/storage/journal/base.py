"""The interface of a journal, small enough that another store can stand behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy.typing as npt

from riverdelta.core.features import Floats, Ints
from riverdelta.core.records import Control, Impressions, Record, Tick
from riverdelta.storage.registry.state import State

#: Whether a row of some requests, given as each worker's first and last, still has to be read.
Needed = Callable[[Mapping[int, tuple[int, int]]], bool]


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


class Journal(Protocol):
    """One process's hold on the journal.

    Records have one sequence number each, given at commit, without gaps; readers read in that order only. Every method may
    be called from any thread.
    """

    #: A number below 2⁶³ that no other process has had that ever opened this journal or a copy of it.
    incarnation: int

    def append(
        self,
        columns: Mapping[str, npt.NDArray[Any]],
        base: Floats,
        corrected: Floats,
        served: Floats,
        propensity: Floats | None,
        state: State,
        time: float,
        trace: str | None = None,
    ) -> int:
        """Take the rows of one request and return the request's number; never blocks, durable within the flush interval.

        `trace` is the W3C trace id that the request came with, 32 hexadecimal digits.
        """
        ...

    def feedback(
        self, incarnation: Ints, request: Ints, index: Ints, label: Floats, time: float, source: int = 0
    ) -> Future[Answer]:
        """Judge and store feedback (a NaN label means shown); the future resolves when it is durable with its impressions.

        `source`, an int64, says who sent all of it. The future raises `Unavailable`, and nothing of the call is stored, when
        the journal cannot be written now, or a living process still owes it some of the rows.
        """
        ...

    def write(self, record: Tick | Control) -> int:
        """Store one record and return its sequence number; raises `Unavailable`."""
        ...

    def read(self, after: int, rows: int) -> list[tuple[int, Record]]:
        """Return the records after sequence number `after`, about `rows` rows of them; raises `Corrupt` naming a bad one."""
        ...

    def locate(self, incarnation: int, request: int) -> int | None:
        """Return the record that holds a request's rows; None where retention has deleted it."""
        ...

    def impressions(self, sequence: int) -> Impressions:
        """Return the impressions of a record; raises `Corrupt` where they cannot be read."""
        ...

    def controls(self, after: int, before: int) -> list[tuple[int, Control]]:
        """Return the controls that are left between two positions, both excluded, without reading what lies between them."""
        ...

    def complete_after(self) -> int:
        """Return the position after which every record is left, and every row that these records' feedback is for."""
        ...

    def first(self) -> int:
        """Return the sequence number of the oldest record that is left, or of the next one while there is none."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings that learning reads, as the newest record has them; {} before the first."""
        ...

    def tick(self) -> float:
        """Return the time of the newest tick (Unix seconds), 0 before the first."""
        ...

    def last(self) -> int:
        """Return the newest sequence number, 0 before the first."""
        ...

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """Retire and delete the oldest segments; return bytes freed. See `Segments.sweep`."""
        ...

    def size(self) -> int:
        """Return the bytes that the journal takes on disk."""
        ...

    def health(self) -> Health:
        """Return how it does."""
        ...

    def leave(self) -> None:
        """Refuse feedback that waits for other processes, now and from now on: this one is asked to stop."""
        ...

    def close(self) -> None:
        """Make everything pending durable and let go."""
        ...
