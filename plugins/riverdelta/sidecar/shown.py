"""Shown: the observers that only report."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from riverdelta.core.arrays import Array, Arrays, take
from riverdelta.core.examples import Examples
from riverdelta.core.losses import Loss
from riverdelta.core.records import Impressions
from riverdelta.evaluation.history import History
from riverdelta.evaluation.slices import Slices
from riverdelta.evaluation.traffic import Traffic
from riverdelta.evaluation.worth import Worth
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import Learner
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcome
from riverdelta.sidecar.logbook import Logbook

#: The controls that are counted; a journal of another version may hold others.
ACTIONS = ("release", "promote", "rollback", "freeze", "resume", "drift", "rotate-key")


def shown(definition: Definition, learner: Learner, shadow: bool, champions_serve: bool = False) -> dict[str, Observer]:
    """Return the observers that report on a learner, by their names in checkpoints, most of which are from version 0.1.

    Parameters
    ----------
    shadow
        Whether the base serves and the corrections are only measured.
    champions_serve
        Whether only champions serve, so that a promotion replaces the tables that serve.
    """
    return {
        "account/history": ShownHistory(shadow, definition.loss),
        "account/worth": ShownWorth(champions_serve, shadow, definition.loss),
        "account/logbook": Logbook(lambda: learner.admission),
        "account/traffic": ShownTraffic(loss=definition.loss),
        "account/slices": ShownSlices(definition.slices, definition.schema, definition.loss),
        "account": Controls(),
    }


class ShownHistory(History, Observer):
    """The losses of base and served outputs over time."""

    def on_examples(self, position: int, examples: Examples) -> None:
        self.observe(examples)

    def report(self) -> dict[str, Any]:
        return {"history": super().report()}


class ShownWorth(Worth, Observer):
    """The gain of the corrections with the tables that serve now; it starts over when a command replaces them."""

    def __init__(self, champions_serve: bool, shadow: bool, loss: Loss) -> None:
        super().__init__(shadow, loss)
        self._exchanging = ("rollback", "promote") if champions_serve else ("rollback",)

    def on_examples(self, position: int, examples: Examples) -> None:
        self.observe(examples)

    def on_outcome(self, outcome: Outcome) -> None:
        if outcome.refused is None and outcome.action in self._exchanging:
            since = {"action": outcome.action, "release": outcome.release, "position": outcome.sequence, "time": outcome.time}
            self.begin(since)

    def report(self) -> dict[str, Any]:
        return {"worth": super().report()}


class ShownTraffic(Traffic, Observer):
    """The rows served recently."""

    def on_scored(self, position: int, impressions: Impressions) -> None:
        self.observe(impressions)

    def report(self) -> dict[str, Any]:
        return {"traffic": super().report()}


class ShownSlices(Slices, Observer):
    """The losses by slice."""

    def on_examples(self, position: int, examples: Examples) -> None:
        self.observe(examples)

    def report(self) -> dict[str, Any]:
        return {"slices": super().report()}


class Controls(Observer):
    """The number of controls of each kind that were applied; refused ones do not count."""

    def __init__(self) -> None:
        self._obeyed: Counter[str] = Counter()

    def on_outcome(self, outcome: Outcome) -> None:
        self._obeyed[outcome.action] += outcome.action in ACTIONS and outcome.refused is None

    def report(self) -> dict[str, Any]:
        return {"controls": {action: self._obeyed[action] for action in ACTIONS}}

    def state(self) -> dict[str, Array]:
        return {"controls": np.array([self._obeyed[action] for action in ACTIONS], np.int64)}

    def load(self, arrays: Arrays) -> None:
        # Version 0.1 counted fewer kinds, and at first none.
        counts = take(arrays, "controls", np.zeros(0, np.int64), any_rows=True).tolist() if "controls" in arrays else ()
        self._obeyed = Counter(dict(zip(ACTIONS, counts, strict=False)))
