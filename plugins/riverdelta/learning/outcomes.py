"""Outcomes: what came of each control that the learner has read."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt

#: How many outcomes are kept, and the most characters of a reason.
KEPT, LONGEST = 64, 500


@dataclass(frozen=True)
class Outcome:
    """What came of the control at `sequence`: done, or `refused` for a reason, and then nothing has changed.

    `release` is the one that was made, promoted or rolled back to; `champion` says that it is the champion from here on.
    """

    sequence: int
    action: str
    release: int | None = None
    champion: bool = False
    refused: str | None = None


class Outcomes:
    """The outcomes of the last `KEPT` controls, oldest first, saved with the learner.

    The registry, the logbook and the operator's answer act on them and on nothing else.

    >>> outcomes = Outcomes()
    >>> outcomes.add(Outcome(7, "rollback", 3, refused="release 3 is gone"))
    >>> outcomes.of(7).refused
    'release 3 is gone'
    """

    def __init__(self) -> None:
        self._kept: deque[Outcome] = deque(maxlen=KEPT)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._kept)

    def add(self, outcome: Outcome) -> None:
        """Keep the newest outcome."""
        self._kept.append(outcome)

    def of(self, sequence: int) -> Outcome | None:
        """Return the outcome of the control at `sequence`, None where there is none or it is no longer kept."""
        return next((outcome for outcome in self._kept if outcome.sequence == sequence), None)

    def report(self) -> list[dict[str, Any]]:
        """Return the outcomes as plain values, oldest first."""
        return [asdict(outcome) for outcome in self._kept]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        return {"kept": np.frombuffer(json.dumps(self.report()).encode(), np.uint8)}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; version 0.1 saved none. Raises `Corrupt` where it cannot be read."""
        self._kept.clear()
        if not arrays:
            return
        try:
            self._kept.extend(Outcome(**outcome) for outcome in json.loads(arrays["kept"].tobytes()))
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"the saved outcomes cannot be read: {error!r}") from None
