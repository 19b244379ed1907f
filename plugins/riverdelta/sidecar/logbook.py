"""Logbook: the last things that were asked for or happened, each at its position in the journal."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.learning.admission import Admission

ENTRIES = 20
_LONGEST = 300


class Logbook:
    """The last `ENTRIES` entries {position, time, action, details}: controls, and the breaker's openings and closings.

    They follow from the records alone, as times are those of the records.

    >>> book = Logbook()
    >>> book.note(7, 1_000.0, "rollback", {"release": 3, "relearn": False})
    >>> book.report()
    [{'position': 7, 'time': 1000.0, 'action': 'rollback', 'details': {'release': 3, 'relearn': False}}]
    """

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=ENTRIES)
        self._open = False

    def note(self, position: int, time: float, action: str, details: Mapping[str, Any]) -> None:
        """Write an entry; of the details, plain values are kept, and texts up to 300 characters."""
        kept = {
            str(name)[:_LONGEST]: value[:_LONGEST] if isinstance(value, str) else value
            for name, value in list(details.items())[:8]
            if value is None or isinstance(value, str | bool | int | float)
        }
        self._entries.append({"position": position, "time": time, "action": action[:_LONGEST], "details": kept})

    def watch(self, position: int, time: float, admission: Admission) -> None:
        """Write an entry where the breaker has opened or closed."""
        breaker = admission.breaker
        is_open = breaker is not None and bool(breaker.open)
        if is_open != self._open:
            self._open = is_open
            said = {"reason": breaker.reason} if breaker is not None and is_open else {}
            self.note(position, time, "breaker opened" if is_open else "breaker closed", said)

    def report(self) -> list[dict[str, Any]]:
        """Return the entries, oldest first."""
        return list(self._entries)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        body = json.dumps({"open": self._open, "entries": list(self._entries)}).encode()
        return {"entries": np.frombuffer(body, np.uint8)}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned, or begin anew where nothing was saved; raises `Corrupt` at anything else."""
        self._entries.clear()
        self._open = False
        if not arrays:
            return
        try:
            body = json.loads(arrays["entries"].tobytes())
            self._open = bool(body["open"])
            self._entries.extend(dict(entry) for entry in body["entries"])
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the saved logbook cannot be read: {error!r}") from None
