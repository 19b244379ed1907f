"""Adaptation: detects drift of the joined stream and responds to it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, nest, part, take
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats
from riverdelta.core.records import Control
from riverdelta.evaluation.drift import Adapt, Drift, Freeze, Response

_log = logging.getLogger(__name__)


class Adaptation:
    """A drift detector and the response to its alarms; without a detector it does nothing."""

    def __init__(self, drift: Drift | None = None, response: Response | None = None) -> None:
        self.drift, self.response = drift, response
        #: The quantity of the last alarm; alarms recorded in the journal; examples still to be learned at the raised rate.
        self.quantity: str | None = None
        self.recorded = self.left = 0

    def watch(self, examples: Examples) -> bool:
        """Observe joined examples in order; return whether they raised an alarm."""
        e = examples
        alarms = self.drift.update(e.columns, e.base, e.served, e.label, **e.lists()) if self.drift else []
        if alarms and self.drift:
            self.quantity = alarms[-1]
            _log.warning("drift in the joined stream: %s, at example %d", self.drift.cause, self.examples)
        return bool(alarms)

    def weighted(self, weight: Floats) -> Floats:
        """Return the learning weights of the next examples, float32[M], multiplied by the raised rate while it lasts."""
        fast = min(self.left, len(weight))
        if not fast or not isinstance(self.response, Adapt):
            return weight
        self.left -= fast
        raised = weight.copy()
        raised[:fast] *= np.float32(self.response.rate)
        return raised

    @property
    def examples(self) -> int:
        """The number of examples observed."""
        return self.drift.examples if self.drift else 0

    @property
    def unrecorded(self) -> Control | None:
        """The record of an alarm that is not in the journal yet, or None."""
        if self.drift is None or self.drift.alarms <= self.recorded:
            return None
        response = "adapt" if isinstance(self.response, Adapt) else "freeze" if isinstance(self.response, Freeze) else "none"
        report = {"quantity": self.drift.cause or self.quantity, "example": self.drift.last_alarm, "alarms": self.drift.alarms}
        return Control("drift", report | {"response": response})

    def note(self, control: Control) -> None:
        """Apply the journal's record of an alarm."""
        self.recorded = max(self.recorded, int(control.arguments.get("alarms", 0)))

    def report(self) -> dict[str, Any]:
        """Return the detector's report, and how many examples remain at the raised rate."""
        return {} if self.drift is None else self.drift.report() | {"adapting_examples": self.left}

    def state(self) -> dict[str, Array]:
        """Return the state to save."""
        which = self.drift.quantities.index(self.quantity) if self.drift and self.quantity else -1
        counts = np.array([self.recorded, self.left, which], np.int64)
        return {"counts": counts} | (nest({"drift": self.drift.state()}) if self.drift else {})

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; a detector with other settings starts over."""
        recorded, left, which = take(arrays, "counts", np.zeros(3, np.int64)).tolist()
        if self.drift is None or not (saved := part(arrays, "drift")):
            return
        try:
            self.drift.load(saved)
        except Corrupt as error:
            _log.warning("the drift detector starts over: %s", error)
            return
        self.recorded, self.left = recorded, left
        self.quantity = self.drift.quantities[which] if which >= 0 else None
