"""Log: the interface that a backend implements, and `riverdelta.checks` tests; a journal is written once, over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from riverdelta.core.features import Ints
from riverdelta.core.hashing import digest

#: A worker's incarnation, and the number of a request within it.
Request = tuple[int, int]
#: Whether a row of some requests, given as each worker's first and last, still has to be read.
Needed = Callable[[Mapping[int, Request]], bool]
#: The small facts that a log keeps for the journal, each an int, a float or a text, and what they are before they are set.
FACTS: Mapping[str, Any] = {"incarnations": 0, "tick": 0.0, "settings": "{}", "first_window": -1.0}


@dataclass(frozen=True)
class Entry:
    """A record to store: opaque bytes with their digest, the kind to find it by, and the rows that it counts for when read."""

    kind: str
    rows: int
    payload: bytes
    digest: bytes

    @classmethod
    def of(cls, kind: str, rows: int, payload: bytes) -> Entry:
        """Make an entry, with the payload's digest."""
        return cls(kind, rows, payload, digest(payload))


class Stored(NamedTuple):
    """A record that was read, its bytes intact: its position, and where it lies, for messages."""

    sequence: int
    payload: bytes
    where: str


@dataclass(frozen=True)
class Fed:
    """What is known of one row: its label, when it was shown, and when silence makes a negative of it; None where it is not.

    `due` is infinite where the row was shown while silence made no negatives. Version 0.1 kept none.
    """

    label: float | None = None
    shown: float | None = None
    due: float | None = None


@dataclass(frozen=True)
class Scored:
    """What the index has of a request: its rows, what feedback each has had, and whether retention lets it take no more."""

    rows: int
    fed: Mapping[int, Fed]
    retired: bool


class Index(Protocol):
    """What a log knows of its records, at this moment."""

    @property
    def where(self) -> str:
        """Its name, for messages."""

    def fact(self, name: str) -> Any:
        """Return one of `FACTS`."""

    def find(self, request: Request) -> Scored | None:
        """Return what is known of a request; None where it was never indexed, or is deleted."""

    def named(self, name: str) -> Request | None:
        """Return the request that its client gave this name; None where there is none, or none any more."""

    def swept(self) -> Mapping[int, int]:
        """Return, for each incarnation, the newest request that retention has deleted."""

    def last(self) -> int:
        """Return the newest position, 0 before the first."""


class Transaction(Index, Protocol):
    """One group of writes, which reads its own: all of them become durable together, or none does."""

    def append(self, entry: Entry) -> int:
        """Add a record and return its position: one more than the newest before it."""

    def index(self, incarnation: int, requests: Ints, sequence: int) -> None:
        """Note that record `sequence` has the rows of requests int64[R, 2]: numbers, ascending and new, and their rows."""

    def feed(self, fed: Mapping[tuple[int, int, int], Fed]) -> None:
        """Set what is known of rows, by incarnation, request and row."""

    def name(self, name: str, request: Request) -> None:
        """Give a request a name that no other has (`named` says so); it lasts at least as long as the request's rows."""

    def put(self, name: str, value: Any) -> None:
        """Set one of `FACTS`, in place of the value before."""


class Log(Index, Protocol):
    """One process's hold on a log that any number of processes write to.

    Positions count from 1, are given at commit, and have no gaps. What a transaction wrote is durable, and seen by every
    other hold, once its block has ended. Every method may be called from any thread. Errors are `Corrupt` where stored bytes
    are missing or not what they were, and `Unavailable` where the log cannot be used now; both say where.
    """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a group as soon as no other process has one; an error inside the block undoes it.

        Where leaving the block raises, nothing of the group may be there: a backend that lost the answer to its commit has to
        find out before it raises, since the journal writes the same rows again.
        """

    def read(self, after: int, rows: int) -> list[Stored]:
        """Return the records after a position in order, at least one where there are any, about `rows` rows of them.

        With `after` = 0 they begin at the oldest that is left. Raises `Corrupt` naming the first that is missing or damaged;
        also where `after` lies before the oldest or behind the newest.
        """

    def places(self, kind: str, after: int, before: int) -> list[int]:
        """Return the positions of the records of a kind between two positions, both excluded."""

    def fed_up_to(self, newest: Mapping[int, int], kind: str) -> list[int]:
        """Return, newest first, records of a kind, among them all that fed rows of requests up to an incarnation's `newest`.

        There are none where the index says that no such row was fed.
        """

    def locate(self, request: Request) -> int | None:
        """Return the position of the record that holds a request's rows; None where it is not there."""

    def flushed(self, incarnation: int) -> int:
        """Return the newest request of an incarnation that was ever indexed, deleted ones included; -1 where there was none."""

    def first(self) -> int:
        """Return the position of the oldest record that is left, or of the next one while there is none."""

    def size(self) -> int:
        """Return the bytes that the log takes."""

    def wait(self, after: int, seconds: float) -> bool:
        """Wait until there is a record after a position, for at most `seconds`; return whether there is.

        A record of this hold ends the wait at once, one of another process within hundredths of a second.
        """

    def sweep(self, behind: int, max_age: float, max_bytes: int, now: float, needed: Needed) -> int:
        """Delete old records in three steps, and return the bytes freed; `retention.py` has them, for every backend."""

    def enter(self, incarnation: int) -> None:
        """Let every process know that this incarnation lives, until it leaves or its process ends; inside a transaction."""

    def lives(self, incarnation: int) -> bool:
        """Whether the process of an incarnation lives and has not left."""

    def leave(self, incarnation: int) -> None:
        """Let every process know that nothing more comes from an incarnation of this one."""

    def refresh(self) -> None:
        """Let go of what retention deleted meanwhile; an idle process calls this every few seconds."""

    def close(self) -> None:
        """Let go of everything."""
