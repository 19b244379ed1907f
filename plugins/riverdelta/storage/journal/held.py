"""Held: feedback that waits until the rows which it labels are in the journal, or are known to be lost."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable
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
    """Calls by the incarnation that they wait for; not thread-safe by itself.

    A look asks one question about each incarnation, however many calls wait for it. The first comes `first` seconds after a
    call was held; the pauses after it double, up to `longest` seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = min(first, longest), longest
        self._calls: dict[int, list[Call]] = {}
        #: The first request that any of an incarnation's calls waits for.
        self._least: dict[int, int] = {}
        self._pause, self._due = self._first, math.inf

    def __len__(self) -> int:
        return sum(map(len, self._calls.values()))

    def hold(self, call: Call, incarnation: int, now: float) -> None:
        """Keep a call that waits for the rows of an incarnation."""
        insort(self._calls.setdefault(incarnation, []), call, key=_deadline)
        self._least[incarnation] = min(call.newest[incarnation], self._least.get(incarnation, call.newest[incarnation]))
        self._pause, self._due = self._first, min(self._due, now + self._first)

    def pause(self, now: float) -> float:
        """Return the seconds until the next look, infinite while nothing is held."""
        return max(self._due - now, 0.0)

    def look(self, now: float, reach: Callable[[int], float]) -> tuple[list[Call], list[Call]]:
        """Return the calls that may have what they wait for, and those that have waited as long as they may; let go of both.

        `reach` is up to which request it is certain what became of an incarnation's rows.
        """
        reached = [incarnation for incarnation, least in self._least.items() if least <= reach(incarnation)]
        awake = [call for incarnation in reached for call in self._let_go(incarnation)]
        overdue: list[Call] = []
        for incarnation, calls in list(self._calls.items()):
            late = bisect_right(calls, now, key=_deadline)
            overdue += calls[:late]
            del calls[:late]
            if not calls:
                self._let_go(incarnation)
        self._pause = min(2 * self._pause, self._longest)
        self._due = now + self._pause if self._calls else math.inf
        return awake, overdue

    def release(self) -> list[Call]:
        """Return every call and let go of it."""
        self._due = math.inf
        return [call for incarnation in list(self._calls) for call in self._let_go(incarnation)]

    def _let_go(self, incarnation: int) -> list[Call]:
        del self._least[incarnation]
        return self._calls.pop(incarnation)


def _deadline(call: Call) -> float:
    return call.deadline
