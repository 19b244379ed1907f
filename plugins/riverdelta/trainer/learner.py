"""Learner: records in, learned tables out; the same for a live sidecar, a demo and a replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.events import Control, Record
from riverdelta.features import Floats
from riverdelta.joiner import Examples, Joiner
from riverdelta.prequential import Prequential
from riverdelta.stack import Stack

Arrays = dict[str, npt.NDArray[Any]]


class Learner:
    """Joins records into examples, measures each example before it is learned, and learns it.

    `position` is the sequence number of the last record that was taken. What is learned depends on the records and their
    order alone: not on how they were read, nor on any clock.
    """

    def __init__(self, stack: Stack, joiner: Joiner, prequential: Prequential) -> None:
        self.stack, self.joiner, self.prequential = stack, joiner, prequential
        self.position = 0
        self.examples = 0
        self.frozen = False

    def push(self, sequence: int, record: Record) -> Examples | None:
        """Take the record at `sequence`; return the examples that it completed, already learned."""
        examples = self.joiner.push(sequence, record)
        if isinstance(record, Control):
            self._obey(record)
        if examples is not None and len(examples):
            self.learn(examples)
        self.position = sequence
        return examples

    def learn(self, examples: Examples) -> Floats:
        """Measure the logits as served, then learn; return the corrected logits float32[N] from before the updates."""
        base = np.ascontiguousarray(examples.base).reshape(-1, 1)
        if self.frozen:
            corrected = self.stack.predict(examples.columns, base)
        else:
            corrected = self.stack.learn(examples.columns, base, examples.label, examples.weight)
        self.prequential.update(examples.base, examples.served, examples.label, examples.weight)
        self.examples += len(examples)
        return corrected[:, 0]

    def state(self) -> Arrays:
        """Return everything that the next record depends on, as arrays."""
        arrays = {f"stack/{name}": array for name, array in self.stack.state().items()}
        arrays |= {f"joiner/{name}": array for name, array in self.joiner.state().items()}
        arrays |= {f"prequential/{name}": array for name, array in self.prequential.state().items()}
        arrays["learner"] = np.array([self.position, self.examples, self.frozen], np.int64)
        return arrays

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; raises `Corrupt` where it does not fit this stack."""
        self.stack.load(_part(arrays, "stack/"))
        self.joiner.load(_part(arrays, "joiner/"))
        self.prequential.load(_part(arrays, "prequential/"))
        position, examples, frozen = arrays["learner"].tolist()
        self.position, self.examples, self.frozen = position, examples, bool(frozen)

    def _obey(self, control: Control) -> None:
        if control.action in ("freeze", "resume"):
            self.frozen = control.action == "freeze"


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
