"""Trainer: the loop that reads the journal, learns, publishes, releases and saves."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from riverdelta.definition import Definition
from riverdelta.errors import Corrupt, Unavailable
from riverdelta.events import Tick
from riverdelta.home import Home
from riverdelta.joiner import Joiner
from riverdelta.lock import Lock
from riverdelta.prequential import Prequential
from riverdelta.settings import Settings
from riverdelta.trainer.learner import Learner
from riverdelta.trainer.live import Live
from riverdelta.trainer.releases import Releases

_log = logging.getLogger(__name__)
_READ_ROWS = 8192
_STATUS_SECONDS = 0.25
_TICK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0


def new_learner(definition: Definition, settings: Settings) -> Learner:
    """Return a learner at position 0; the same records make the same tables from it, wherever it runs."""
    joiner = Joiner(settings.labels, settings.window_seconds, settings.on_conflict != "first", settings.waiting_rows)
    return Learner(definition.new_stack(), joiner, Prequential(settings.threshold))


class Trainer:
    """One learner over one home; a second one on the same home is refused with the first one's pid.

    It starts from the newest whole checkpoint and reads on from there. Nothing that it fails at stops it for good: an
    unreadable journal or a full disk pauses it, `paused` says why, and it tries again.
    """

    def __init__(self, definition: Definition, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.home, self.settings, self.clock = Home(definition, settings), settings, clock
        self.release = self.home.prepare().number
        self._lock = Lock(self.home.folder / "sidecar.lock", f"the learner of {self.home.folder}")
        self.checkpoints = self.home.checkpoints()
        self.learner = new_learner(definition, settings)
        if (checkpoint := self.checkpoints.load()) is not None:
            self.learner.load(checkpoint.arrays)
            _log.info("learning goes on from position %d (%s)", self.learner.position, checkpoint.path.name)
        self.journal = self.home.journal()
        self.live = Live(self.home.live(), self.learner.stack)
        self.releases = Releases(definition, self.home.releases())
        self.paused: str | None = None
        now = clock()
        self._published = self._ticked = self._told = 0.0
        self._released = self._saved = now
        self._released_at = self._saved_at = self.learner.examples

    def step(self) -> bool:
        """Do what is due and return whether there was anything to learn."""
        try:
            learned = self._learn()
            self._publish()
            if self.clock() - self._released >= self.settings.release_seconds:
                self.make_release()
            if self.clock() - self._saved >= self.settings.checkpoint_seconds:
                self.save()
            self.paused = None
        except (OSError, Corrupt, Unavailable) as error:
            if self.paused is None:
                _log.error("learning pauses: %s", error)
            self.paused = str(error)
            learned = False
            time.sleep(_PAUSE_SECONDS)
        self._tell()
        return learned

    def run(self, stopping: Callable[[], bool]) -> None:
        """Step until `stopping`, resting while there is nothing to do, then release what is new and save."""
        rest = self.settings.swap_min_seconds / 5
        while not stopping():
            if not self.step():
                time.sleep(rest)
        self.close()

    def close(self) -> None:
        """Learn what is there, publish and save it, and let go of the home."""
        while self.step():
            pass
        try:
            self._published = 0.0
            self._publish()
            self.make_release()
            self.save()
        except OSError as error:
            _log.error("the learner stops without saving: %s; it will read the journal again", error)
        self._tell(force=True)
        self.journal.close()
        self._lock.release()

    def make_release(self) -> None:
        """Make a release of the present tables, where they have changed since the last."""
        self._released = self.clock()
        if self.learner.examples == self._released_at:
            return
        report = self.learner.prequential.report()["all"]
        facts: dict[str, Any] = {f"log_loss_{scorer}": report[scorer]["log_loss"] for scorer in ("base", "served")}
        facts["digest"] = self.learner.stack.digest()
        made = self.releases.make(self.learner.stack, self.learner.position, self.learner.examples, self.clock(), facts)
        self._released_at = self.learner.examples
        if made is not None:
            self.release = made.number
            self.releases.store.sweep(self.settings.keep_releases)

    def save(self) -> None:
        """Save the learner's state, and let the journal go of what is behind both kept checkpoints."""
        self._saved = self.clock()
        if self.learner.examples != self._saved_at or not self.checkpoints.oldest():
            self.checkpoints.save(self.learner.position, self.learner.state())
            self._saved_at = self.learner.examples
            s = self.settings
            self.journal.sweep(self.checkpoints.oldest(), s.journal_max_age_seconds, s.journal_max_bytes, self.clock())

    def _learn(self) -> bool:
        if self.settings.labels == "silence" and self.clock() - self._ticked >= _TICK_SECONDS:
            self._ticked = self.clock()
            self.journal.write(Tick(self._ticked))
        records = self.journal.read(self.learner.position, _READ_ROWS)
        for sequence, record in records:
            examples = self.learner.push(sequence, record)
            if examples is not None:
                self.releases.saw(examples)
                self.live.learned(examples.received)
        return bool(records)

    def _publish(self) -> None:
        now = self.clock()
        if now - self._published >= self.settings.swap_min_seconds and self.live.due(self.learner.position):
            self._published = now
            self.live.publish(self.release, self.learner.position, now)

    def _tell(self, force: bool = False) -> None:
        now = self.clock()
        if not force and now - self._told < _STATUS_SECONDS:
            return
        self._told = now
        try:
            self.home.write_status(self.status())
        except OSError as error:
            _log.error("the status cannot be written: %s", error)

    def status(self) -> dict[str, Any]:
        """Return what workers show and export as metrics."""
        head = self.live.head
        return {
            "pid": os.getpid(),
            "time": self.clock(),
            "paused": self.paused,
            "frozen": self.learner.frozen,
            "position": self.learner.position,
            "examples": self.learner.examples,
            "unmatched": self.learner.joiner.unmatched,
            "backlog_rows": self.learner.joiner.backlog,
            "release": self.release,
            "swap": head.swap if head else 0,
            "published": self._published,
            "releases": len(self.releases.store.all()),
            "releases_refused": self.releases.refused,
            "refused_because": self.releases.reason,
            "parity_max_logit": self.releases.parity,
            "occupancy": self.learner.stack.occupancy(),
            "prequential": self.learner.prequential.report(),
            "journal_bytes": self.journal.size(),
        }
