"""Judge: decides the outcome of each piece of feedback from an index and rules; the caller writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from riverdelta.core.checked import bound
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.records import Feedback
from riverdelta.storage.journal.base import Outcome
from riverdelta.storage.log import ERASED, Fed, Request
from riverdelta.storage.log.base import Index

_BY_POLICY: dict[str, Callable[[float, float], bool]] = {
    "first": lambda label, before: False,
    "last": lambda label, before: True,
    "max": lambda label, before: label > before,
}
POLICIES = tuple(_BY_POLICY)
#: Rows of one feedback record, which the learner holds in memory together.
_RECORD_ROWS = 8_192
#: The dtypes of the fields of `Feedback`.
_DTYPES = (
    np.int64, np.int64, np.int32, np.float32, np.float64, np.bool_, np.int64, np.float32, np.float64,
    np.float32, np.int32, np.bool_,
)  # fmt: skip
#: The places of the row and of the end of its list in an accepted item.
_INDEX, _COMPLETE = 2, 11


@dataclass(frozen=True)
class Rules:
    """The rules for feedback: which of two different labels counts (`first`, `last`, `max`), and when shown rows mature.

    With `lists` the window is that of a request, whose rows are one example.
    """

    on_conflict: str = "first"
    window_seconds: float | None = None
    lists: bool = False

    def __post_init__(self) -> None:
        if self.on_conflict not in POLICIES:
            raise ConfigurationError(f"on_conflict is {self.on_conflict!r}; expected one of {', '.join(POLICIES)}")
        if self.window_seconds is not None:
            bound("window_seconds", self.window_seconds)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Rules:
        """Return the rules in the settings that learning reads; a window without silence is one of lists."""
        window = settings["window_seconds"]
        return cls(settings["on_conflict"], window, window is not None and settings.get("labels") == "explicit")

    def replaces(self, label: float, before: float) -> bool:
        """Return whether `label` replaces `before`, so that it is accepted and learned."""
        return _BY_POLICY[self.on_conflict](label, before)


@dataclass
class _Request:
    """What one transaction knows about one request, and the rows that got feedback in it."""

    rows: int
    fed: dict[int, Fed]
    changed: set[int] = field(default_factory=set)
    #: The place of its newest accepted item, and the late labels of its list by row.
    newest: int | None = None
    late: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def due(self) -> float:
        """Return when the window of its list ends: the earliest end of a row's."""
        return min((fed.due for fed in self.fed.values() if fed.due is not None), default=math.inf)


class Judge:
    """Judges the feedback of one transaction against the log's `index`, without waiting.

    Every request is looked up once, however many of its rows have feedback. With a window, a shown row matures as a negative
    at the first tick that is `window_seconds` after its showing, and a label after that is late. With lists, a request's list
    is learned at the first tick that is `window_seconds` after its first feedback, or when it is complete; labels of 1 or more
    after that are late, and are written with the rows that were shown with them. Nothing is written: `records` and `fed` return
    what was accepted.
    """

    def __init__(self, index: Index, rules: Rules) -> None:
        self._index, self._rules, self._swept = index, rules, index.swept()
        first = index.fact("first_window")
        #: The window of the first settings on record, None without one; if version 0.1 wrote this journal, its window.
        self._first_window = rules.window_seconds if first < 0 else first or None
        self._tick = float(index.fact("tick"))
        self._requests: dict[Request, _Request | Outcome] = {}
        self._accepted: list[tuple[Any, ...]] = []

    def judge(self, feedback: Feedback) -> list[Outcome]:
        """Return the outcome of each item; weights and events do not affect it: a label with another weight is a duplicate."""
        outcomes, f = [], feedback
        fields = (f.incarnation, f.request, f.index, f.label, f.time, f.source, f.weights, f.events, f.propensities, f.places)
        lists, completed = [each.tolist() for each in fields], dict[Request, float]()
        for (incarnation, number, row, label, time, *said), complete in zip(
            zip(*lists, strict=True), f.completes.tolist(), strict=True
        ):
            source, weight, event, propensity, place = said
            request = self._requests.get((incarnation, number)) or self._look_up((incarnation, number))
            if isinstance(request, Outcome):
                outcomes.append(request)
            elif row >= request.rows:
                outcomes.append(Outcome.OUT_OF_RANGE)
            elif request.fed.get(row) == ERASED:
                outcomes.append(Outcome.IMPRESSION_LOST)
            else:
                decide = self._decide_in_list if self._rules.lists else self._decide
                outcome, journalled = decide(request, row, label, time, weight, event)
                outcomes.append(outcome)
                if complete:
                    completed[incarnation, number] = time
                if journalled:
                    late = outcome is Outcome.LATE
                    item = (incarnation, number, row, label, time, late, source, weight, event, propensity, place, False)
                    if late and self._rules.lists:
                        request.late[row] = item
                    else:
                        request.newest = len(self._accepted)
                        self._accepted.append(item)
        for key, time in completed.items():
            self._complete(key, time)
        return outcomes

    def records(self) -> Iterator[Feedback]:
        """Yield the accepted items that the learner needs, as records; call it once. A late list is in one record."""
        lists = [self._late_list(*key, known) for key, known in self._requests.items() if isinstance(known, _Request)]
        parts = [self._accepted[start : start + _RECORD_ROWS] for start in range(0, len(self._accepted), _RECORD_ROWS)]
        for rows in filter(None, lists):
            if not parts or len(parts[-1]) + len(rows) > _RECORD_ROWS:
                parts.append([])
            parts[-1] += rows
        for part in parts:
            columns = zip(zip(*part, strict=True), _DTYPES, strict=True)
            yield Feedback(*(np.array(column, dtype) for column, dtype in columns))

    def fed(self) -> dict[tuple[int, int, int], Fed]:
        """Return the current feedback of each row that got some, by incarnation, request and row."""
        requests = ((key, known) for key, known in self._requests.items() if isinstance(known, _Request))
        return {(*key, row): known.fed[row] for key, known in requests for row in known.changed}

    def _look_up(self, key: Request) -> _Request | Outcome:
        # Another process may have deleted rows that this one still has open.
        swept = key[1] <= self._swept.get(key[0], -1)
        found = None if swept else self._index.find(key)
        if found is None:
            self._requests[key] = Outcome.EXPIRED if swept else Outcome.IMPRESSION_LOST
        else:
            self._requests[key] = Outcome.EXPIRED if found.retired else _Request(found.rows, dict(found.fed))
        return self._requests[key]

    def _decide(
        self, request: _Request, row: int, label: float, time: float, weight: float, event: float
    ) -> tuple[Outcome, bool]:
        """Return the outcome, and whether the item is written to the journal."""
        before, window = request.fed.get(row) or Fed(), self._rules.window_seconds
        if math.isnan(label):
            # A row that was shown while silence made no negatives may be shown again once it does.
            known = before.shown is not None and (before.due != math.inf or window is None)
            if known or before.label is not None:
                return Outcome.DUPLICATE, False
            # A showing counts from the newest tick at the earliest, as in the joiner, so that both agree on what is late.
            shown = max(time, self._tick)
            self._note(request, row, Fed(None, shown, math.inf if window is None else shown + window))
            return Outcome.ACCEPTED, True
        said = None if weight == 1 else weight, None if math.isnan(event) else event
        if before.label == label:
            return Outcome.DUPLICATE, False
        if before.label is not None and not self._rules.replaces(label, before.label):
            return Outcome.CONFLICT, False
        if self._matured(before):
            # A late negative adds nothing; the one that silence made stands until a positive takes it back.
            self._note(request, row, Fed(label, before.shown, None if label > 0 else before.due, *said))
            return Outcome.LATE, label > 0
        self._note(request, row, Fed(label, before.shown, None, *said))
        return Outcome.ACCEPTED, True

    def _decide_in_list(
        self, request: _Request, row: int, label: float, time: float, weight: float, event: float
    ) -> tuple[Outcome, bool]:
        """Return the same for a row of a list."""
        before, now = request.fed.get(row) or Fed(), max(time, self._tick)
        learned = self._tick >= request.due()
        due = min(now + (self._rules.window_seconds or math.inf), math.inf if before.due is None else before.due)
        if math.isnan(label):
            if before.shown is not None or before.label is not None:
                return Outcome.DUPLICATE, False
            if not learned:
                self._note(request, row, Fed(None, now, due))
            return (Outcome.LATE, False) if learned else (Outcome.ACCEPTED, True)
        if before.label == label:
            return Outcome.DUPLICATE, False
        if before.label is not None and not self._rules.replaces(label, before.label):
            return Outcome.CONFLICT, False
        said = None if weight == 1 else weight, None if math.isnan(event) else event
        self._note(request, row, Fed(label, before.shown, due, *said))
        if learned:
            # The loss of a list is a sum over its labels: a late one adds its own part, and cannot change one that was learned.
            return Outcome.LATE, label > 0 and not before.label
        return Outcome.ACCEPTED, True

    def _complete(self, key: Request, time: float) -> None:
        """Let a request's list be learned now, unless it was."""
        request = self._requests[key]
        if not isinstance(request, _Request) or not request.fed or self._tick >= request.due():
            return
        if request.newest is None:
            row = next(row for row, fed in request.fed.items() if fed != ERASED)
            request.newest = len(self._accepted)
            self._accepted.append(_shown(*key, row, time, False))
        item = self._accepted[request.newest]
        self._accepted[request.newest] = (*item[:_COMPLETE], True)
        row = item[_INDEX]
        self._note(request, row, replace(request.fed[row], due=self._tick))

    def _late_list(self, incarnation: int, number: int, request: _Request) -> list[tuple[Any, ...]]:
        """Return the late labels of a list, with the other rows of it that got feedback."""
        if not request.late:
            return []
        time = next(iter(request.late.values()))[4]
        known = (row for row, fed in sorted(request.fed.items()) if fed != ERASED and row not in request.late)
        return [*(_shown(incarnation, number, row, time, True) for row in known), *request.late.values()]

    def _note(self, request: _Request, row: int, fed: Fed) -> None:
        request.fed[row] = fed
        request.changed.add(row)

    def _matured(self, fed: Fed) -> bool:
        """Return whether silence has made a negative of the row and nothing has taken it back."""
        due = fed.due
        if due is None and fed.label is None and fed.shown is not None and self._first_window is not None:
            due = fed.shown + self._first_window  # version 0.1 kept only the showing
        return due is not None and self._tick >= due


def _shown(incarnation: int, number: int, row: int, time: float, late: bool) -> tuple[Any, ...]:
    """Return the item of a row that was shown, without a label."""
    return incarnation, number, row, math.nan, time, late, 0, 1.0, math.nan, math.nan, -1, False
