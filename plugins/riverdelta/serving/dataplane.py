"""DataPlane: the one place where requests are scored and feedback is taken; every transport is a skin over it."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import REGISTRY, CollectorRegistry

from riverdelta.core.errors import Corrupt, InvalidInput, TooLarge, Unavailable
from riverdelta.core.features import Floats, has_text
from riverdelta.core.logs import Throttled
from riverdelta.core.settings import Settings
from riverdelta.graph.merge import GATE_WEIGHT
from riverdelta.learning.definition import Definition
from riverdelta.metrics import STALE_SECONDS, Metrics
from riverdelta.serving.fallback import Fallback
from riverdelta.serving.session import Session
from riverdelta.storage.home import Home
from riverdelta.storage.journal import PATIENCE_SECONDS, Outcome
from riverdelta.storage.registry import Release, State

_log = logging.getLogger(__name__)
_MIRROR_SECONDS = 1.0
#: A worker that scores nothing forgets the oldest of the tables whose first score it would have timed.
_MOST_UNSEEN = 256


@dataclass(frozen=True)
class ScoreAnswer:
    """Scores float32[N], the base's raw outputs, the id of the request (a row is `<id>.<index>`), and the state that scored."""

    scores: Floats
    base: Floats
    impressions: str
    state: State


@dataclass(frozen=True)
class FeedbackAnswer:
    """Each item's outcome, in order, and the journal position that holds the accepted ones."""

    outcomes: list[Outcome]
    position: int


class DataPlane:
    """One process's scorer: a session that follows the live tables, and a journal that keeps what it scored.

    It never waits for the learner: they meet only in the journal and the registry. `patience_seconds` is how long feedback may
    wait for rows that another process scored and has not stored yet.
    """

    def __init__(
        self,
        definition: Definition,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        registry: CollectorRegistry = REGISTRY,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.definition, self.settings, self.clock = definition, settings, clock
        self.metrics = Metrics(registry, definition.name)
        self.home = Home(definition, settings)
        self.session = self._open(self.home.prepare())
        self._fallback = Fallback(settings.not_finite, self.home.releases().champion, self._open, self.metrics)
        self.schema = definition.request_schema
        self._kept = definition.kept
        self._live = self.home.live()
        self._ids = self.home.ids()
        self._followed: State | None = None
        self._refused: State | None = None
        self._showings = 0
        self._expired = Throttled(self._warn_of_expired)
        self._unseen: deque[npt.NDArray[np.float64]] = deque(maxlen=_MOST_UNSEEN)
        self.journal = self.home.journal(patience_seconds)
        self.follow()
        self.metrics.provider(self.session.provider)
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow_forever, name="riverdelta-follow", daemon=True)
        self._follower.start()

    @property
    def name(self) -> str:
        """The scorer's name."""
        return self.definition.name

    def score(
        self, columns: Mapping[str, Any], propensity: Any = None, transport: str = "rest", trace: str | None = None
    ) -> ScoreAnswer:
        """Score a block of columns and note it in the journal, with the trace id that it came with, if any.

        Raises `InvalidInput` naming what is wrong with it, and `NotFinite` where a row has no score and the settings say so.
        """
        started = time.perf_counter()
        checked, rows = self.schema.check(columns, self.settings.max_rows)
        shown_with = None if propensity is None else _propensity(propensity, rows)
        decoded = time.perf_counter()
        scored = self.session.run(checked)
        if np.isnan(scored.score).any():
            scored = self._fallback.settle(scored, checked)
        ran = time.perf_counter()
        now = self.clock()
        if self._unseen:
            self._observe_freshness(now)
        kept = {name: scored.taps[name] if name in scored.taps else checked[name] for name in self._kept}
        raw = (scored.base, scored.corrected, scored.served)
        request = self.journal.append(kept, *raw, shown_with, scored.state, now, trace)
        impressions = self._ids.issue(self.journal.incarnation, request)
        self.metrics.scored(transport, rows, decoded - started, ran - decoded, time.perf_counter() - ran)
        return ScoreAnswer(scored.score, scored.base, impressions, scored.state)

    async def feedback(self, ids: Sequence[str], labels: Floats, source: int = 0) -> FeedbackAnswer:
        """Take feedback: ids `<id>.<index>` and labels of the loss, float[M], or NaN for a row that was shown.

        `source` is the hash of whoever sent it, 0 where nobody asked.

        It returns when the accepted items are durable together with their impressions. Raises `InvalidInput` naming an item
        that is malformed, and `Unavailable`, with nothing of it stored, when the journal cannot be written now or another
        process has not stored some of the rows yet.
        """
        if len(ids) != len(labels):
            raise InvalidInput(f"feedback has {len(ids)} ids and {len(labels)} labels; expected as many of each")
        if len(ids) > self.settings.max_rows:
            raise TooLarge(f"the feedback has {len(ids)} items; at most {self.settings.max_rows} are taken: send it in parts")
        labels = self.definition.loss.check_labels(labels, "item", shown=True)
        if self._showings > self.settings.waiting_bytes and np.isnan(labels).any():
            raise Unavailable(
                f"{self._showings} bytes of showings wait for the end of their window; RIVERDELTA_WAITING_BYTES allows "
                f"{self.settings.waiting_bytes}: send showings again later, or raise it"
            )
        parsed = [self._ids.parse(text) for text in ids]
        good = [i for i, key in enumerate(parsed) if key is not None]
        outcomes = [Outcome.BAD_ID] * len(ids)
        position = 0
        if good:
            keys = np.array([parsed[i] for i in good], np.int64)
            pending = self.journal.feedback(keys[:, 0], keys[:, 1], keys[:, 2], labels[good], self.clock(), source)
            answer = await asyncio.wrap_future(pending)
            position = answer.position
            for i, outcome in zip(good, answer.outcomes, strict=True):
                outcomes[i] = outcome
        self.metrics.feedback(outcomes)
        self._expired.add(outcomes.count(Outcome.EXPIRED), self.clock())
        return FeedbackAnswer(outcomes, position)

    def status(self) -> dict[str, Any]:
        """Return what the service says of itself."""
        state, health = self.session.state, self.journal.health()
        trainer = self.home.read_status()
        silent = self.clock() - trainer["time"] if trainer else None
        return {
            "name": self.name,
            "state": str(state),
            "release": state.release,
            "swap": state.swap,
            "position": state.position,
            "provider": self.session.provider,
            "scatter": self.session.scatter,
            "taking": {name: str(column) for name, column in self.schema.items()},
            "base": {"file": self.definition.signature.path.name, "digest": self.definition.signature.digest},
            "corrections": [repr(c).replace("\n", " ") for c in self.definition.corrections],
            "journal": {
                "pending_rows": health.pending_rows,
                "dropped_rows": health.dropped_rows,
                "error": health.error,
            },
            "sidecar": {"alive": silent is not None and silent < STALE_SECONDS, "silent_seconds": silent},
            "learning": trainer,
        }

    def follow(self) -> None:
        """Swap in whatever the learner has published since; a damaged state is logged and the present one stays."""
        chain = self._live.follow(self._followed)
        if chain and chain[-1].state == self._refused:
            return  # nothing newer than what did not fit
        for delta in chain:
            try:
                seconds = self.session.swap(delta)
            except Corrupt as error:
                _log.error("%s; %s goes on scoring", error, self.session.state)
                # Only a full delta can repair a broken chain.
                self._followed, self._refused = None, chain[-1].state
                self.metrics.refused_swap()
                return
            self._followed = delta.state
            self.metrics.swapped(seconds)
            if delta.received.size:
                self._unseen.append(delta.received)

    def mirror(self) -> None:
        """Read the learner's status: repeat it as metrics, and take no more showings while it holds too many.

        Feedback that has expired meanwhile is logged, too.
        """
        status = self.home.read_status()
        self._showings = int(status.get("showings_bytes", 0))
        self.metrics.mirror(status, self.session.state, self.journal.health(), self.clock())
        self._expired.add(0, self.clock())

    def close(self) -> None:
        """Stop following and make what was scored durable."""
        self._stopping.set()
        self._follower.join()
        self.journal.close()
        self._expired.add(0, math.inf)

    def _open(self, release: Release) -> Session:
        shadow = {GATE_WEIGHT: 0.0} if self.settings.serve == "base" else None
        state = State(release.number, 0, release.position)
        return Session(release.path, state, threads=self.settings.threads, pinned=shadow, loss=self.definition.loss)

    def _warn_of_expired(self, items: int) -> None:
        _log.warning(
            "%d items of feedback were answered 'expired' and are not learned: retention had retired their rows; raise "
            "RIVERDELTA_JOURNAL_MAX_AGE_SECONDS (%g now) or RIVERDELTA_JOURNAL_MAX_BYTES (%d now)",
            items,
            self.settings.journal_max_age_seconds,
            self.settings.journal_max_bytes,
        )

    def _follow_forever(self) -> None:
        mirrored, failing = 0.0, ""
        while not self._stopping.wait(self.settings.follow_seconds):
            try:
                self.follow()
                if time.monotonic() - mirrored >= _MIRROR_SECONDS:
                    mirrored = time.monotonic()
                    self._ids.refresh(self.clock())
                    self.mirror()
                failing = ""
            except Exception as error:  # the thread must outlive a missing folder or a full disk
                if repr(error) != failing:  # once, and not at every look
                    _log.exception(
                        "following the live tables failed; it is tried again every %g s", self.settings.follow_seconds
                    )
                failing = repr(error)

    def _observe_freshness(self, now: float) -> None:
        waiting, self._unseen = self._unseen, deque(maxlen=_MOST_UNSEEN)
        for received in waiting:
            self.metrics.fresh(now - received)


def _propensity(value: Any, rows: int) -> Floats:
    if has_text(value):
        raise InvalidInput(f"propensity has text among its values; expected {rows} numbers above 0 and at most 1")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidInput(f"propensity is ragged ({error}); expected {rows} numbers above 0 and at most 1") from None
    if array.dtype.kind not in "iuf" or array.shape != (rows,) or not ((array > 0) & (array <= 1)).all():
        got = f"{array.dtype}{list(array.shape)}"
        raise InvalidInput(f"propensity is {got}; expected {rows} numbers above 0 and at most 1")
    return np.ascontiguousarray(array, np.float32)
