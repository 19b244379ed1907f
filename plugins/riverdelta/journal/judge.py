"""Judge: decides what becomes of each piece of feedback, inside the transaction that stores it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from riverdelta.journal.base import Outcome
from riverdelta.journal.segment import Fed, Segment
from riverdelta.journal.segments import Segments

Key = tuple[int, int, int]


@dataclass(frozen=True)
class Verdict:
    """An outcome, and whether the item is journalled (as a late label, where it is late)."""

    outcome: Outcome
    journalled: bool = False


_BY_POLICY: dict[str, Callable[[float, float], bool]] = {
    "first": lambda label, before: False,
    "last": lambda label, before: True,
    "max": lambda label, before: label > before,
}
POLICIES = tuple(_BY_POLICY)


class Judge:
    """Judges feedback by what the journal holds.

    `on_conflict` says which of two different labels of a row counts: `first`, `last` or `max`; one that replaces another is
    accepted and learned too. With `window_seconds`, shown rows mature as negatives by ticks, and a label after that is late.
    """

    def __init__(self, segments: Segments, on_conflict: str, window_seconds: float | None) -> None:
        self.segments, self.window = segments, window_seconds
        self._replaces = _BY_POLICY[on_conflict]

    def missing(self, keys: list[Key]) -> bool:
        """Whether the impression of any key is not durable, and not known to be deleted."""
        return any(self.segments.rows_of(key[0], key[1]) is None and not self._swept(self.segments.newest, key) for key in keys)

    def judge(self, segment: Segment, key: Key, label: float, time: float) -> Verdict:
        """Judge one item and note its feedback in `segment`, whose transaction is open."""
        found = self.segments.rows_of(key[0], key[1])
        if found is None:
            lost = key[0] <= segment.get("incarnations") and not self._swept(segment, key)
            return Verdict(Outcome.IMPRESSION_LOST if lost else Outcome.EXPIRED)
        since, rows = found
        if key[2] >= rows:
            return Verdict(Outcome.OUT_OF_RANGE)
        before = self.segments.fed(key, since) or Fed(None, None)
        if math.isnan(label):
            if before.shown is not None or before.label is not None:
                return Verdict(Outcome.DUPLICATE)
            segment.feed(key, Fed(None, time))
            return Verdict(Outcome.ACCEPTED, journalled=True)
        if before.label is not None:
            if before.label == label:
                return Verdict(Outcome.DUPLICATE)
            if not self._replaces(label, before.label):
                return Verdict(Outcome.CONFLICT)
        segment.feed(key, Fed(label, before.shown))
        if self._matured(segment, before):
            # The row has been learned as a negative: a late negative tells nothing new.
            return Verdict(Outcome.LATE, journalled=label > 0)
        return Verdict(Outcome.ACCEPTED, journalled=True)

    def _matured(self, segment: Segment, before: Fed) -> bool:
        if self.window is None or before.shown is None or before.label is not None:
            return False
        return bool(segment.get("tick") >= before.shown + self.window)

    def _swept(self, segment: Segment, key: Key) -> bool:
        return key[1] <= segment.swept().get(key[0], -1)
