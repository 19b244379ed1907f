"""Status: the learner's report, written to a file that every worker shows and exports as metrics."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.learning.learner import Learner
from riverdelta.sidecar.timer import Timer
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal

_log = logging.getLogger(__name__)
_SECONDS = 0.25
#: A status of this age is also written in the middle of a long record, so that the learner does not look dead.
_PULSE_SECONDS = 1.0


class Status:
    """Writes the reports of learner, observers and journal to the home when due.

    `paused` is the reason if learning is paused; `stopped` says that the learner has ended normally.
    """

    def __init__(self, home: Home, learner: Learner, journal: Journal, clock: Callable[[], float]) -> None:
        self.home, self.learner, self.journal, self.clock = home, learner, journal, clock
        self.paused: str | None = None
        self.stopped = False
        self.timer, self._pulse = Timer(_SECONDS, clock), Timer(_PULSE_SECONDS, clock)

    def report(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        settings, disk = self.home.settings, shutil.disk_usage(self.home.folder)
        return {
            "pid": os.getpid(),
            "time": self.clock(),
            "paused": self.paused,
            "stopped": self.stopped,
            "serve": settings.serve,
            "guard": settings.guard,
            "journal_position": max(self.journal.last(), self.learner.position),
            "journal_bytes": self.journal.size(),
            "disk_free_ratio": disk.free / disk.total,
            **self.learner.report(),
            **{key: value for observer in self.learner.observers.values() for key, value in observer.report().items()},
        }

    def step(self) -> None:
        """Write the status if it is due; called after each step of the trainer."""
        if self.timer.due():
            self.timer.done()
            self._write()

    def pulse(self) -> None:
        """Write the status if it has become old; called within a step."""
        if self._pulse.due():
            self._write()

    def _write(self) -> None:
        self._pulse.done()
        try:
            self.home.write_status(self.report())
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the status cannot be written: %s", error)
