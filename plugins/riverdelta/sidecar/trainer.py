"""Trainer: the loop that feeds the journal to the learner, publishes, releases and saves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from riverdelta.core.arrays import Array, nest
from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.instruction import Instruction
from riverdelta.core.locks import Lock
from riverdelta.core.records import Control, Tick
from riverdelta.core.settings import Settings
from riverdelta.evaluation.trial import Verdict
from riverdelta.learning.commands import Promote, Release, Rollback
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.archive import Archive
from riverdelta.sidecar.contest import Contest, stack_of
from riverdelta.sidecar.eraser import Eraser
from riverdelta.sidecar.publisher import Live
from riverdelta.sidecar.recall import Kept
from riverdelta.sidecar.releaser import Releases
from riverdelta.sidecar.saver import Saver, restore
from riverdelta.sidecar.shown import shown
from riverdelta.sidecar.status import Status
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.checkpoints import Checkpoint
from riverdelta.storage.home import Home

_log = logging.getLogger(__name__)
_READ_ROWS = 8192
_TICK_SECONDS = _PAUSE_SECONDS = 1.0


class Trainer:
    """Runs the one learner of a home, from the newest intact checkpoint.

    An unreadable journal or a full disk only pauses it: `paused` says why, and it tries again. Raises `Locked`, with the pid,
    if another learner runs on the home, `ConfigurationError` if the home belongs to another definition, and `Corrupt` if the
    checkpoint does not fit.

    Parameters
    ----------
    definition
        The scorer.
    settings
        The settings, from the environment by `Settings.load()`.
    clock
        Returns the time in Unix seconds; tests replace it.
    home
        The home (default: the one that definition and settings name).
    """

    def __init__(
        self, definition: Definition, settings: Settings, clock: Callable[[], float] = time.time, home: Home | None = None
    ) -> None:
        self.home, self.settings, self.clock = home or Home(definition, settings), settings, clock
        definition, start = self.home.definition, self.home.prepare()
        with ExitStack() as held:
            self._lock = Lock(self.home.folder / "sidecar.lock", f"the learner of {self.home.folder}")
            held.callback(self._lock.release)
            self.checkpoints, store = self.home.checkpoints(), self.home.releases(owner=True)
            self.learner = new_learner(definition, settings)
            self.releases = Releases(definition, store)
            self.contest = Contest(store, definition.new_stack, settings, definition.loss)
            self.live = Live(self.home.live(), self.learner.stack, self.learner.intervals)
            self.contest.serving = self.live.head.release if self.live.head else start.number
            serve, guard = settings.serve, settings.guard
            self.learner.observers |= shown(definition, self.learner, serve == "base", champions_serve=guard == "release")
            self.learner.observers |= {"contest": self.contest, "releases": self.releases, "live": self.live}
            self.journal = self.home.journal()
            held.callback(self.journal.close)
            self.home.declare(self.journal, clock())
            self._status = Status(self.home, self.learner, self.journal, clock)
            #: The last record that may hold a request that is not applied yet, from this process or an earlier one.
            self._asked = self.journal.last()
            self._publishing = Timer(settings.swap_min_seconds, clock)
            self._ticking = Timer(_TICK_SECONDS, clock)
            self._releasing = Timer(settings.release_seconds, clock, clock())
            self._saver = Saver(self.checkpoints, Timer(settings.checkpoint_seconds, clock, clock()))
            held.callback(self._saver.close)
            archive = Archive(store, self.journal, settings.guard, lambda: self.contest.champion, self.home.begins)
            self.learner.recall = Kept(store, self.journal, self._make_release, archive, clock)
            self._begin(self.checkpoints.load())
            for name, (now, most) in self.learner.stack.sizes().items():
                grown = f", and {most / 1e6:.1f} MB with a row for every slot" if most > now else ""
                _log.info("%s takes %.1f MB of memory%s", name, now / 1e6, grown)
            if settings.guard == "release":
                self._show_champion()
            self._eraser = Eraser(self.home, self.learner, self.journal, self.contest, self.live, self._saved, self._show_again)
            self._eraser.resume()
            self.learner.pulse = self._status.pulse
            self._unlock = held.pop_all().close

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None:
            restore(self.learner, checkpoint)
            _log.info("learning continues from position %d (%s)", self.learner.position, checkpoint.path.name)
        elif (origin := self.home.origin) is None:
            self.learner.begin()
        elif (state := self.releases.state_after(origin.position)) is not None:
            self.learner.load(state)
        else:
            raise Corrupt(
                f"{self.home.folder} has no checkpoint, and no release since it was rebased that can be read; restore one of "
                f"them from a backup, or rebase again"
            )

    def step(self) -> bool:
        """Do what is due; return whether there is more to do at once."""
        try:
            learned = self._learn()
            self._publish()
            self._eraser.finish()
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
        """Step until `stopping` returns True, waiting while there is nothing to do, then `close`."""
        rest = self.settings.swap_min_seconds / 5
        while not stopping():
            if not self.step():
                try:
                    self.journal.wait(self.learner.position, rest)
                except (OSError, Corrupt, Unavailable):  # the next step reports it
                    time.sleep(rest)
        self.close()

    def close(self) -> None:
        """Learn the rest of the journal, release, publish and save it, and unlock the home."""
        while self.step():
            pass
        try:
            self._settle()
            if self.learner.examples != self.learner.released_at:
                self._write(self._release())
                while self._learn():
                    pass
            self._publishing.hurry()
            self._publish()
            self._eraser.finish()
            self.save()
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the learner stops without saving: %s; the next one reads the journal again", error)
        self._status.stopped = True
        self._status.timer.hurry()
        self._status.step()
        self._unlock()

    def save(self) -> None:
        """Save the learner's state and wait until it is durable."""
        self._saved()
        self._sweep()

    def state(self) -> dict[str, Array]:
        """Return the contents of a checkpoint: the state of the learner and of its observers."""
        return self.learner.state() | nest({name: each.state() for name, each in self.learner.observers.items()})

    def status(self) -> dict[str, Any]:
        """Return the status that workers show and export as metrics."""
        return self._status.report()

    @property
    def paused(self) -> str | None:
        """The reason if learning is paused, else None."""
        return self._status.paused

    def _saved(self) -> None:
        self._saver.wait()
        self._save()
        self._saver.wait()

    def _show_again(self) -> None:
        if self.settings.guard == "release":
            self._show_champion()
        else:
            self.live.renew()
        self._hurry()

    def _save(self) -> None:
        self._saver.save(self.learner.position, self.state)

    def _sweep(self) -> None:
        """Let retention delete what is older than both kept checkpoints, unless a command may relearn it."""
        s, needed = self.settings, self.learner.joiner.within
        if not any(asked.fields.get("relearn") for asked in self._may_return()):
            self.journal.sweep(self.checkpoints.oldest(), s.journal_max_age_seconds, s.journal_max_bytes, self.clock(), needed)

    def _may_return(self) -> list[Instruction]:
        """Return the commands that a restart would read again, and those not read yet."""
        return [asked for _, asked in self.journal.commands(self.checkpoints.oldest(), self.journal.last() + 1)]

    def _learn(self) -> bool:
        self._settle()
        if self._ticking.due() and (self.settings.window_seconds is not None or self.learner.joiner.ticks):
            self._tick()
        self._eraser.step()
        records = self.journal.read(self.learner.position, _READ_ROWS)
        for sequence, record in records:
            self.learner.push(sequence, record)
            self._settle()
            if self._eraser.waiting:  # what was read may be what has to be erased
                break
        return bool(records)

    def _tick(self) -> None:
        """Write the time; if the clock was set back, windows continue from the newest tick."""
        now, last = self.clock(), self._ticking.last
        passed = max(now - last, 0.0) if last else 0.0
        self._ticking.done()
        self.journal.write(Tick(max(now, self.learner.joiner.tick + passed)))

    def _ask(self) -> bool:
        """Write the next request of the learner into the journal, unless one waits there; return whether it was written."""
        if self.learner.position < self._asked or (record := self._next_record()) is None:
            return False
        self._write(record)
        return True

    def _next_record(self) -> Control | Instruction | None:
        """Return the most urgent request of the learner itself, a record that it reads like an operator's.

        In order: a rollback if the breaker tripped, the record of a drift alarm, the promotion of a trial's winner, and a
        release if it is due and there are new examples.
        """
        learner, asked = self.learner, {"asked": self.learner.position, "time": self.clock()}
        breaker, each = learner.admission.breaker, self.settings.release_examples
        if self.settings.breaker == "rollback" and breaker and breaker.trips > learner.admission.rolled_back:
            champion = self.contest.registered_champion()
            back = Rollback(release=champion.number)
            return back.record(by="breaker", position=champion.position, trip=breaker.trips, **asked)
        if (drift := learner.adaptation.unrecorded) is not None:
            return replace(drift, time=asked["time"])
        if self.contest.verdict is Verdict.promoted and (winner := self.contest.challenger) is not None:
            return Promote(release=winner).record(by="trial", **asked)
        since = learner.examples - learner.released_at
        # While the breaker is open the tables stand still, and equal releases would push out those that differ.
        due = since and not learner.admission.open and (self._releasing.due() or (each is not None and since >= each))
        return self._release() if due else None

    def _release(self) -> Instruction:
        return Release().record(by="schedule", asked=self.learner.position, time=self.clock())

    def _write(self, record: Control | Instruction) -> None:
        self._asked = self.journal.write(record)
        _log.info("%s requested by the learner: record %d", record.action, self._asked)

    def _settle(self) -> None:
        """Update the registry, and what serves, for the last outcome; what a full disk stopped is tried again."""
        outcome = self.contest.settle(self.learner.position)
        changed = outcome is not None and (outcome.held or outcome.action in ("promote", "rollback", "release"))
        if outcome is not None and changed and outcome.refused is None:
            if self.settings.guard == "live":
                self.live.mark_dirty()
            elif outcome.action in ("promote", "rollback"):
                self._show_champion()
            self._hurry()
        if outcome is not None and outcome.pending:
            self._eraser.note(outcome.sequence)
        self.contest.owed = None

    def _make_release(self, position: int) -> int:
        self._releasing.done()
        made = self.releases.make(self.learner, position, self.clock())
        in_use = (self.contest.challenger, self.contest.serving, self.live.head.release if self.live.head else None)
        spare = [number for number in (*in_use, *(asked.release for asked in self._may_return())) if number is not None]
        self.releases.store.sweep(self.settings.keep_releases, self.settings.max_release_bytes, spare)
        return made.number

    def _show_champion(self) -> None:
        champion = self.contest.registered_champion()
        self.live.show(stack_of(champion, self.contest.store, self.home.definition.new_stack))
        self.contest.serving = champion.number

    def _hurry(self) -> None:
        self._publishing.hurry()
        self._status.timer.hurry()

    def _publish(self) -> None:
        if self._publishing.due() and self.live.due(self.learner.position):
            self._publishing.done()
            self.live.publish(self.contest.serving, self.learner.position, self.learner.gate.weight, self.clock())
