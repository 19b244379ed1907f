"""Adaptation: whether the stream drifts, and what the learner does when it does."""

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
    """A drift detector and the response to its alarms; without a detector nothing ever happens."""

    def __init__(self, drift: Drift | None = None, response: Response | None = None) -> None:
        self.drift, self.response = drift, response
        #: What raised the last alarm; alarms that the journal knows of; examples yet to be learned at the raised rate.
        self.quantity: str | None = None
        self.recorded = self.left = 0

    def watch(self, examples: Examples) -> bool:
        """Take joined examples, in order; return whether they raised an alarm."""
        e = examples
        alarms = self.drift.update(e.columns, e.base, e.served, e.label) if self.drift else []
        if alarms:
            self.quantity = alarms[-1]
            _log.warning("the stream drifts: %s, at example %d", self.quantity, self.examples)
        return bool(alarms)

    def weighted(self, weight: Floats) -> Floats:
        """Return what the next examples are learned with, float32[M]: their weight, times the raised rate while it lasts."""
        fast = min(self.left, len(weight))
        if not fast or not isinstance(self.response, Adapt):
            return weight
        self.left -= fast
        raised = weight.copy()
        raised[:fast] *= np.float32(self.response.rate)
        return raised

    @property
    def examples(self) -> int:
        """How many examples were watched."""
        return self.drift.examples if self.drift else 0

    @property
    def unrecorded(self) -> Control | None:
        """The record of an alarm that is not in the journal yet."""
        if self.drift is None or self.drift.alarms <= self.recorded:
            return None
        response = "adapt" if isinstance(self.response, Adapt) else "freeze" if isinstance(self.response, Freeze) else "none"
        report = {"quantity": self.quantity, "example": self.drift.last_alarm, "alarms": self.drift.alarms}
        return Control("drift", report | {"response": response})

    def note(self, control: Control) -> None:
        """Take the journal's record of an alarm."""
        self.recorded = max(self.recorded, int(control.arguments.get("alarms", 0)))

    def report(self) -> dict[str, Any]:
        """Return what the detector says, and how many examples are still learned at the raised rate."""
        return {} if self.drift is None else self.drift.report() | {"adapting_examples": self.left}

    def state(self) -> dict[str, Array]:
        """Return what `load` needs."""
        which = self.drift.quantities.index(self.quantity) if self.drift and self.quantity else -1
        counts = np.array([self.recorded, self.left, which], np.int64)
        return {"counts": counts} | (nest({"drift": self.drift.state()}) if self.drift else {})

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned; a detector of other settings begins anew."""
        recorded, left, which = take(arrays, "counts", np.zeros(3, np.int64)).tolist()
        if self.drift is None or not (saved := part(arrays, "drift")):
            return
        try:
            self.drift.load(saved)
        except Corrupt as error:
            _log.warning("drift is watched anew: %s", error)
            return
        self.recorded, self.left = recorded, left
        self.quantity = self.drift.quantities[which] if which >= 0 else None
