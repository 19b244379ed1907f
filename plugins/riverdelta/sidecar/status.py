"""Status: what the learner says of itself, left where every worker shows it and exports it as metrics."""

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
#: A status of this age is written again within a record too, where one takes long: nobody takes the learner for dead.
_PULSE_SECONDS = 1.0


class Status:
    """What learner, observers and journal report, written to the home when it is due; `paused` says why learning waits.

    `stopped` says that the learner has ended as it was asked to.
    """

    def __init__(self, home: Home, learner: Learner, journal: Journal, clock: Callable[[], float]) -> None:
        self.home, self.learner, self.journal, self.clock = home, learner, journal, clock
        self.paused: str | None = None
        self.stopped = False
        self.timer, self._pulse = Timer(_SECONDS, clock), Timer(_PULSE_SECONDS, clock)

    def report(self) -> dict[str, Any]:
        """Return what workers show."""
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
        """Write it where it is due, after each step of the trainer."""
        if self.timer.due():
            self.timer.done()
            self._write()

    def pulse(self) -> None:
        """Write it where it has become old, in the middle of a step."""
        if self._pulse.due():
            self._write()

    def _write(self) -> None:
        self._pulse.done()
        try:
            self.home.write_status(self.report())
        except (OSError, Corrupt, Unavailable) as error:
            _log.error("the status cannot be written: %s", error)
