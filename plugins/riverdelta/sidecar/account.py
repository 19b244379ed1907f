"""Account: what the learner keeps to show, of every record that it took; nothing that is learned depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.examples import Examples
from riverdelta.core.records import SETTINGS, Control, Impressions
from riverdelta.evaluation.history import History
from riverdelta.evaluation.traffic import Traffic
from riverdelta.learning.admission import Admission
from riverdelta.learning.definition import Definition
from riverdelta.learning.outcomes import Outcome
from riverdelta.sidecar.logbook import Logbook

#: The controls that are counted; a journal may hold others, of another version.
ACTIONS = ("release", "promote", "rollback", "freeze", "resume", "drift")


class Account:
    """History of the losses, traffic, slices, the logbook, and how often each control was obeyed."""

    def __init__(self, definition: Definition, shadow: bool = False) -> None:
        self.history, self.logbook = History(shadow), Logbook()
        self.traffic, self.slices = Traffic(), definition.new_slices()
        self._obeyed: Counter[str] = Counter()

    def scored(self, impressions: Impressions) -> None:
        """Note rows that were scored."""
        self.traffic.observe(impressions)

    def learned(self, sequence: int, examples: Examples, admission: Admission) -> None:
        """Note examples that the record at `sequence` completed."""
        self.history.observe(examples)
        self.slices.observe(examples)
        self.logbook.watch(sequence, float(examples.received[-1]), admission)

    def obeyed(self, outcome: Outcome, control: Control, admission: Admission) -> None:
        """Note a control and what came of it; one that was refused does not count."""
        self._obeyed[control.action] += control.action in ACTIONS and outcome.refused is None
        if control.action == SETTINGS and outcome.sequence == 1:
            return  # what the home began with
        found = {"release": outcome.release, "refused": outcome.refused}
        details = {name: value for name, value in found.items() if value is not None}
        self.logbook.note(outcome.sequence, control.time, control.action, {**details, **control.arguments})
        self.logbook.watch(outcome.sequence, control.time, admission)

    def report(self) -> dict[str, Any]:
        """Return history, events, traffic, slices and controls."""
        return {
            "history": self.history.report(),
            "events": self.logbook.report(),
            "traffic": self.traffic.report(),
            "slices": self.slices.report(),
            "controls": {action: self._obeyed[action] for action in ACTIONS},
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return what `load` needs."""
        arrays = {f"{prefix}/{name}": array for prefix, part in self._parts() for name, array in part.state().items()}
        return arrays | {"controls": np.array([self._obeyed[action] for action in ACTIONS], np.int64)}

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; a part of which nothing was saved begins anew."""
        for prefix, part in self._parts():
            whole = f"{prefix}/"
            part.load({name.removeprefix(whole): array for name, array in arrays.items() if name.startswith(whole)})
        counts = arrays.get("controls", np.zeros(0, np.int64)).tolist()
        self._obeyed = Counter(dict(zip(ACTIONS, counts, strict=False)))

    def _parts(self) -> list[tuple[str, Any]]:
        return [("history", self.history), ("logbook", self.logbook), ("traffic", self.traffic), ("slices", self.slices)]
