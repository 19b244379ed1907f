"""Follower: keeps a session at the newest published tables, and exports the learner's status as metrics."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import Corrupt
from riverdelta.core.logs import Throttled
from riverdelta.metrics.worker import Metrics
from riverdelta.serving.session import Session
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Ids, Journal
from riverdelta.storage.registry import State

_log = logging.getLogger(__name__)
_MIRROR_SECONDS = 1.0
#: The most table versions whose first score is still to be timed; the oldest are dropped.
_MOST_UNSEEN = 256


class Follower:
    """A thread that polls for new tables every `follow_seconds`, and for the learner's status every second.

    `ids` follow the key file at the same interval. If anything fails here, scoring continues with the current tables.
    """

    def __init__(
        self, home: Home, session: Session, journal: Journal, ids: Ids, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self.home, self.session, self.journal, self.ids = home, session, journal, ids
        self.settings, self.metrics, self.clock = home.settings, metrics, clock
        #: Bytes of showings that the learner keeps until their window ends.
        self.showings_bytes = 0
        self._live = home.live()
        self._followed: State | None = None
        self._refused: State | None = None
        self._unseen: deque[npt.NDArray[np.float64]] = deque(maxlen=_MOST_UNSEEN)
        self._expired = Throttled(self._warn_of_expired)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="riverdelta-follow", daemon=True)

    def start(self) -> None:
        """Apply everything published so far, then follow."""
        self.follow()
        self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        self._stopping.set()
        self._thread.join()
        self._expired.add(0, math.inf)

    def follow(self) -> None:
        """Swap in what the learner has published since; a damaged state is logged, and the current one stays."""
        chain = self._live.follow(self._followed)
        if chain and chain[-1].state == self._refused:
            return  # nothing newer than the state that did not fit
        for delta in chain:
            try:
                seconds = self.session.swap(delta)
            except Corrupt as error:
                _log.error("%s; scoring continues with %s", error, self.session.state)
                # Only a full delta can repair a broken chain.
                self._followed, self._refused = None, chain[-1].state
                self.metrics.refused_swap()
                return
            self._followed = delta.state
            self.metrics.swapped(seconds)
            if delta.received.size:
                self._unseen.append(delta.received)

    def mirror(self) -> None:
        """Export the learner's status as metrics, and log feedback that has expired since the last log line."""
        status = self.home.read_status()
        self.showings_bytes = int(status.get("showings_bytes", 0))
        self.metrics.mirror(status, self.session.state, self.journal.health(), self.clock())
        self._expired.add(0, self.clock())

    def scored(self, now: float) -> None:
        """Measure the age of the feedback that this score is the first to contain."""
        if self._unseen:
            waiting, self._unseen = self._unseen, deque(maxlen=_MOST_UNSEEN)
            for received in waiting:
                self.metrics.fresh(now - received)

    def expired(self, items: int) -> None:
        """Count expired items of feedback; they are logged together from time to time."""
        self._expired.add(items, self.clock())

    def _run(self) -> None:
        mirrored, failing = 0.0, ""
        while not self._stopping.wait(self.settings.follow_seconds):
            try:
                self.follow()
                if time.monotonic() - mirrored >= _MIRROR_SECONDS:
                    mirrored = time.monotonic()
                    self.ids.refresh(self.clock())
                    self.mirror()
                failing = ""
            except Exception as error:  # the thread must outlive a missing folder or a full disk
                if repr(error) != failing:  # once, not at every poll
                    _log.exception("following the live tables failed; retrying every %g s", self.settings.follow_seconds)
                failing = repr(error)

    def _warn_of_expired(self, items: int) -> None:
        _log.warning(
            "%d items of feedback were answered 'expired' and are not learned: their rows are past retention; raise "
            "RIVERDELTA_JOURNAL_MAX_AGE_SECONDS (now %g) or RIVERDELTA_JOURNAL_MAX_BYTES (now %d)",
            items,
            self.settings.journal_max_age_seconds,
            self.settings.journal_max_bytes,
        )
