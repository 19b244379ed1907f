"""Logbook: the latest controls and trips of the breaker, each at its position in the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from riverdelta.core.arrays import Array, Arrays, of_json, to_json
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.records import SETTINGS
from riverdelta.learning.admission import Admission
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcome

ENTRIES = 20
_LONGEST = 300


class Logbook(Observer):
    """The last `ENTRIES` entries {position, time, action, details}: controls, and trips and resets of the breaker.

    They depend only on the records, which also give the times.

    >>> book = Logbook()
    >>> book.note(7, 1_000.0, "rollback", {"release": 3, "relearn": False})
    >>> book.report()["events"]
    [{'position': 7, 'time': 1000.0, 'action': 'rollback', 'details': {'release': 3, 'relearn': False}}]
    """

    def __init__(self, admission: Callable[[], Admission] = Admission) -> None:
        self._admission = admission
        self._entries: deque[dict[str, Any]] = deque(maxlen=ENTRIES)
        self._open = False

    def on_examples(self, position: int, examples: Examples) -> None:
        """Write an entry if the breaker tripped or reset."""
        self._watch(position, float(examples.received[-1]))

    def on_outcome(self, outcome: Outcome) -> None:
        """Write an entry for an outcome, except that of a home's first settings."""
        if outcome.action == SETTINGS and outcome.sequence == 1:
            return
        found = {"release": outcome.release, "held": outcome.held or None, "refused": outcome.refused}
        details = {name: value for name, value in found.items() if value is not None}
        self.note(outcome.sequence, outcome.time, outcome.action, {**details, **outcome.details})
        self._watch(outcome.sequence, outcome.time)

    def note(self, position: int, time: float, action: str, details: Mapping[str, Any]) -> None:
        """Write an entry, with the first 8 details that are plain values; texts are cut to 300 characters."""
        kept = {
            str(name)[:_LONGEST]: value[:_LONGEST] if isinstance(value, str) else value
            for name, value in list(details.items())[:8]
            if value is None or isinstance(value, str | bool | int | float)
        }
        self._entries.append({"position": position, "time": time, "action": action[:_LONGEST], "details": kept})

    def report(self) -> dict[str, Any]:
        """Return the entries, oldest first."""
        return {"events": list(self._entries)}

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        return {"entries": of_json({"open": self._open, "entries": list(self._entries)})}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, or start over from {}; raises `Corrupt` if it cannot be read."""
        body: Any = to_json(arrays, "entries") if arrays else {"open": False, "entries": []}
        try:
            self._open = bool(body["open"])
            self._entries = deque((dict(entry) for entry in body["entries"]), ENTRIES)
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the saved logbook in 'entries' cannot be read: {error!r}") from None

    def _watch(self, position: int, time: float) -> None:
        admission = self._admission()
        if admission.open != self._open:
            self._open = admission.open
            details = {"reason": admission.report()["reason"]} if self._open else {}
            self.note(position, time, "breaker opened" if self._open else "breaker closed", details)
