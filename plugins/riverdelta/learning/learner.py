"""Learner: a fold that applies commands, used by the sidecar, the demo and replay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from riverdelta.core.arrays import Arrays, part
from riverdelta.core.errors import Corrupt, NotFound, RiverdeltaError, Unavailable
from riverdelta.core.features import Schema
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import Settings
from riverdelta.evaluation import drift
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.graph.features import Feature
from riverdelta.learning import reference
from riverdelta.learning.adaptation import Adaptation
from riverdelta.learning.admission import Admission
from riverdelta.learning.commands import Release, Resume, known, of_record
from riverdelta.learning.definition import Definition
from riverdelta.learning.erased import Erased, Subject
from riverdelta.learning.fold import Fold
from riverdelta.learning.held import Held
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.outcomes import LONGEST, Outcome

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Learner(Fold):
    """A fold that applies the commands and other controls among its records.

    `recall` restores the state of a release; `outcomes` has the outcome of each control. A control that cannot be applied is
    refused and changes nothing.

    Version 0.1 recorded no settings. Records before the first settings are learned with these, which are the settings that the
    upgraded service started with (see `begin`). If the service of 0.1 had others, relearning from one of its releases is
    reproducible, but differs from the tables at that time.
    """

    #: Makes the fresh learner in which a rollback relearns.
    again: Callable[[], Learner]
    #: During relearning: the positions that it began after, has reached, and ends before.
    relearning: dict[str, int] | None = None
    #: What the command being applied has forgotten, for its outcome.
    _forgot: Mapping[str, Any] = MappingProxyType({})
    #: How ids are read of the columns of requests.
    features: Mapping[str, Feature] = MappingProxyType({})

    def report(self) -> dict[str, Any]:
        """Return the learning part of the status."""
        return super().report() | {"relearning": self.relearning}

    def obey(self, sequence: int, record: Control | Instruction) -> None:
        """Apply a control, completely or not at all, and keep its outcome.

        Raises `Corrupt` if this version does not know the control: it may affect what is learned.
        """
        held = len(self.held)
        if isinstance(record, Instruction):
            outcome = self._command(sequence, record)
        elif record.action == "refused":  # already applied when the record that it names was read
            return
        elif record.action == "drift":
            self.adaptation.note(record)
            outcome = Outcome(sequence, record.action, time=record.time, details=record.arguments)
        elif record.action == SETTINGS:
            _, refused = self._attempt(sequence, record.action, lambda: self._change(record.arguments))
            outcome = Outcome(sequence, record.action, refused=refused, time=record.time, details=record.arguments)
        else:
            raise Corrupt(f"journal record {sequence} is a control {record.action!r:.80}, which this version does not know")
        outcome = replace(outcome, **{"held": max(held - len(self.held), 0), **self._forgot})
        self._forgot = {}
        self.outcomes.append(outcome)
        self.show("on_outcome", outcome)

    def resume(self, skip: bool) -> None:
        """Reset the breaker; learn the examples that it held, or with `skip` drop them."""
        self.frozen = False
        self.admission.resume(learned=not skip)
        if skip:
            self.held.skip()
        self.learn_held()

    def make_release(self, sequence: int) -> int | None:
        """Make a release at the record `sequence`; return its number, None if releases are not kept."""
        return self.recall.keep(sequence, partial(self.state, sequence))

    def forget(self, what: str, sequence: int) -> None:
        """Drop the rows before the record `sequence` that `what` names, and reset what belongs to the id."""
        if (subject := Subject.parse(what, self.features)) is not None:
            self._forgot = {"removed": self.drop(self.recall.erased(subject, sequence)), "pending": True, "held": 0}

    def drop(self, erased: Erased) -> dict[str, int]:
        """Drop erased rows from everything that is saved, and reset the coefficients of their id; return counts by kind."""
        subject = erased.subject
        waiting, showings = self.joiner.forget(erased)
        reset = 0 if subject.name is None else self.stack.forget_id(subject.name, subject.own, erased.columns)
        return {"coefficients": reset, "waiting rows": waiting, "showings": showings, "held rows": self.held.forget(erased)}

    def begin_elsewhere(self) -> None:
        """Drop the requests and outcomes of another home: they name releases that this one lacks."""
        self.outcomes.clear()
        if (breaker := self.admission.breaker) is not None:
            self.admission.rolled_back = breaker.trips
        if (drift := self.adaptation.drift) is not None:
            self.adaptation.recorded = drift.alarms
        self.released_at = self.examples

    def take_over(self, other: Learner) -> None:
        """Restore what another learner has learned and measured; the waiting rows and the settings stay as they are."""
        for mine, theirs in ((self.stack, other.stack), (self.gate, other.gate), (self.prequential, other.prequential)):
            mine.load(theirs.state())
        self.examples, self.learned = other.examples, other.learned
        self.admission, self.adaptation, self.held = Admission(), Adaptation(), Held(self.stack)
        self.configure(self.settings)
        self.gate.note(self.position)

    def _command(self, sequence: int, asked: Instruction) -> Outcome:
        try:
            cls = known(asked)
        except Corrupt as error:
            raise Corrupt(f"journal record {sequence}: {error}") from None
        if cls is Release:
            self.released_at = self.examples  # even if it is refused
        self.admission.answered(asked.trip or 0)

        shown: dict[str, Any] | None = None

        def apply() -> tuple[int | None, bool]:
            nonlocal shown
            command = of_record(asked)
            shown = command.shown()
            self.outcomes.refuse_superseded(asked)
            self.recall.check(command, asked.position)
            return command.apply(self, sequence, asked.position), command.promotes

        done, refused = self._attempt(sequence, asked.action, apply)
        made, promoted = done or (None, False)
        return Outcome.of(sequence, asked, made, promoted, refused, shown)

    def _change(self, settings: Mapping[str, Any]) -> None:
        self.configure(settings)
        self.joiner.upgraded()
        self.learn_held()  # a breaker that is switched off holds nothing

    def _attempt(self, sequence: int, action: str, do: Callable[[], T]) -> tuple[T | None, str | None]:
        """Return the result of `do`, and the reason if it is refused, now or when its record was read before."""
        refused = self.recall.refusal(sequence)
        if refused is None:
            try:
                return do(), None
            except Unavailable:
                raise  # temporary: the record is pushed again
            except (RiverdeltaError, LookupError, TypeError, ValueError) as error:
                refused = (str(error) if isinstance(error, RiverdeltaError) else repr(error))[:LONGEST]
                self.recall.refuse(sequence, refused)
                _log.error("the %s at position %d is refused: %s", action, sequence, refused)
        return None, refused

    def roll_back(self, position: int, relearn: bool, sequence: int) -> None:
        """Restore the tables of the release at `position`; with `relearn`, learn the examples up to `sequence` again.

        What is held stays held. Relearning repeats each `riverdelta resume` at its place and no freeze.
        """
        arrays = self.recall.state(position)
        if not relearn:
            self.stack.load(part(arrays, "stack"))
            return
        other = self._relearned(arrays, position, sequence)
        self.stack.load(other.stack.state())
        self.held.load(other.held.state())
        self.learn_held()

    def _relearned(self, arrays: Arrays, since: int, until: int) -> Learner:
        """Return a learner that has relearned the records between two positions."""
        self.relearning = {"since": since, "position": since, "until": until}
        try:
            self.pulse()
            other = self.again()
            other.recall, other.pulse = self.recall, self.pulse
            if "learner" in arrays:
                other.load(arrays)
                other.frozen = False
            else:  # release 0 has only the stack
                other.begin()
            unmatched = other.joiner.unmatched
            for sequence, record in self.recall.records(since, until):
                self.relearning["position"] = sequence
                if not isinstance(record, Control | Instruction) or record.action in (SETTINGS, Resume.name):
                    other.push(sequence, record)
        finally:
            self.relearning = None
        if lost := other.joiner.unmatched - unmatched:
            raise NotFound(f"the impressions of {lost} labels were deleted by retention; roll back without --relearn")
        return other


def new_learner(definition: Definition, settings: Settings) -> Learner:
    """Return a learner at position 0; the same records produce the same tables wherever it runs.

    `settings` apply until the first settings on record.
    """
    stack, given = definition.new_stack(), reference.load(definition)
    read = Schema({name: definition.schema[name] for name in stack.reads})
    keys = [name for name, column in read.items() if column.kind == "id"]

    def configure(learner: Fold, changed: Mapping[str, Any]) -> None:
        s = settings.learning_as(changed)
        response = drift.of_record(changed["on_drift"]) if "on_drift" in changed else definition.on_drift
        if changed.get("reference") != (found := given and given.digest.hex()):
            _log.warning("the reference of drift was %s, and is now %s", changed.get("reference"), found)
        adaptation, admission = Adaptation(), Admission.of(keys, s, definition.loss)
        if s.drift_run_length:
            detector = drift.Drift(read, s.drift_reference_examples, s.drift_run_length, given, definition.loss)
            adaptation = Adaptation(detector, response)
        admission.load(learner.admission.state())
        adaptation.load(learner.adaptation.state())
        learner.joiner.configure(s.labels, s.window_seconds, s.on_conflict != "first", s.late, s.keep_negatives)
        learner.admission, learner.adaptation = admission, adaptation
        learner.held.resize(s.held_bytes)
        learner.shadow = s.serve == "base"

    learner = Learner(
        stack,
        Joiner(max_bytes=settings.waiting_bytes, reads=stack.reads, unread=definition.unread, loss=definition.loss),
        Prequential(settings.threshold, loss=definition.loss),
        Gate(definition.loss),
        intervals=definition.new_intervals(),
        configure=configure,
    )
    learner.again, learner.features = lambda: new_learner(definition, settings), definition.features
    configure(learner, reference.in_effect(definition, settings))
    return learner
