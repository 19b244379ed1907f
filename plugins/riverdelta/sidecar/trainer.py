"""Trainer: the loop that reads the journal into the learner, publishes, releases and saves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from riverdelta.core.arrays import Array, nest, part
from riverdelta.core.errors import Corrupt, RiverdeltaError, Unavailable
from riverdelta.core.locks import Lock
from riverdelta.core.records import Control, Tick
from riverdelta.core.settings import Settings
from riverdelta.evaluation.trial import Verdict
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.contest import Contest, stack_of
from riverdelta.sidecar.operator import check
from riverdelta.sidecar.publisher import Live
from riverdelta.sidecar.recall import Kept
from riverdelta.sidecar.releaser import Releases
from riverdelta.sidecar.saver import Saver
from riverdelta.sidecar.shown import shown
from riverdelta.sidecar.status import Status
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.checkpoints import Checkpoint
from riverdelta.storage.home import Home

_log = logging.getLogger(__name__)
_READ_ROWS = 8192
_TICK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0


class Trainer:
    """One learner over one home; a second one on the same home is refused with the first one's pid.

    It starts from the newest intact checkpoint and reads on from there. Nothing that it fails at stops it for good: an
    unreadable journal or a full disk pauses it, `paused` says why, and it tries again. What is learned and shown is the
    learner's and its observers'; here are time, files and sleep.
    """

    def __init__(
        self, definition: Definition, settings: Settings, clock: Callable[[], float] = time.time, home: Home | None = None
    ) -> None:
        self.home, self.settings, self.clock = home or Home(definition, settings), settings, clock
        definition, start = self.home.definition, self.home.prepare()
        with ExitStack() as held:
            self._lock = Lock(self.home.folder / "sidecar.lock", f"the learner of {self.home.folder}")
            held.callback(self._lock.release)
            self.checkpoints, store = self.home.checkpoints(), self.home.releases()
            self.learner = new_learner(definition, settings)
            self.releases = Releases(definition, store)
            self.contest = Contest(store, definition.new_stack, settings, definition.loss)
            self.live = Live(self.home.live(), self.learner.stack)
            self.contest.serving = self.live.head.release if self.live.head else start.number
            self.learner.observers |= shown(definition, self.learner, shadow=settings.serve == "base")
            self.learner.observers |= {"contest": self.contest, "releases": self.releases, "live": self.live}
            self.journal = self.home.journal()
            held.callback(self.journal.close)
            self.home.declare(self.journal, clock())
            self._status = Status(self.home, self.learner, self.journal, clock)
            #: The last record that may hold something asked for and not yet obeyed, by this process or one before it.
            self._asked = self.journal.last()
            self._publishing = Timer(settings.swap_min_seconds, clock)
            self._ticking = Timer(_TICK_SECONDS, clock)
            self._releasing = Timer(settings.release_seconds, clock, clock())
            self._saver = Saver(self.checkpoints, Timer(settings.checkpoint_seconds, clock, clock()))
            held.callback(self._saver.close)
            self.learner.recall = Kept(store, self.journal, self._make_release, self._check, clock)
            self._begin(self.checkpoints.load())
            if settings.guard == "release":
                self._show_champion()
            self.learner.pulse = self._status.pulse
            self._let_go = held.pop_all().close

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            self.learner.begin()
            return
        try:
            self.learner.load(checkpoint.arrays)
            for name, observer in self.learner.observers.items():
                observer.load(part(checkpoint.arrays, name))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, Corrupt) as error:
            said = str(error) if isinstance(error, RiverdeltaError) else repr(error)
            raise Corrupt(
                f"{checkpoint.path} cannot be used: {said}; move it away, and the learner starts from the one before it"
            ) from error
        _log.info("learning goes on from position %d (%s)", self.learner.position, checkpoint.path.name)

    def step(self) -> bool:
        """Do what is due and return whether there is more to do at once."""
        try:
            learned = self._learn()
            self._publish()
            more = self._ask() or learned
            if self._saver.finished():
                self._sweep()
            if self._saver.timer.due():
                self._save()
            if not self._saver.failed:
                self._status.paused = None
        except (OSError, Corrupt, Unavailable) as error:
            if self._status.paused is None:
                _log.error("learning pauses: %s", error)
            self._status.paused = str(error)
            more = False
            time.sleep(_PAUSE_SECONDS)
        self._status.step()
        return more

    def run(self, stopping: Callable[[], bool]) -> None:
        """Step until `stopping`, resting while there is nothing to do, then release what is new and save."""
        rest = self.settings.swap_min_seconds / 5
        while not stopping():
            if not self.step():
                try:
                    self.journal.wait(self.learner.position, rest)
                except (OSError, Corrupt, Unavailable):  # the next step says what is wrong
                    time.sleep(rest)
        self.close()

    def close(self) -> None:
        """Learn what is there, release, publish and save it, and let go of the home."""
        while self.step():
            pass
        try:
            self._settle()
            if self.learner.examples != self.learner.released_at:
                self._write(Control("release", {}, self.clock()))
                while self._learn():
                    pass
            self._publishing.hurry()
            self._publish()
            self.save()
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the learner stops without saving: %s; it will read the journal again", error)
        self._status.timer.hurry()
        self._status.step()
        self._let_go()

    def save(self) -> None:
        """Save the learner's state and wait until it is durable."""
        self._saver.wait()
        self._save()
        self._saver.wait()
        self._sweep()

    def state(self) -> dict[str, Array]:
        """Return what a checkpoint holds: the learner's state, and that of its observers beside it."""
        return self.learner.state() | nest({name: each.state() for name, each in self.learner.observers.items()})

    def status(self) -> dict[str, Any]:
        """Return what workers show and export as metrics."""
        return self._status.report()

    @property
    def paused(self) -> str | None:
        """Why learning waits, None while it does not."""
        return self._status.paused

    def _save(self) -> None:
        self._saver.save(self.learner.position, self.state)

    def _sweep(self) -> None:
        """Let the journal go of what is behind both kept checkpoints, unless some of it may be learned again."""
        s, needed = self.settings, self.learner.joiner.showings.within
        if not any(self._may_return("relearn")):
            self.journal.sweep(self.checkpoints.oldest(), s.journal_max_age_seconds, s.journal_max_bytes, self.clock(), needed)

    def _may_return(self, argument: str) -> list[Any]:
        """An argument of the rollbacks and promotions that a restart would read again, and of those not read yet."""
        controls = self.journal.controls(self.checkpoints.oldest(), self.journal.last() + 1)
        return [control.arguments.get(argument) for _, control in controls if control.action in ("rollback", "promote")]

    def _check(self, control: Control) -> None:
        check(control, self.contest.store, self.journal, self.settings.guard, self.contest.champion)

    def _learn(self) -> bool:
        self._settle()
        if self._ticking.due() and (self.settings.labels == "silence" or len(self.learner.joiner.showings)):
            self._tick()
        records = self.journal.read(self.learner.position, _READ_ROWS)
        for sequence, record in records:
            self.learner.push(sequence, record)
            self._settle()
        return bool(records)

    def _tick(self) -> None:
        """Write the time; where the clock was set back, windows go on from the newest tick and need not wait for the clock."""
        now, last = self.clock(), self._ticking.last
        passed = max(now - last, 0.0) if last else 0.0
        self._ticking.done()
        self.journal.write(Tick(max(now, self.learner.joiner.tick + passed)))

    def _ask(self) -> bool:
        """Write what is to be done next into the journal, unless what was asked before waits there; return whether it did."""
        if self.learner.position < self._asked or (control := self._next_control()) is None:
            return False
        self._write(control)
        return True

    def _next_control(self) -> Control | None:
        """Return what the learner asks for itself, a record that it reads like an operator's; the most urgent first.

        A rollback where the breaker has opened, the record of a drift alarm, the promotion of a trial's winner, and a release
        where one is due and examples have come since the last.
        """
        learner, now, asked = self.learner, self.clock(), {"asked": self.learner.position}
        breaker, each = learner.admission.breaker, self.settings.release_examples
        if self.settings.breaker == "rollback" and breaker and breaker.trips > learner.admission.rolled_back:
            champion = self.contest.registered_champion()
            back = {"release": champion.number, "position": champion.position, "promote": False, "trip": breaker.trips}
            return Control("rollback", {**back, "by": "breaker", **asked}, now)
        if (drift := learner.adaptation.unrecorded) is not None:
            return replace(drift, time=now)
        if self.contest.verdict is Verdict.promoted:
            return Control("promote", {"release": self.contest.challenger, "by": "trial", **asked}, now)
        since = learner.examples - learner.released_at
        due = since and (self._releasing.due() or (each is not None and since >= each))
        return Control("release", {}, now) if due else None

    def _write(self, control: Control) -> None:
        self._asked = self.journal.write(control)
        _log.info("asked for: %s %s", control.action, dict(control.arguments))

    def _settle(self) -> None:
        """Let the registry, and what is served, follow from the last record; what a full disk stopped is tried again."""
        outcome = self.contest.settle(self.learner.position)
        if outcome is not None and outcome.refused is None and outcome.action in ("promote", "rollback"):
            if self.settings.guard == "release":
                self._show_champion()
            else:
                self.live.mark_dirty()
            self._publishing.hurry()
            self._status.timer.hurry()
        self.contest.owed = None

    def _make_release(self, position: int) -> int:
        self._releasing.done()
        made = self.releases.make(self.learner, position, self.clock())
        in_use = (self.contest.challenger, self.contest.serving, self.live.head.release if self.live.head else None)
        spare = [number for number in (*in_use, *self._may_return("release")) if isinstance(number, int)]
        self.releases.store.sweep(self.settings.keep_releases, self.settings.max_release_bytes, spare)
        return made.number

    def _show_champion(self) -> None:
        champion = self.contest.registered_champion()
        self.live.show(stack_of(champion, self.contest.store, self.home.definition.new_stack))
        self.contest.serving = champion.number

    def _publish(self) -> None:
        if self._publishing.due() and self.live.due(self.learner.position):
            self._publishing.done()
            self.live.publish(self.contest.serving, self.learner.position, self.learner.gate.weight, self.clock())
