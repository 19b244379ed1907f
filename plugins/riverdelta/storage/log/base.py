"""Log: the interface that a backend implements and `riverdelta.checks` tests; the journal is built on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from riverdelta.core.features import Ints
from riverdelta.core.hashing import digest

#: A worker's incarnation, and the number of a request within it.
Request = tuple[int, int]
#: A row of a request.
Row = tuple[int, int, int]
#: Whether a row of some requests, given as each worker's first and last, is still needed.
Needed = Callable[[Mapping[int, Request]], bool]
#: The small facts that a log keeps for the journal (each an int, a float or a string), with their initial values.
FACTS: Mapping[str, Any] = {"incarnations": 0, "tick": 0.0, "settings": "{}", "first_window": -1.0}


@dataclass(frozen=True)
class Entry:
    """A record to store: opaque bytes with their digest, its kind for `places`, and the rows that it counts for when read."""

    kind: str
    rows: int
    payload: bytes
    digest: bytes

    @classmethod
    def of(cls, kind: str, rows: int, payload: bytes) -> Entry:
        """Return an entry, with the payload's digest."""
        return cls(kind, rows, payload, digest(payload))


class Stored(NamedTuple):
    """A record as read, verified: its position, and its location for messages."""

    sequence: int
    payload: bytes
    where: str


@dataclass(frozen=True)
class Fed:
    """The feedback of one row: its label, when it was shown, and when silence makes a negative of it; None if unset.

    `due` is infinite if the row was shown while silence made no negatives. Version 0.1 kept no `due`. A row with none of the
    three is `ERASED`. `weight` is that of the label, None for 1, and `event` when the labelled event was, None if unknown.
    """

    label: float | None = None
    shown: float | None = None
    due: float | None = None
    weight: float | None = None
    event: float | None = None


#: The feedback of a row that was erased: it accepts no more.
ERASED = Fed()


@dataclass(frozen=True)
class Scored:
    """A request in the index: its rows, the feedback of each, and whether retention accepts no more."""

    rows: int
    fed: Mapping[int, Fed]
    retired: bool


class Named(NamedTuple):
    """A request that its client named, and what the journal keeps with the name."""

    request: Request
    content: bytes


class Index(Protocol):
    """What a log knows about its records at this moment."""

    @property
    def where(self) -> str:
        """Its location, for messages."""

    def fact(self, name: str) -> Any:
        """Return one of `FACTS`."""

    def find(self, request: Request) -> Scored | None:
        """Return a request; None if it was never indexed or is deleted."""

    def named(self, name: str) -> Named | None:
        """Return the request to which its client gave this name; None if it does not exist or is deleted.

        Names are compared character by character: no two spellings are taken for one.
        """

    def texts(self, ids: Collection[int]) -> Mapping[int, str]:
        """Return the texts that are known for ids."""

    def outlived(self, name: str) -> bool:
        """Return whether retention has deleted a request of this name; that is known for at least the next deletion."""

    def swept(self) -> Mapping[int, int]:
        """Return, for each incarnation, the newest request that retention has deleted."""

    def last(self) -> int:
        """Return the newest position, 0 before the first."""


class Transaction(Index, Protocol):
    """A group of writes that become durable together or not at all; it reads its own writes."""

    def append(self, entry: Entry) -> int:
        """Append a record and return its position: one more than the newest before it."""

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """Index record `sequence` as having the rows of requests int64[R, 2]: numbers, ascending and new, and row counts."""

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """Set the feedback of rows, by incarnation, request and row."""

    def name(self, name: str, named: Named) -> None:
        """Name a request that this transaction indexes; the name must be free (see `named`), and goes with the request."""

    def note(self, texts: Mapping[int, str], most: int) -> None:
        """Record the texts of ids, each for at least as long as the records appended now; none while `most` are known."""

    def put(self, name: str, value: Any) -> None:
        """Set one of `FACTS`."""


class Log(Index, Protocol):
    """A log as one process opens it; any number of processes write to the same log.

    Positions count from 1, are assigned at commit, and have no gaps. What a transaction wrote is durable, and visible to every
    process, once its block has ended. Every method may be called from any thread. Errors are `Corrupt` if stored bytes are
    missing or have changed, and `Unavailable` if the log cannot be used now; both name the location.
    """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a group as soon as no other process has one; an error inside the block rolls it back.

        If leaving the block raises, nothing of the group may be stored: a backend that lost the answer to its commit must find
        out first, since the journal writes the same rows again.
        """

    def read(self, after: int, rows: int) -> list[Stored]:
        """Return the records after a position in order, at least one if there are any, about `rows` rows in all.

        With `after` = 0 they begin at the oldest that remains. Raises `Corrupt` naming the first that is missing or damaged;
        also if `after` is before the oldest or beyond the newest.
        """

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """Return the positions of the records of a kind between two positions, both excluded."""

    def fed_up_to(self, newest: Mapping[int, int], kind: str) -> list[int]:
        """Return, newest first, records of a kind, including all with feedback for requests up to an incarnation's `newest`.

        Empty if the index shows that no such row has feedback.
        """

    def locate(self, request: Request) -> int | None:
        """Return the position of the record with a request's rows; None if there is no such record."""

    def flushed(self, incarnation: int) -> int:
        """Return the newest request of an incarnation that was ever indexed, deleted ones included; -1 without any."""

    def first(self) -> int:
        """Return the position of the oldest record that remains, or of the next one if none does."""

    def size(self) -> int:
        """Return the log's size in bytes."""

    def wait(self, after: int, seconds: float) -> bool:
        """Wait at most `seconds` for a record after a position; return whether there is one.

        A record of this process ends the wait at once, one of another process within hundredths of a second.
        """

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """Delete old records in the three steps of `retention.py`, and return the bytes freed."""

    def erase(
        self,
        entries: Mapping[int, Entry],
        rows: Collection[Row] = (),
        requests: Collection[Request] = (),
        ids: Collection[int] = (),
    ) -> None:
        """Replace the records at some positions durably, for every hold; rows become `ERASED`, names and texts unknown.

        `rows` lose their feedback and `requests` their names. `ids` are hashes of texts: of ids, which become unknown, and of
        names of deleted requests, which no longer are `outlived`. It can be called again with the same.
        """

    def scrub(self) -> None:
        """Remove from the storage every byte of what was erased or replaced, and of records that retention has deleted.

        Raises `Unavailable` if another process is in the way: then it must be called again.
        """

    def enter(self, incarnation: int) -> None:
        """Mark this incarnation as alive for every process, until it leaves or its process ends; inside a transaction."""

    def lives(self, incarnation: int) -> bool:
        """Return whether the process of an incarnation is alive and has not left."""

    def leave(self, incarnation: int) -> None:
        """Mark an incarnation of this process as finished, for every process."""

    def refresh(self) -> None:
        """Close the files that retention has deleted; an idle process calls this every few seconds."""

    def close(self) -> None:
        """Close the log."""
