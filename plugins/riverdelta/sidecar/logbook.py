"""Logbook: the last things that were asked for or happened, each at its position in the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from riverdelta.core.arrays import Array, Arrays, of_json, to_json
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.records import SETTINGS
from riverdelta.learning.breaker import Breaker
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcome

ENTRIES = 20
_LONGEST = 300


class Logbook(Observer):
    """The last `ENTRIES` entries {position, time, action, details}: controls, and the openings and closings of `breaker`.

    They follow from the records alone, as times are those of the records.

    >>> book = Logbook()
    >>> book.note(7, 1_000.0, "rollback", {"release": 3, "relearn": False})
    >>> book.report()["events"]
    [{'position': 7, 'time': 1000.0, 'action': 'rollback', 'details': {'release': 3, 'relearn': False}}]
    """

    def __init__(self, breaker: Callable[[], Breaker | None] = lambda: None) -> None:
        self._breaker = breaker
        self._entries: deque[dict[str, Any]] = deque(maxlen=ENTRIES)
        self._open = False

    def on_examples(self, position: int, examples: Examples) -> None:
        """Note whether the breaker has opened or closed."""
        self._watch(position, float(examples.received[-1]))

    def on_outcome(self, outcome: Outcome) -> None:
        """Note what came of a record, but for the settings that a home begins with."""
        if outcome.action == SETTINGS and outcome.sequence == 1:
            return
        found = {"release": outcome.release, "refused": outcome.refused}
        details = {name: value for name, value in found.items() if value is not None}
        self.note(outcome.sequence, outcome.time, outcome.action, {**details, **outcome.details})
        self._watch(outcome.sequence, outcome.time)

    def note(self, position: int, time: float, action: str, details: Mapping[str, Any]) -> None:
        """Write an entry; of the details, plain values are kept, and texts up to 300 characters."""
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
        """Return what `load` needs."""
        return {"entries": of_json({"open": self._open, "entries": list(self._entries)})}

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else."""
        body: Any = to_json(arrays, "entries") if arrays else {"open": False, "entries": []}
        try:
            self._open = bool(body["open"])
            self._entries = deque((dict(entry) for entry in body["entries"]), ENTRIES)
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the saved logbook in 'entries' cannot be read: {error!r}") from None

    def _watch(self, position: int, time: float) -> None:
        breaker = self._breaker()
        is_open = breaker is not None and breaker.open
        if is_open != self._open:
            self._open = is_open
            details = {"reason": breaker.reason} if breaker is not None and is_open else {}
            self.note(position, time, "breaker opened" if is_open else "breaker closed", details)
