"""Fold: turns journal records into learned tables, passing examples through its parts."""

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
from riverdelta.core.examples import Examples, cuts, number
from riverdelta.core.features import Columns, Floats, Ints
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Impressions, Record
from riverdelta.core.settings import ADDED
from riverdelta.corrections.interval import Intervals
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.drift import Adapt, Freeze
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.measures.known import Moments
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.breaker import CHECK
from riverdelta.learning.held import BLOCK, Held
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.observers import Observer
from riverdelta.learning.outcomes import Outcomes
from riverdelta.learning.recall import Recall

_log = logging.getLogger(__name__)
#: Rows that are scored, learned and measured in one call.
AT_ONCE = 1024


class Fold(ABC):
    """Joins records into examples, measures each example before learning it, and learns those that are admitted.

    `position` is the sequence number of the last record applied. What is learned depends only on the records and their order,
    not on how they were read or on a clock.

    `observers` are called with the rows scored, the examples joined and the outcomes of commands; learning never depends on
    them. `pulse` is called after each part of a record, to show progress on a long one.
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
        intervals: Intervals | None = None,
        configure: Callable[[Fold, Mapping[str, Any]], None] = lambda fold, settings: None,
    ) -> None:
        self.stack, self.joiner, self.prequential = stack, joiner, prequential
        self.gate, self.admission, self.shadow = gate or Gate(), admission or Admission(), shadow
        self.adaptation = adaptation or Adaptation()
        self.intervals = intervals
        #: What the breaker keeps from being learned.
        self.held = Held(stack)
        self.recall = Recall()
        self.outcomes = Outcomes()
        #: By the name under which their state is saved.
        self.observers: dict[str, Observer] = {}
        self.pulse: Callable[[], None] = lambda: None
        self._configure = configure
        #: The settings in effect, from their newest record; {} before the first.
        self.settings: dict[str, Any] = {}
        #: The last record applied; examples joined, and learned; examples at the last request for a release.
        self.position = self.examples = self.learned = self.released_at = 0
        self.frozen = False
        #: Which of the last examples were learned, bool[M].
        self.admitted = np.empty(0, np.bool_)

    @property
    def recall(self) -> Recall:
        """The past that a rollback returns to and old impressions are read from."""
        return self._recall

    @recall.setter
    def recall(self, recall: Recall) -> None:
        self._recall = self.joiner.waiting.source = recall

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply other settings from here on; raises `ConfigurationError` naming an invalid one, and then changes nothing."""
        self._configure(self, settings)
        self.settings = dict(settings)

    def begin(self) -> None:
        """Apply the first settings on record, from `recall`, to the records before them; without any nothing changes.

        Settings that the version which wrote those records lacked have no effect on them.
        """
        if first := self.recall.settings():
            # Nothing has been read yet, so no state under other settings is lost.
            self.admission, self.adaptation = Admission(), Adaptation()
            self.configure({**first, **ADDED})

    @property
    def parts(self) -> dict[str, Stateful]:
        """The parts of the learner's state besides settings and counts, by the name under which they are saved."""
        return {
            "stack": self.stack,
            "joiner": self.joiner,
            "prequential": self.prequential,
            "gate": self.gate,
            "admission": self.admission,
            "held": self.held,
            "adaptation": self.adaptation,
            "outcomes": self.outcomes,
            **({} if self.intervals is None else {"intervals": self.intervals}),
        }

    def push(self, sequence: int, record: Record) -> None:
        """Apply the record at `sequence`: measure and learn the examples that it completes, and call the observers.

        Examples come in several parts if they would take too much memory. If something cannot be read now it raises, and the
        same record can be pushed again: what is already learned is not learned again.
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
            self.show("on_scored", sequence, record)
        elif isinstance(record, Control | Instruction):
            self.obey(sequence, record)
        if learned:
            self.gate.note(sequence)
        self.position = sequence

    def show(self, hook: str, *shown: Any) -> None:
        """Call a method of all observers; one that fails is logged, without effect on learning or the others."""
        for name, observer in self.observers.items():
            try:
                getattr(observer, hook)(*shown)
            except Exception:
                _log.exception("the observer %r failed at %s", name, hook)

    @abstractmethod
    def obey(self, sequence: int, record: Control | Instruction) -> None:
        """Apply the command at `sequence`, and keep its outcome."""

    def learn(self, examples: Examples) -> None:
        """Measure the outputs as served, learn the admitted examples, then respond to drift if they raised an alarm."""
        e = examples
        rows, label, importance = e.measured()
        base, corrected, served = e.base[rows], e.corrected[rows], e.served[rows]
        self.prequential.update(base, served, label, importance, **self._context(e, rows))
        as_served = None if self.shadow else served
        self.gate.update(base, corrected, as_served, label, importance, e.position[rows], **e.lists(rows))
        if self.intervals is not None:
            self.intervals.observe(e)
        drifts = self.adaptation.watch(e)
        self._admit(e)
        if self.admitted.any():
            self._learn(e, slice(None) if self.admitted.all() else self.admitted)
        if drifts:
            self._respond()

    def learn_at_once(self, examples: Examples) -> Examples:
        """Learn examples, each scored after all before it are learned, and return them as they would have been served.

        The result is the same, bit for bit, as with one record of the impression and one of the label for each row in turn, if
        all labels are explicit, every negative is kept, nothing responds to drift and blocks have `AT_ONCE` rows: `corrected`
        and `served` are computed while the rows are learned. Positions and observers are not used: it is for logs, not for a
        journal.
        """
        e, corrected, admitted = examples, np.empty_like(examples.base), np.empty(len(examples), np.bool_)
        for rows in cuts(len(e), e.group, CHECK):
            part = e[rows]
            passes = self._admit(part, watched=False)
            for first, last in pairwise([0, *(np.flatnonzero(np.diff(self.admitted)) + 1).tolist(), len(part)]):
                learned = slice(first, last)
                corrected[rows][learned] = (self._learn if self.admitted[first] else self._predict)(part, learned)
            self.admission.watch(replace(part, corrected=corrected[rows]), passes)
            admitted[rows] = self.admitted
        self.admitted = admitted
        served = self.gate.serve(e.base, corrected, e.label, e.importance, **e.lists())
        e = replace(e, corrected=corrected, served=e.base if self.shadow else served)
        self.prequential.update(e.base, e.served, e.label, e.importance, **self._context(e))
        if self.intervals is not None:
            self.intervals.observe(e, e.served)
        self.adaptation.watch(e)
        return e

    def _context(self, e: Examples, rows: slice | npt.NDArray[Any] = slice(None)) -> dict[str, Any]:
        """Return what baselines need of the rows: their lists, times and items."""
        item = e.columns.get(self.stack.loss.item or "")
        moments = Moments(np.where(np.isfinite(e.event), e.event, e.scored), e.scored, e.received, item)
        return {**e.lists(rows), "moments": moments.at(rows)}

    def learn_held(self) -> None:
        """Learn the examples that are held, in order, unless the breaker is open or learning is frozen.

        The tables are then those of a learner whose breaker had not tripped and to which these examples come now.
        """
        while len(self.held) and not self.frozen and not self.admission.open:
            self._learn_rows(*self.held.take(BLOCK))
            self.pulse()

    def _admit(self, e: Examples, watched: bool = True) -> npt.NDArray[np.bool_]:
        """Note in `admitted` which examples may be learned now, and hold those for later; neither while learning is frozen.

        Returns bool[M]: those of either kind, frozen or not.
        """
        now, later = self.admission.admit(e, watched)
        self.admitted = now & (not self.frozen)
        self.examples += number(np.ones(len(e), np.bool_), e.group)
        if not self.frozen and later.any():
            self.held.put(e, later)
        return now | later

    def _learn(self, e: Examples, rows: slice | npt.NDArray[np.bool_]) -> Floats:
        """Learn some of the rows; return each row's corrected output from before its own update."""
        base, group = np.ascontiguousarray(e.base[rows]), e.lists(rows).get("group")
        propensity = None if e.propensity is None else e.propensity[rows]
        return self._learn_rows(self._columns(e, rows), base, e.label[rows], e.weight[rows], group, propensity)

    def _learn_rows(
        self, columns: Columns, base: Floats, label: Floats, weight: Floats, group: Ints | None, propensity: Floats | None
    ) -> Floats:
        # Rows for which the base returns no number are not learned.
        self.learned += number(np.logical_and.reduce(np.isfinite(base), axis=1), group)
        return self.stack.learn(columns, base, label, self.adaptation.weighted(weight), group, propensity)

    def serve(self, columns: Columns, base: Floats, group: Ints | None = None) -> tuple[Floats, Floats]:
        """Return the corrected and the served outputs of rows, by the current tables and gate; `group` is as in `Examples`."""
        corrected = self.stack.predict(columns, base)
        served = base if self.shadow else self.stack.loss.mix(base, corrected, self.gate.weight, group)
        return corrected, np.asarray(served, np.float32)

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
        """Return the learning part of the status."""
        return {
            "frozen": self.frozen,
            "position": self.position,
            "examples": self.examples,
            "learned": self.learned,
            **self.joiner.report(),
            "outcomes": self.outcomes.report(),
            "gate": self.gate.report(),
            "admission": self.admission.report(),
            "held": self.held.report(),
            "drift": self.adaptation.report(),
            "occupancy": self.stack.occupancy(),
            "bytes": {name: {"now": now, "most": most} for name, (now, most) in self.stack.sizes().items()},
            "prequential": self.prequential.report(),
            "intervals": {} if self.intervals is None else self.intervals.report(),
        }

    def state(self, position: int | None = None) -> dict[str, Array]:
        """Return everything that the next record depends on, as arrays; `position` is that of the record being applied."""
        at = self.position if position is None else position
        counts = np.array([at, self.examples, self.learned, self.released_at, self.frozen], np.int64)
        parts = nest({name: each.state() for name, each in self.parts.items()})
        return parts | {"learner": counts, "settings": of_json(self.settings)}

    def load(self, arrays: Arrays) -> None:
        """Restore what `state` returned; raises `Corrupt` if it does not fit this stack.

        A state without settings, as version 0.1 saved it, gets those that `begin` applies.
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
