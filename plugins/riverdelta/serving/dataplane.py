"""DataPlane: scores requests and accepts feedback; every transport is a thin layer over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry

from riverdelta.core import senders
from riverdelta.core.errors import InvalidInput, TooLarge, Unavailable
from riverdelta.core.features import Column, Floats
from riverdelta.core.settings import Settings
from riverdelta.graph.merge import GATE_WEIGHT
from riverdelta.learning.definition import Definition
from riverdelta.metrics.learner import STALE_SECONDS
from riverdelta.metrics.worker import Metrics
from riverdelta.serving.fallback import Fallback
from riverdelta.serving.follower import Follower
from riverdelta.serving.health import health
from riverdelta.serving.session import Session
from riverdelta.storage.home import Home
from riverdelta.storage.journal import PATIENCE_SECONDS, Outcome, Rows
from riverdelta.storage.registry import Release, State


@dataclass(frozen=True)
class ScoreAnswer:
    """Scores float32[N], the base's raw outputs, the request's id (a row is `<id>.<index>`), and the state that scored it."""

    scores: Floats
    base: Floats
    impressions: str
    state: State


@dataclass(frozen=True)
class FeedbackAnswer:
    """The outcome of each item, in order, and the journal position of the accepted ones."""

    outcomes: list[Outcome]
    position: int


class DataPlane:
    """The scorer of one process: a session that follows the live tables, and a journal of what it scored.

    It never waits for the learner: they share only the journal and the registry.

    Parameters
    ----------
    definition
        The scorer: base model, taps, columns and corrections.
    settings
        The operator's settings.
    clock
        Returns the time in Unix seconds (default `time.time`); set it in tests.
    registry
        The Prometheus registry of its metrics; several scorers may share one.
    patience_seconds
        How long feedback may wait for rows that another process scored and has not stored yet, in seconds. Raise it for a slow
        disk, and keep it below the client's timeout.
    home
        Where journal, releases and tables are; by default the folder that the settings name. Set it for another log or
        registry.
    """

    def __init__(
        self,
        definition: Definition,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        registry: CollectorRegistry = REGISTRY,
        patience_seconds: float = PATIENCE_SECONDS,
        home: Home | None = None,
    ) -> None:
        self.home, self.settings, self.clock = home or Home(definition, settings), settings, clock
        self.definition, self._began = self.home.definition, clock()
        self._senders = senders.names(settings)
        self.metrics = Metrics(registry, definition.name, self._senders.values())
        self.session = self._open(self.home.prepare())
        self._fallback = Fallback(settings.not_finite, self.home.releases().champion, self._open, self.metrics)
        self.schema = self.definition.request_schema
        self._ids = self.home.ids()
        with ExitStack() as held:
            self.journal = held.enter_context(closing(self.home.journal(patience_seconds)))
            self.follower = Follower(self.home, self.session, self.journal, self._ids, self.metrics, clock)
            self.follower.start()
            held.pop_all()
        self.metrics.provider(self.session.provider)

    def score(
        self, columns: Mapping[str, Any], propensity: Any = None, transport: str = "rest", trace: str | None = None
    ) -> ScoreAnswer:
        """Score a block of columns and append it to the journal, with the request's trace id, if any.

        Raises `InvalidInput` naming what is wrong, and `NotFinite` if a row has no score and the settings require one.
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
        self.follower.scored(now)
        kept = {name: scored.taps[name] if name in scored.taps else checked[name] for name in self.definition.kept}
        raw = (scored.base, scored.corrected, scored.served)
        request = self.journal.append(Rows(kept, *raw, shown_with, scored.state, now, trace))
        impressions = self._ids.issue(self.journal.incarnation, request)
        self.metrics.scored(transport, rows, decoded - started, ran - decoded, time.perf_counter() - ran)
        return ScoreAnswer(scored.score, scored.base, impressions, scored.state)

    async def feedback(self, ids: Sequence[str], labels: Floats, source: int = 0) -> FeedbackAnswer:
        """Store feedback: ids `<id>.<index>` and labels float[M], NaN for a row that was only shown.

        `source` is a hash of the sender, 0 if unknown.

        Returns when the accepted items are durable together with their impressions. Raises `InvalidInput` naming a malformed
        item. Raises `Unavailable`, with nothing stored, if the journal cannot be written now or another process has not stored
        some of the rows yet.
        """
        if len(ids) != len(labels):
            raise InvalidInput(f"feedback has {len(ids)} ids and {len(labels)} labels; expected the same number of each")
        if len(ids) > self.settings.max_rows:
            raise TooLarge(
                f"the feedback has {len(ids)} items; at most {self.settings.max_rows} are accepted: send it in parts"
            )
        labels = self.definition.loss.check_labels(labels, "item", shown=True)
        if (waiting := self.follower.showings_bytes) > self.settings.waiting_bytes and np.isnan(labels).any():
            raise Unavailable(
                f"{waiting} bytes of showings are waiting for their window to end; RIVERDELTA_WAITING_BYTES allows "
                f"{self.settings.waiting_bytes}: send showings later, or raise the setting"
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
        self.metrics.feedback(outcomes, self._senders.get(source, senders.OTHER))
        self.follower.expired(outcomes.count(Outcome.EXPIRED))
        return FeedbackAnswer(outcomes, position)

    def status(self) -> dict[str, Any]:
        """Return the service's part of the status."""
        state, journal = self.session.state, self.journal.health()
        trainer = self.home.read_status()
        silent = self.clock() - trainer["time"] if trainer else None
        status = {
            "name": self.definition.name,
            "state": str(state),
            "release": state.release,
            "swap": state.swap,
            "position": state.position,
            "provider": self.session.provider,
            "scatter": self.session.scatter,
            "taking": {name: str(column) for name, column in self.schema.items()},
            "base": {"file": self.definition.signature.path.name, "digest": self.definition.signature.digest},
            "corrections": [" ".join(repr(c).split()) for c in self.definition.corrections],
            "journal": {name: getattr(journal, name) for name in ("pending_rows", "dropped_rows", "error")},
            "sidecar": {"alive": silent is not None and silent < STALE_SECONDS, "silent_seconds": silent},
            "learning": trainer,
        }
        return status | {"health": health(status, self.definition.loss, self.clock() - self._began)._asdict()}

    def close(self) -> None:
        """Stop following, and make all scored rows durable."""
        self.follower.stop()
        self.journal.close()

    def _open(self, release: Release) -> Session:
        shadow = {GATE_WEIGHT: 0.0} if self.settings.serve == "base" else None
        state = State(release.number, 0, release.position)
        return Session(release.path, state, threads=self.settings.threads, pinned=shadow, loss=self.definition.loss)


def _propensity(value: Any, rows: int) -> Floats:
    array = Column("propensity", "float32").check(value)
    if array.shape != (rows,) or not ((array > 0) & (array <= 1)).all():
        raise InvalidInput(f"propensity is {short(array.tolist())}; expected {rows} numbers above 0 and at most 1")
    return array
