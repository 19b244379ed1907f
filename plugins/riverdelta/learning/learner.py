"""Learner: records in, learned tables out; the same for a live sidecar, a demo and a replay."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt, NotFound, Refused, RiverdeltaError, Unavailable
from riverdelta.core.examples import Examples
from riverdelta.core.features import Schema
from riverdelta.core.records import SETTINGS, Control, Impressions, Record
from riverdelta.core.settings import Settings
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation import drift
from riverdelta.evaluation.drift import Adapt, Freeze
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning import reference
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.definition import Definition
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.outcomes import LONGEST, Outcome, Outcomes
from riverdelta.learning.recall import Nothing, Recall
from riverdelta.learning.terms import in_effect

_log = logging.getLogger(__name__)
Arrays = dict[str, npt.NDArray[Any]]


class Learner:
    """Joins records into examples, measures each example before it is learned, and learns those that are admitted.

    `position` is the sequence number of the last record that was taken. What is learned depends on the records and their
    order alone: not on how they were read, nor on any clock. Controls are records too: freeze and resume, and rollback, for
    which `recall` brings back the state of a release. `outcomes` says what came of each control; one that cannot be carried out
    is refused, and changes nothing.

    Version 0.1 recorded no settings. What precedes the first record of them is learned with the settings of that record, which
    are those that the upgraded service began with: see `begin`. Where the service of 0.1 had others, relearning from a release
    that it made gives the same tables whenever it is done, and not the tables of then.
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
        again: Callable[[], Learner] | None = None,
        configure: Callable[[Learner, Mapping[str, Any]], None] = lambda learner, settings: None,
    ) -> None:
        self.stack, self.joiner, self.prequential = stack, joiner, prequential
        self.gate, self.admission, self.shadow = gate or Gate(), admission or Admission(), shadow
        self.adaptation = adaptation or Adaptation()
        self.recall = Nothing()
        self.outcomes = Outcomes()
        self._again, self._configure = again, configure
        #: The settings in effect, as the last record of them has them; {} before the first.
        self.settings: dict[str, Any] = {}
        #: The last record taken; examples joined, of them those learned; examples at the last call for a release.
        self.position = self.examples = self.learned = self.released_at = 0
        self.frozen = False

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

    def push(self, sequence: int, record: Record, observe: Callable[[Examples], None] = lambda examples: None) -> None:
        """Take the record at `sequence`: measure and learn the examples that it completes, and show them to `observe`.

        They come in several parts where they would take too much memory at once. Where something cannot be read now it raises,
        and the same record can be pushed again: what is learned by then is not learned again.
        """
        learned = False
        while True:
            examples = self.joiner.push(sequence, record)
            if examples is not None:
                self.learn(examples)
                observe(examples)
                learned = True
            if not self.joiner.unfinished:
                break
        if isinstance(record, Impressions):
            self.admission.scored(len(record))
        elif isinstance(record, Control):
            self._obey(sequence, record)
        if learned:
            self.gate.note(sequence)
        self.position = sequence

    def learn(self, examples: Examples) -> None:
        """Measure the logits as served, learn what is admitted, then respond to a drift that they showed."""
        e = examples
        rows, label, importance = e.measured()
        base, corrected, served = (raw[rows, 0] for raw in (e.base, e.corrected, e.served))
        self.prequential.update(base, served, label, importance)
        self.gate.update(base, corrected, None if self.shadow else served, label, importance, e.position[rows])
        drifts = self.adaptation.watch(e)
        admitted = self.admission.admit(e)
        self.examples += len(e)
        if not self.frozen and admitted.any():
            self._learn(e, admitted)
        if drifts:
            self._respond()

    def _learn(self, e: Examples, admitted: npt.NDArray[np.bool_]) -> None:
        columns: Mapping[str, npt.NDArray[Any]] = e.columns
        base, label, weight = e.base, e.label, e.weight
        if not admitted.all():
            columns = {name: column[admitted] for name, column in columns.items()}
            base, label, weight = base[admitted], label[admitted], weight[admitted]
        weight = self.adaptation.weighted(weight)
        self.stack.learn(columns, np.ascontiguousarray(base), label, weight)
        # What the base has no number for, no correction learns.
        self.learned += int(np.isfinite(base).sum())

    def _respond(self) -> None:
        response = self.adaptation.response
        if isinstance(response, Adapt):
            self.stack.widen(response.forget)
            self.adaptation.left = response.for_examples
        elif isinstance(response, Freeze):
            self.frozen = True

    def state(self, position: int | None = None) -> Arrays:
        """Return everything that the next record depends on, as arrays; `position` is that of a record being taken."""
        arrays: Arrays = {}
        for prefix, part in self._parts():
            arrays |= {f"{prefix}{name}": array for name, array in part.state().items()}
        at = self.position if position is None else position
        arrays["learner"] = np.array([at, self.examples, self.learned, self.released_at, self.frozen], np.int64)
        arrays["settings"] = np.frombuffer(json.dumps(self.settings, sort_keys=True).encode(), np.uint8)
        return arrays

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go on from what `state` returned; raises `Corrupt` where it does not fit this stack.

        A state without settings, as version 0.1 saved it, takes those that `begin` does.
        """
        if "learner" not in arrays or arrays["learner"].shape != (5,):
            raise Corrupt("the saved state lacks 'learner'; it was written by another version: move the checkpoints away")
        if settings := json.loads(arrays["settings"].tobytes()) if "settings" in arrays else {}:
            self.configure(settings)
        else:
            self.begin()
        for prefix, part in self._parts():
            part.load(_part(arrays, prefix))
        position, examples, learned, released_at, frozen = arrays["learner"].tolist()
        self.position, self.examples, self.learned, self.released_at = position, examples, learned, released_at
        self.frozen = bool(frozen)

    def _parts(self) -> list[tuple[str, Any]]:
        return [
            ("stack/", self.stack),
            ("joiner/", self.joiner),
            ("prequential/", self.prequential),
            ("gate/", self.gate),
            ("admission/", self.admission),
            ("adaptation/", self.adaptation),
            ("outcomes/", self.outcomes),
        ]

    def _obey(self, sequence: int, control: Control) -> None:
        """Do what a control asks for, wholly or not at all, and keep what came of it."""
        if control.action == "refused":  # what it says was found out when the control that it names was read
            return
        if control.action == "freeze":
            self.frozen = True
        elif control.action == "resume":
            self.frozen = False
            self.admission.resume()
        elif control.action == "release":
            self.released_at = self.examples
        elif control.action == "drift":
            self.adaptation.note(control)
        elif control.action == "rollback":
            self.admission.answered(control)
        self.outcomes.add(self._outcome(sequence, control))

    def _outcome(self, sequence: int, control: Control) -> Outcome:
        release, refused = control.arguments.get("release"), self.recall.refusal(sequence)
        # Version 0.1 wrote no "promote": there, every rollback promoted.
        promoted = control.action == "promote" or (control.action == "rollback" and control.arguments.get("promote", True))
        if refused is None:
            try:
                self._refuse_superseded(control)
                self.recall.check(control)
                if control.action == "release":
                    release = self.recall.keep(self, sequence)
                elif control.action == "rollback":
                    self._roll_back(sequence, control)
                elif control.action == SETTINGS:
                    self.configure(control.arguments)
                    self.joiner.upgraded()
            except Unavailable:
                raise  # of what may pass, nothing is decided yet
            except (RiverdeltaError, LookupError, TypeError, ValueError) as error:
                refused = (str(error) if isinstance(error, RiverdeltaError) else repr(error))[:LONGEST]
                self.recall.refuse(sequence, refused)
                _log.error("the %s at position %d is refused: %s", control.action, sequence, refused)
        return Outcome(sequence, control.action, release, bool(promoted) and refused is None, refused)

    def _refuse_superseded(self, control: Control) -> None:
        """Refuse what this learner asked for itself before it read a rollback: an operator's word counts for more."""
        asked = control.arguments.get("asked")
        back = [o.sequence for o in self.outcomes if o.action == "rollback" and o.refused is None]
        if asked is not None and back and back[-1] > asked:
            raise Refused(f"it was asked for at position {asked}, before the rollback at position {back[-1]}")

    def _roll_back(self, sequence: int, control: Control) -> None:
        since = int(control.arguments["position"])
        arrays = self.recall.state(since)
        stack = _part(arrays, "stack/")
        if control.arguments.get("relearn"):
            stack = self._relearned(arrays, since, sequence)
        before = {name: array.copy() for name, array in self.stack.state().items()}
        try:
            self.stack.load(stack)
        except Corrupt:
            self.stack.load(before)
            raise
        self.frozen = self.frozen or bool(control.arguments.get("freeze"))

    def _relearned(self, arrays: Mapping[str, npt.NDArray[Any]], since: int, until: int) -> Arrays:
        """The stack's state after learning the examples of the records between two positions again."""
        if self._again is None:
            raise NotFound("this learner cannot learn anything again")
        other = self._again()
        other.recall = self.recall
        if "learner" in arrays:
            other.load(arrays)
            other.frozen = False
        else:
            other.begin()
        unmatched = other.joiner.unmatched
        for sequence, record in self.recall.records(since, until):
            if not isinstance(record, Control) or record.action == SETTINGS:
                other.push(sequence, record)
        if lost := other.joiner.unmatched - unmatched:
            raise NotFound(f"the impressions of {lost} labels are no longer there; roll back without relearning")
        return other.stack.state()


def new_learner(definition: Definition, settings: Settings) -> Learner:
    """Return a learner at position 0; the same records make the same tables from it, wherever it runs.

    `settings` are those before the first record of them.
    """
    stack, given = definition.new_stack(), reference.load(definition)
    read = Schema({name: definition.schema[name] for name in stack.reads})
    keys = [name for name, column in read.items() if column.kind == "id"]

    def configure(learner: Learner, changed: Mapping[str, Any]) -> None:
        s = settings.learning_as(changed)
        response = drift.of_record(changed["on_drift"]) if "on_drift" in changed else definition.on_drift
        if changed.get("reference") != (found := given and given.digest.hex()):
            _log.warning("drift was watched against the reference %s, and is now against %s", changed.get("reference"), found)
        adaptation = Adaptation.of(read, response, s, given)
        learner.joiner.configure(s.labels, s.window_seconds, s.on_conflict != "first", s.late, s.keep_negatives)
        admission, learner.admission = learner.admission, Admission.of(keys, s)
        learner.admission.load(admission.state())
        before, learner.adaptation = learner.adaptation, adaptation
        learner.adaptation.load(before.state())
        learner.shadow = s.serve == "base"

    learner = Learner(
        stack,
        Joiner(max_bytes=settings.waiting_bytes, reads=stack.reads, loss=definition.loss),
        Prequential(settings.threshold),
        again=lambda: new_learner(definition, settings),
        configure=configure,
    )
    configure(learner, in_effect(definition, settings))
    return learner


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
