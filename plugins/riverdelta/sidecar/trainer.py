"""Trainer: the loop that reads the journal, learns, publishes, releases and saves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy.typing as npt

from riverdelta.core.errors import Corrupt, RiverdeltaError, Unavailable
from riverdelta.core.examples import Examples
from riverdelta.core.locks import Lock
from riverdelta.core.records import Control, Impressions, Tick
from riverdelta.core.settings import Settings
from riverdelta.evaluation.trial import Verdict
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import Learner, new_learner
from riverdelta.learning.outcomes import Outcome
from riverdelta.sidecar.account import Account
from riverdelta.sidecar.contest import Contest
from riverdelta.sidecar.operator import check
from riverdelta.sidecar.publisher import Live
from riverdelta.sidecar.recall import Kept
from riverdelta.sidecar.releaser import Releases
from riverdelta.sidecar.saver import Saver
from riverdelta.sidecar.status import describe
from riverdelta.storage.home import Home
from riverdelta.storage.registry import Release

_log = logging.getLogger(__name__)
_READ_ROWS = 8192
_STATUS_SECONDS = 0.25
_TICK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0


class Trainer:
    """One learner over one home; a second one on the same home is refused with the first one's pid.

    It starts from the newest whole checkpoint and reads on from there. Nothing that it fails at stops it for good: an
    unreadable journal or a full disk pauses it, `paused` says why, and it tries again.
    """

    def __init__(
        self, definition: Definition, settings: Settings, clock: Callable[[], float] = time.time, home: Home | None = None
    ) -> None:
        self.home, self.settings, self.clock = home or Home(definition, settings), settings, clock
        start = self.home.prepare()
        self._lock = Lock(self.home.folder / "sidecar.lock", f"the learner of {self.home.folder}")
        self.checkpoints = self.home.checkpoints()
        self.learner = new_learner(definition, settings)
        self.releases = Releases(definition, self.home.releases())
        self.contest = Contest(self.releases.store, definition.new_stack, settings.promote_margin, settings.promote_alpha)
        self.account = Account(definition, shadow=settings.serve == "base")
        self.live = Live(self.home.live(), self.learner.stack)
        self.contest.serving = self.live.head.release if self.live.head else start.number
        self.journal = self.home.journal()
        self.home.declare(self.journal, clock())
        self.learner.recall = Kept(
            self.releases.store, self.journal, self._make_release, self._check, clock, meanwhile=self._report
        )
        if (checkpoint := self.checkpoints.load()) is not None:
            try:
                self.learner.load(checkpoint.arrays)
                for prefix, part in self._observers():
                    part.load(_part(checkpoint.arrays, prefix))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RiverdeltaError) as error:
                self.journal.close()
                self._lock.release()
                if isinstance(error, RiverdeltaError):
                    raise
                raise Corrupt(
                    f"{checkpoint.path} is not a checkpoint of this version ({error!r}); move it away, and the learner starts "
                    f"from the one before it"
                ) from error
            _log.info("learning goes on from position %d (%s)", self.learner.position, checkpoint.path.name)
        else:
            self.learner.begin()
        if settings.guard == "release":
            self._show_champion()
        self.paused: str | None = None
        #: The last control's outcome, where the registry has yet to act on it.
        self._owed: Outcome | None = None
        #: The last record that may hold something asked for and not yet obeyed, by this process or one before it.
        self._asked = self.journal.last()
        now = clock()
        self._published = self._ticked = self._reported = 0.0
        self._released = now
        self._saver = Saver(self.checkpoints, now)

    def step(self) -> bool:
        """Do what is due and return whether there is more to do at once."""
        try:
            learned = self._learn()
            self._publish()
            more = self._ask() or learned
            if self._saver.finished():
                self._sweep()
            if self._due(self._saver.time, self.settings.checkpoint_seconds):
                self._save()
            if not self._saver.failed:
                self.paused = None
        except (OSError, Corrupt, Unavailable) as error:
            if self.paused is None:
                _log.error("learning pauses: %s", error)
            self.paused = str(error)
            more = False
            time.sleep(_PAUSE_SECONDS)
        self._report()
        return more

    def run(self, stopping: Callable[[], bool]) -> None:
        """Step until `stopping`, resting while there is nothing to do, then release what is new and save."""
        rest = self.settings.swap_min_seconds / 5
        while not stopping():
            if not self.step():
                self._rest(rest)
        self.close()

    def _rest(self, seconds: float) -> None:
        try:
            self.journal.wait(self.learner.position, seconds)
        except (OSError, Corrupt, Unavailable):  # the next step says what is wrong
            time.sleep(seconds)

    def close(self) -> None:
        """Learn what is there, release, publish and save it, and let go of the home."""
        while self.step():
            pass
        try:
            self._settle()
            self.make_release()
            self._published = 0.0
            self._publish()
            self.save()
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the learner stops without saving: %s; it will read the journal again", error)
        self._report(force=True)
        self._saver.close()
        self.journal.close()
        self._lock.release()

    def make_release(self) -> None:
        """Ask for a release of the present tables, where they have changed since the last, and make it."""
        if self.learner.examples != self.learner.released_at:
            self._write(Control("release", {}, self.clock()))
            while self._learn():
                pass

    def save(self) -> None:
        """Save the learner's state and wait until it is durable."""
        self._saver.wait()
        self._save()
        self._saver.wait()
        self._sweep()

    def _save(self) -> None:
        self._saver.save(self.learner.position, self._state, self.clock)

    def _state(self) -> dict[str, npt.NDArray[Any]]:
        observed = {f"{prefix}{name}": array for prefix, part in self._observers() for name, array in part.state().items()}
        return self.learner.state() | observed

    def _sweep(self) -> None:
        """Let the journal go of what is behind both kept checkpoints, unless a restart may relearn some of it."""
        s, needed = self.settings, self.learner.joiner.showings.within
        if not any(control.arguments.get("relearn") for control in self._may_return()):
            self.journal.sweep(self.checkpoints.oldest(), s.journal_max_age_seconds, s.journal_max_bytes, self.clock(), needed)

    def _may_return(self) -> list[Control]:
        """The rollbacks and promotions that a restart would read again, and those not read yet: what they need has to stay."""
        controls = self.journal.controls(self.checkpoints.oldest(), self.journal.last() + 1)
        return [control for _, control in controls if control.action in ("rollback", "promote")]

    def _check(self, control: Control) -> None:
        check(control, self.releases.store, self.journal, self.settings.guard, self.contest.champion)

    def _learn(self) -> bool:
        self._settle()
        if (self.settings.labels == "silence" or len(self.learner.joiner.showings)) and self._due(self._ticked, _TICK_SECONDS):
            self._tick()
        records = self.journal.read(self.learner.position, _READ_ROWS)
        for sequence, record in records:
            self.learner.push(sequence, record, partial(self._observe, sequence))
            if isinstance(record, Impressions):
                self.account.scored(record)
            if isinstance(record, Control) and (outcome := self.learner.outcomes.of(sequence)) is not None:
                self.account.obeyed(outcome, record, self.learner.admission)
                self._owed = outcome
                self._settle()
        return bool(records)

    def _observe(self, sequence: int, examples: Examples) -> None:
        self.account.learned(sequence, examples, self.learner.admission)
        self.releases.saw(examples)
        self.contest.saw(examples)
        self.live.learned(examples.received)
        if self.contest.verdict is Verdict.rejected:
            self.contest.close()
            self.contest.offer(sequence)

    def _tick(self) -> None:
        """Write the time; where the clock was set back, windows go on from the newest tick and need not wait for the clock."""
        now = self.clock()
        passed = max(now - self._ticked, 0.0) if self._ticked else 0.0
        self._ticked = now
        self.journal.write(Tick(max(now, self.learner.joiner.tick + passed)))

    def _observers(self) -> tuple[tuple[str, Any], ...]:
        """What is saved beside the learner, by prefix: nothing that is learned depends on it."""
        return ("contest/", self.contest), ("account/", self.account)

    def _ask(self) -> bool:
        """Write what is to be done next into the journal, unless what was asked before waits there; return whether it did."""
        s, learner = self.settings, self.learner
        if learner.position < self._asked:
            return False
        breaker = learner.admission.breaker
        due = self._due(self._released, s.release_seconds)
        if s.release_examples is not None:
            due = due or learner.examples - learner.released_at >= s.release_examples
        if s.breaker == "rollback" and breaker and breaker.trips > learner.admission.rolled_back:
            champion = self._champion()
            back = {"release": champion.number, "position": champion.position, "promote": False, "trip": breaker.trips}
            self._write(Control("rollback", back | {"by": "breaker", "asked": learner.position}, self.clock()))
        elif (drift := learner.adaptation.unrecorded) is not None:
            self._write(replace(drift, time=self.clock()))
        elif self.contest.verdict is Verdict.promoted:
            up = {"release": self.contest.challenger, "by": "trial", "asked": learner.position}
            self._write(Control("promote", up, self.clock()))
        elif due and learner.examples != learner.released_at:
            self._write(Control("release", {}, self.clock()))
        else:
            return False
        return True

    def _write(self, control: Control) -> None:
        self._asked = self.journal.write(control)
        _log.info("asked for: %s %s", control.action, dict(control.arguments))

    def _settle(self) -> None:
        """Do the registry's part of the last control, by its outcome alone; what a full disk stopped is tried again."""
        outcome, store, contest = self._owed, self.releases.store, self.contest
        if outcome is None:
            return
        number, done = outcome.release, outcome.refused is None
        if done and number is not None:
            if outcome.champion:
                store.promote(number)
                contest.champion = number
            if outcome.action == "rollback":
                contest.roll_back(number)
            elif outcome.action == "release" and self.settings.guard == "live":
                contest.serving = number
        if outcome.action == "promote" and (done or number == contest.challenger):
            # A challenger that cannot be promoted, or whose place another has taken, has not been.
            contest.close(None if done and number == contest.challenger else Verdict.undecided)
        if done and outcome.action in ("promote", "rollback"):
            if self.settings.guard == "release":
                self._show_champion()
            else:
                self.live.mark_dirty()
            self._published = self._reported = 0.0
        if outcome.action in ("promote", "release"):
            contest.offer(self.learner.position)
        self._owed = None

    def _make_release(self, learner: Learner, position: int) -> int:
        self._released = self.clock()
        made = self.releases.make(learner, position, self.clock())
        served = self.live.head.release if self.live.head else None
        asked = [control.arguments.get("release") for control in self._may_return()]
        spare = [n for n in (self.contest.challenger, self.contest.serving, served, *asked) if isinstance(n, int)]
        self.releases.store.sweep(self.settings.keep_releases, self.settings.max_release_bytes, spare)
        return made.number

    def _show_champion(self) -> None:
        champion = self._champion()
        self.live.show(self.contest.tables(champion))
        self.contest.serving = champion.number

    def _champion(self) -> Release:
        champion = self.releases.store.champion()
        assert champion is not None  # release 0 was made before the first step
        return champion

    def _publish(self) -> None:
        now = self.clock()
        if self._due(self._published, self.settings.swap_min_seconds) and self.live.due(self.learner.position):
            self._published = now
            self.live.publish(self.contest.serving, self.learner.position, self.learner.gate.weight, now)

    def _report(self, force: bool = False) -> None:
        now = self.clock()
        if not force and not self._due(self._reported, _STATUS_SECONDS):
            return
        self._reported = now
        try:
            self.home.write_status(self.status())
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the status cannot be written: %s", error)

    def _due(self, since: float, seconds: float) -> bool:
        # A clock that was set back must not make everything wait until it is where it was.
        return not 0.0 <= self.clock() - since < seconds

    def status(self) -> dict[str, Any]:
        """Return what workers show and export as metrics."""
        return describe(self)


def _part(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
