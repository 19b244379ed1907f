"""Learner: a fold that obeys controls; the same for a live sidecar, a demo and a replay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from riverdelta.core.arrays import Arrays, part
from riverdelta.core.errors import Corrupt, NotFound, RiverdeltaError, Unavailable
from riverdelta.core.features import Schema
from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import Settings
from riverdelta.evaluation import drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning import reference
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.definition import Definition
from riverdelta.learning.fold import Fold
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.outcomes import LONGEST, Outcome

_log = logging.getLogger(__name__)


class Learner(Fold):
    """A fold that obeys the controls among its records: freeze and resume, settings, releases, and rollback.

    `recall` brings back the state of a release, and `outcomes` says what came of each control; one that
    cannot be carried out is refused, and changes nothing.

    Version 0.1 recorded no settings. What precedes the first record of them is learned with the settings of that record, which
    are those that the upgraded service began with: see `begin`. Where the service of 0.1 had others, relearning from a release
    that it made gives the same tables whenever it is done, and not the tables of then.
    """

    #: Makes the learner that a rollback learns again in, from the state of the release.
    again: Callable[[], Learner]
    #: While a rollback learns again: the positions that it began after, has come to, and ends before.
    relearning: dict[str, int] | None = None

    def report(self) -> dict[str, Any]:
        """Return what the status says of learning."""
        return super().report() | {"relearning": self.relearning}

    def obey(self, sequence: int, control: Control) -> None:
        """Do what a control asks for, all of it or nothing, and keep what came of it."""
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
        outcome = self._outcome(sequence, control)
        self.outcomes.append(outcome)
        self.show("on_outcome", outcome, control)

    def _outcome(self, sequence: int, control: Control) -> Outcome:
        release, refused = control.arguments.get("release"), self.recall.refusal(sequence)
        # Version 0.1 wrote no "promote": there, every rollback promoted.
        promoted = control.action == "promote" or (control.action == "rollback" and control.arguments.get("promote", True))
        if refused is None:
            try:
                self.outcomes.refuse_superseded(control)
                self.recall.check(control)
                if control.action == "release":
                    release = self.recall.keep(sequence, partial(self.state, sequence))
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

    def _roll_back(self, sequence: int, control: Control) -> None:
        since = int(control.arguments["position"])
        arrays = self.recall.state(since)
        stack = part(arrays, "stack")
        if control.arguments.get("relearn"):
            stack = self._relearned(arrays, since, sequence)
        before = {name: array.copy() for name, array in self.stack.state().items()}
        try:
            self.stack.load(stack)
        except Corrupt:
            self.stack.load(before)
            raise
        self.frozen = self.frozen or bool(control.arguments.get("freeze"))

    def _relearned(self, arrays: Arrays, since: int, until: int) -> Arrays:
        """The stack's state after learning the examples of the records between two positions again."""
        self.relearning = {"since": since, "position": since, "until": until}
        try:
            self.pulse()
            other = self.again()
            other.recall, other.pulse = self.recall, self.pulse
            if "learner" in arrays:
                other.load(arrays)
                other.frozen = False
            else:  # release 0 has the stack alone
                other.begin()
            unmatched = other.joiner.unmatched
            for sequence, record in self.recall.records(since, until):
                self.relearning["position"] = sequence
                if not isinstance(record, Control) or record.action == SETTINGS:
                    other.push(sequence, record)
        finally:
            self.relearning = None
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

    def configure(learner: Fold, changed: Mapping[str, Any]) -> None:
        s = settings.learning_as(changed)
        response = drift.of_record(changed["on_drift"]) if "on_drift" in changed else definition.on_drift
        if changed.get("reference") != (found := given and given.digest.hex()):
            _log.warning("drift was watched against the reference %s, and is now against %s", changed.get("reference"), found)
        adaptation, admission = Adaptation(), Admission.of(keys, s, definition.loss)
        if s.drift_run_length:
            detector = drift.Drift(read, s.drift_reference_examples, s.drift_run_length, given, definition.loss)
            adaptation = Adaptation(detector, response)
        admission.load(learner.admission.state())
        adaptation.load(learner.adaptation.state())
        learner.joiner.configure(s.labels, s.window_seconds, s.on_conflict != "first", s.late, s.keep_negatives)
        learner.admission, learner.adaptation = admission, adaptation
        learner.shadow = s.serve == "base"

    learner = Learner(
        stack,
        Joiner(max_bytes=settings.waiting_bytes, reads=stack.reads, unread=definition.unread, loss=definition.loss),
        Prequential(settings.threshold, loss=definition.loss),
        Gate(definition.loss),
        configure=configure,
    )
    learner.again = lambda: new_learner(definition, settings)
    configure(learner, reference.in_effect(definition, settings))
    return learner
