"""Fold: records in, learned tables out; what is learned is the state of named parts, which examples pass in turn."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.arrays import Array, Arrays, Stateful, nest, of_json, part, take, to_json
from riverdelta.core.examples import Examples
from riverdelta.core.features import Floats
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Impressions, Record
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.drift import Adapt, Freeze
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcomes
from riverdelta.learning.recall import Recall

_log = logging.getLogger(__name__)


class Fold(ABC):
    """Joins records into examples, measures each example before it is learned, and learns those that are admitted.

    `position` is the sequence number of the last record that was taken. What is learned depends on the records and their
    order alone: not on how they were read, nor on any clock.

    `observers` are shown what is scored, joined and done; nothing that is learned depends on them. `pulse` is called after each
    part of a record, so that whoever watches knows that a long one goes on.
    """

    def __init__(
        self,
        stack: Stack,
        joiner: Joiner,
        prequential: Prequential,
        gate: Gate | None = None,
        admission: Admission | None = None,
        adaptation: Adaptation | None = None,
        shadow: bool = False,
        configure: Callable[[Fold, Mapping[str, Any]], None] = lambda fold, settings: None,
    ) -> None:
        self.stack, self.joiner, self.prequential = stack, joiner, prequential
        self.gate, self.admission, self.shadow = gate or Gate(), admission or Admission(), shadow
        self.adaptation = adaptation or Adaptation()
        self.recall = Recall()
        self.outcomes = Outcomes()
        #: By the name that their state is saved under.
        self.observers: dict[str, Observer] = {}
        self.pulse: Callable[[], None] = lambda: None
        self._configure = configure
        #: The settings in effect, as the last record of them has them; {} before the first.
        self.settings: dict[str, Any] = {}
        #: The last record taken; examples joined, of them those learned; examples at the last call for a release.
        self.position = self.examples = self.learned = self.released_at = 0
        self.frozen = False
        #: Which of the examples taken last were learned, bool[M].
        self.admitted = np.empty(0, np.bool_)

    @property
    def recall(self) -> Recall:
        """The past that a rollback goes back to and that old impressions are read back from."""
        return self._recall

    @recall.setter
    def recall(self, recall: Recall) -> None:
        self._recall = self.joiner.waiting.source = recall

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings; raises `ConfigurationError` naming one that is not valid, and changes nothing then."""
        self._configure(self, settings)
        self.settings = dict(settings)

    def begin(self) -> None:
        """Take the first settings on record for the records before them; `recall` has them, without any nothing changes."""
        if first := self.recall.settings():
            # What other settings have begun with is not carried over: nothing has been read yet.
            self.admission, self.adaptation = Admission(), Adaptation()
            self.configure(first)

    @property
    def parts(self) -> dict[str, Stateful]:
        """What the learner's state is made of, by the name that it is saved under, besides its settings and counts."""
        return {
            "stack": self.stack,
            "joiner": self.joiner,
            "prequential": self.prequential,
            "gate": self.gate,
            "admission": self.admission,
            "adaptation": self.adaptation,
            "outcomes": self.outcomes,
        }

    def push(self, sequence: int, record: Record) -> None:
        """Take the record at `sequence`: measure and learn the examples that it completes, and show them to the observers.

        They come in several parts where they would take too much memory at once. Where something cannot be read now it raises,
        and the same record can be pushed again: what is learned by then is not learned again.
        """
        learned = False
        while True:
            examples = self.joiner.push(sequence, record)
            if examples is not None:
                self.learn(examples)
                self.show("on_examples", sequence, examples)
                learned = True
            self.pulse()
            if not self.joiner.unfinished:
                break
        if isinstance(record, Impressions):
            self.admission.scored(len(record))
            self.show("on_scored", sequence, record)
        elif isinstance(record, Control | Instruction):
            self.obey(sequence, record)
        if learned:
            self.gate.note(sequence)
        self.position = sequence

    def show(self, hook: str, *shown: Any) -> None:
        """Show the observers what was read; one that fails is logged, and neither learning nor the others notice."""
        for name, observer in self.observers.items():
            try:
                getattr(observer, hook)(*shown)
            except Exception:
                _log.exception("the observer %r failed at %s", name, hook)

    @abstractmethod
    def obey(self, sequence: int, record: Control | Instruction) -> None:
        """Do what the record at `sequence` asks for, and keep what came of it."""

    def learn(self, examples: Examples) -> None:
        """Measure the logits as served, learn what is admitted, then respond to a drift that they showed."""
        e = examples
        rows, label, importance = e.measured()
        base, corrected, served = e.base[rows], e.corrected[rows], e.served[rows]
        self.prequential.update(base, served, label, importance)
        self.gate.update(base, corrected, None if self.shadow else served, label, importance, e.position[rows])
        drifts = self.adaptation.watch(e)
        self.admitted = self.admission.admit(e) & (not self.frozen)
        self.examples += len(e)
        if self.admitted.any():
            self._learn(e, slice(None) if self.admitted.all() else self.admitted)
        if drifts:
            self._respond()

    def learn_at_once(self, examples: Examples) -> Examples:
        """Return examples as served where each row is scored when all rows before it are learned; learns them too.

        What is learned, served and measured is the same, bit for bit, as by one record of the impression and one of the label
        for each row in turn, if all labels are explicit, every negative is kept, nothing responds to drift and blocks have
        1,024 rows: `corrected` and `served` are found while the rows are learned. Positions and observers take no part in it:
        it is for logs, not for a journal.
        """
        e, count = examples, len(examples)
        self.admission.scored(count)
        self.admitted = self.admission.admit(e) & (not self.frozen)
        self.examples += count
        corrected = np.empty_like(e.base)
        for first, last in pairwise([0, *(np.flatnonzero(np.diff(self.admitted)) + 1).tolist(), count]):
            rows = slice(first, last)
            corrected[rows] = (self._learn if self.admitted[first] else self._predict)(e, rows)
        served = self.gate.serve(e.base, corrected, e.label, e.importance)
        e = replace(e, corrected=corrected, served=e.base if self.shadow else served)
        self.prequential.update(e.base, e.served, e.label, e.importance)
        self.adaptation.watch(e)
        return e

    def _learn(self, e: Examples, rows: slice | npt.NDArray[np.bool_]) -> Floats:
        """Learn some of the rows; return their corrected outputs from before each row's own update."""
        base = np.ascontiguousarray(e.base[rows])
        # What the base has no number for, no correction learns.
        self.learned += int(np.isfinite(base).all(axis=1).sum())
        return self.stack.learn(self._columns(e, rows), base, e.label[rows], self.adaptation.weighted(e.weight[rows]))

    def _predict(self, e: Examples, rows: slice) -> Floats:
        return self.stack.predict(self._columns(e, rows), np.ascontiguousarray(e.base[rows]))

    def _columns(self, e: Examples, rows: slice | npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        return {name: e.columns[name][rows] for name in self.stack.reads}

    def _respond(self) -> None:
        response = self.adaptation.response
        if isinstance(response, Adapt):
            self.stack.inflate(response.forget)
            self.adaptation.left = response.for_examples
        elif isinstance(response, Freeze):
            self.frozen = True

    def report(self) -> dict[str, Any]:
        """Return what the status says of learning."""
        return {
            "frozen": self.frozen,
            "position": self.position,
            "examples": self.examples,
            "learned": self.learned,
            **self.joiner.report(),
            "outcomes": self.outcomes.report(),
            "gate": self.gate.report(),
            "admission": self.admission.report(),
            "drift": self.adaptation.report(),
            "occupancy": self.stack.occupancy(),
            "prequential": self.prequential.report(),
        }

    def state(self, position: int | None = None) -> dict[str, Array]:
        """Return everything that the next record depends on, as arrays; `position` is that of a record being taken."""
        at = self.position if position is None else position
        counts = np.array([at, self.examples, self.learned, self.released_at, self.frozen], np.int64)
        parts = nest({name: each.state() for name, each in self.parts.items()})
        return parts | {"learner": counts, "settings": of_json(self.settings)}

    def load(self, arrays: Arrays) -> None:
        """Go on from what `state` returned; raises `Corrupt` where it does not fit this stack.

        A state without settings, as version 0.1 saved it, takes those that `begin` does.
        """
        counts = take(arrays, "learner", np.zeros(5, np.int64)).tolist()
        if settings := to_json(arrays, "settings") if "settings" in arrays else {}:
            self.configure(settings)
        else:
            self.begin()
        for name, each in self.parts.items():
            each.load(part(arrays, name))
        self.position, self.examples, self.learned, self.released_at, frozen = counts
        self.frozen = bool(frozen)
