"""Held: feedback that waits until the rows it labels are in the journal or known to be lost."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property

from riverdelta.core.records import Feedback
from riverdelta.storage.journal.base import Answer


@dataclass(frozen=True, eq=False)
class Call:
    """Feedback that waits for its transaction, with the deadline (`time.monotonic`) for its impressions."""

    feedback: Feedback
    deadline: float
    future: Future[Answer] = field(default_factory=Future)

    @cached_property
    def newest(self) -> dict[int, int]:
        """The newest request that it names of each incarnation; rows become durable in the order of their requests."""
        newest: dict[int, int] = {}
        for incarnation, request in zip(self.feedback.incarnation.tolist(), self.feedback.request.tolist(), strict=True):
            newest[incarnation] = max(request, newest.get(incarnation, -1))
        return newest


class Held:
    """Calls that wait for rows of other processes, and when to check them again; not thread-safe.

    The first check comes `first` seconds after a call is held; the pauses then double, up to `longest` seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = min(first, longest), longest
        self._calls: list[Call] = []
        self._pause, self._due = self._first, math.inf

    def __len__(self) -> int:
        return len(self._calls)

    def hold(self, call: Call, now: float, again: bool) -> None:
        """Hold a call until the next check; `again` if it was held before."""
        if not again:
            self._pause = self._first
        self._calls.append(call)
        self._due = min(self._due, now + self._pause)

    def pause(self, now: float) -> float:
        """Return the seconds until the next check, infinity if nothing is held."""
        return max(self._due - now, 0.0)

    def release(self) -> list[Call]:
        """Remove and return all calls, in the order in which they came."""
        calls, self._calls = self._calls, []
        self._pause, self._due = min(2 * self._pause, self._longest), math.inf
        return calls
