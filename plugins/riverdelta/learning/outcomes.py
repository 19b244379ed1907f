"""Outcomes: the results of the last commands and other controls that the learner has read."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from riverdelta.core.arrays import Array, Arrays, of_json, to_json
from riverdelta.core.errors import Corrupt, Refused
from riverdelta.core.instruction import Instruction

#: The number of outcomes kept, and the length of a reason in characters, at most.
KEPT, LONGEST = 64, 500


@dataclass(frozen=True)
class Outcome:
    """The result of the control at `sequence`: applied, or `refused` for a reason and without effect.

    `release` is the one made, promoted or rolled back to; `champion` says that it became the champion. `time` is when the
    record was written, and `details` its other fields. `held` is the number of held rows that it learned or dropped.
    `removed` counts by kind what was erased; `pending` says that the registry still has to act on it.
    """

    sequence: int
    action: str
    release: int | None = None
    champion: bool = False
    refused: str | None = None
    time: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    held: int = 0
    removed: Mapping[str, int] | None = None
    pending: bool = False

    @classmethod
    def of(
        cls,
        sequence: int,
        asked: Instruction,
        made: int | None,
        promoted: bool,
        refused: str | None,
        shown: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Return the outcome of a command: its release is the one `made`, or else the one that it names.

        `shown` are the fields that may be shown (default: all).
        """
        said = {"by": asked.by, "asked": asked.asked, "position": asked.position, "trip": asked.trip}
        details = {name: value for name, value in said.items() if value not in (None, "operator")}
        details |= {} if refused is not None else asked.fields if shown is None else shown
        release = asked.release if made is None else made
        return cls(sequence, asked.action, release, promoted, refused, asked.time, details)


class Outcomes(deque[Outcome]):
    """The outcomes of the last `KEPT` controls, oldest first, saved with the learner.

    The registry, the logbook and the operator's answers depend on nothing else.

    >>> outcomes = Outcomes()
    >>> outcomes.append(Outcome(7, "rollback", 3, refused="release 3 is gone"))
    >>> outcomes[-1].refused
    'release 3 is gone'
    """

    def __init__(self) -> None:
        super().__init__(maxlen=KEPT)

    def of(self, sequence: int) -> Outcome | None:
        """Return the outcome of the control at `sequence`, None if there is none or it is no longer kept."""
        return next((outcome for outcome in self if outcome.sequence == sequence), None)

    def finish(self, sequence: int, removed: Mapping[str, int], pending: bool = False) -> None:
        """Record what the registry removed besides for the control at `sequence`, and whether that is all."""
        for place, outcome in enumerate(self):
            if outcome.sequence == sequence:
                self[place] = replace(outcome, pending=pending, removed={**(outcome.removed or {}), **removed})

    def refuse_superseded(self, asked: Instruction) -> None:
        """Raise `Refused` if breaker or trial requested it before the last rollback, which takes precedence."""
        if asked.by not in ("breaker", "trial"):
            return
        back = [outcome.sequence for outcome in self if outcome.action == "rollback" and outcome.refused is None]
        if asked.asked is not None and back and back[-1] > asked.asked:
            raise Refused(f"it was requested at position {asked.asked}, before the rollback at position {back[-1]}")

    def report(self) -> list[dict[str, Any]]:
        """Return the outcomes as plain values, oldest first."""
        return [asdict(outcome) for outcome in self]

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        return {"kept": of_json(self.report())}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned, {} by version 0.1; raises `Corrupt` if it cannot be read."""
        kept = to_json(arrays, "kept") if arrays else []
        try:
            found = [Outcome(**outcome) for outcome in kept]
        except TypeError as error:
            raise Corrupt(f"the saved outcomes in 'kept' cannot be read: {error}") from None
        self.clear()
        self.extend(found)
