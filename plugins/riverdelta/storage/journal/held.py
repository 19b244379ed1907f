"""Held: feedback that waits until the rows which it labels are in the journal, or are known to be lost."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from riverdelta.core.features import Ints
from riverdelta.storage.journal.base import Answer


@dataclass(frozen=True, eq=False)
class Call:
    """Feedback that waits for its transaction, and until when (of `time.monotonic`) it may wait for its impressions."""

    keys: Ints
    labels: list[float]
    time: float
    source: int
    deadline: float
    future: Future[Answer] = field(default_factory=Future)

    @cached_property
    def newest(self) -> dict[int, int]:
        """The newest request of each incarnation that it names: rows become durable in the order of their requests."""
        newest: dict[int, int] = {}
        for incarnation, request, _ in self.keys.tolist():
            newest[incarnation] = max(request, newest.get(incarnation, -1))
        return newest


class Held:
    """Calls that wait for rows of other processes, and when to look at them again; not thread-safe by itself.

    The first look comes `first` seconds after a call was held; the pauses after it double, up to `longest` seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = min(first, longest), longest
        self._calls: list[Call] = []
        self._pause, self._due = self._first, math.inf

    def __len__(self) -> int:
        return len(self._calls)

    def hold(self, call: Call, now: float, again: bool) -> None:
        """Keep a call until the next look, `again` where it was held before."""
        if not again:
            self._pause = self._first
        self._calls.append(call)
        self._due = min(self._due, now + self._pause)

    def pause(self, now: float) -> float:
        """Return the seconds until the next look, infinite while nothing is held."""
        return max(self._due - now, 0.0)

    def release(self) -> list[Call]:
        """Return every call, in the order in which they came, and let go of it."""
        calls, self._calls = self._calls, []
        self._pause, self._due = min(2 * self._pause, self._longest), math.inf
        return calls
