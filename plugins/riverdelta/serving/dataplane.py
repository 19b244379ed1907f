"""DataPlane: scores requests and accepts feedback; every transport is a thin layer over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry

from riverdelta.core import senders
from riverdelta.core.age import age
from riverdelta.core.errors import InvalidInput, Unavailable, short, too_many_rows
from riverdelta.core.features import Column, Floats
from riverdelta.core.records import RequestName
from riverdelta.core.settings import Settings
from riverdelta.core.values import is_list
from riverdelta.corrections.interval import LOWER, UPPER
from riverdelta.graph.merge import GATE_WEIGHT
from riverdelta.graph.taps import BOUNDS
from riverdelta.learning.definition import Definition
from riverdelta.metrics.learner import reports
from riverdelta.metrics.worker import Metrics
from riverdelta.serving.answer import ScoreAnswer
from riverdelta.serving.fallback import Fallback
from riverdelta.serving.feedback import JOINED, FeedbackAnswer, Items, Meant, checked, found
from riverdelta.serving.follower import Follower
from riverdelta.serving.health import health
from riverdelta.serving.naming import Claim, claim, read_name
from riverdelta.serving.session import Session
from riverdelta.serving.texts import Texts
from riverdelta.storage.home import Home
from riverdelta.storage.journal import PATIENCE_SECONDS, Outcome, Rows
from riverdelta.storage.journal.names import RowName
from riverdelta.storage.log import Named, Request
from riverdelta.storage.registry import Release, State


@dataclass(frozen=True)
class Block:
    """Checked columns of N rows, those that the journal keeps of them, the propensities with which the rows are shown, and the
    seconds that the checks took.

    `filled` are the columns of times that the client left out, `name` has the client's ids of the request and its rows, if any,
    `texts` the texts of string ids that are new.
    """

    columns: Mapping[str, Any]
    kept: Mapping[str, Any]
    rows: int
    propensity: Floats | None
    seconds: float
    filled: Collection[str] = ()
    name: RequestName | None = None
    texts: Mapping[int, str] = field(default_factory=dict)


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
        self.definition, self._began = self.home.definition, time.monotonic()
        self._senders = senders.names(settings)
        self.metrics = Metrics(registry, definition.name, self._senders.values())
        self.session = self._open(self.home.prepare())
        self._fallback = Fallback(settings.not_finite, self.home.releases().champion, self._open, self.metrics)
        self.schema = self.definition.request_schema
        ids = [name for name, column in self.definition.journal.items() if column.kind == "id"]
        self._texts = Texts(ids, settings.names, time.monotonic)
        self._ids = self.home.ids()
        with ExitStack() as held:
            self.journal = held.enter_context(closing(self.home.journal(patience_seconds)))
            self.follower = Follower(self.home, self.session, self.journal, self._ids, self.metrics, clock)
            self.follower.start()
            held.pop_all()
        self.metrics.provider(self.session.provider)

    def score(
        self,
        columns: Mapping[str, Any],
        propensity: Any = None,
        transport: str = "rest",
        trace: str | None = None,
        request_id: str | None = None,
        row_ids: Sequence[str | int] | None = None,
    ) -> ScoreAnswer:
        """Score a block of columns and append it to the journal, with the request's trace id, if any.

        With the client's `request_id` it returns when the rows are durable. Raises as `read`, `score_block` and `settle`.
        """
        made = self.score_block(self.read(columns, propensity, request_id, row_ids), transport, trace)
        return self._settled(made, made.owner.result()) if isinstance(made, Claim) else made

    def read(self, columns: Mapping[str, Any], propensity: Any = None, request_id: Any = None, row_ids: Any = None) -> Block:
        """Return checked columns, and the client's ids; raises `InvalidInput` naming what is wrong."""
        started = time.perf_counter()
        sent, rows = self.schema.without(columns).check(columns, self.settings.max_rows)
        filled = [name for name in self.schema.optional if name not in sent]
        # Journalled with the columns, so that learning sees the time that was scored.
        checked = sent | dict.fromkeys(filled, np.full(rows, self.clock())) if filled else sent
        fed, kept = self.definition.split(checked)
        shown_with = None if propensity is None else _propensity(propensity, rows)
        name = read_name(request_id, row_ids, rows, self._ids)
        texts = self._texts.new({**columns, **self.definition.features.texts(checked)}, kept)
        return Block(fed, kept, rows, shown_with, time.perf_counter() - started, filled, name, texts)

    def score_block(self, block: Block, transport: str = "rest", trace: str | None = None) -> ScoreAnswer | Claim:
        """Score a block that `read` returned; if its request has a name, the answer is what `settle` returns.

        Raises `InvalidInput` if the model or `prepare` rejects it, `PrepareFailed` if `prepare` fails, and `NotFinite` if a row
        has no score and the settings require one.
        """
        began = time.perf_counter()
        fed, sent, texts = block.columns, block.kept, block.texts
        if self.definition.prepare is not None:
            checked = self.definition.complete(fed)
            fed, sent = self.definition.split(checked)
            texts = {**texts, **self._texts.new(self.definition.features.texts(checked), sent)}
        started = time.perf_counter()
        scored = self.session.run(fed)
        if np.isnan(scored.score).any():
            scored = self._fallback.settle(scored, fed)
        ran = time.perf_counter()
        now = self.clock()
        self.follower.scored(now)
        kept = {name: scored.taps[name] if name in scored.taps else sent[name] for name in self.definition.journal}
        bounds = {name: scored.taps[name] for name in BOUNDS if self.definition.interval is not None and name in scored.taps}
        kept |= dict(zip((LOWER, UPPER), bounds.values(), strict=False))
        raw = (scored.base, scored.corrected, scored.served)
        rows = Rows(kept, *raw, block.propensity, scored.state, now, trace, texts=texts)
        made: ScoreAnswer | Claim
        if block.name is None:
            request = self.journal.incarnation, self.journal.append(rows)
            made = self._answer(request, scored.score, scored.base, scored.state, bounds)
        else:
            sent_by_client = {name: array for name, array in block.columns.items() if name not in block.filled}
            made = claim(self.journal, rows, block.name, sent_by_client, scored.score, bounds)
        prepared = None if self.definition.prepare is None else started - began
        self.metrics.scored(transport, block.rows, block.seconds, ran - started, time.perf_counter() - ran, prepared)
        return made

    async def settle(self, claimed: Claim) -> ScoreAnswer:
        """Return the answer to a request with a name when its rows are durable: that of the first request of this name.

        Raises `AlreadyExists` if the first request had other rows, and `Unavailable` if the journal cannot be written now.
        """
        return self._settled(claimed, await asyncio.wrap_future(claimed.owner))

    def _settled(self, claimed: Claim, owner: Named) -> ScoreAnswer:
        known = claimed.settled(owner)
        return self._answer(owner.request, known.scores, known.base, known.state, known.bounds)

    def _answer(
        self, request: Request, scores: Floats, base: Floats, state: State, bounds: Mapping[str, Floats] = {}
    ) -> ScoreAnswer:
        return ScoreAnswer(scores, base, self._ids.issue(*request), state, self.definition.loss, bounds)

    async def feedback(self, ids: Sequence[str | RowName], labels: Any, source: int = 0, **more: Any) -> FeedbackAnswer:
        """Store feedback: ids `<id>.<index>` or the client's own, and M labels, NaN for a row that was only shown.

        `source` is a hash of the sender, 0 if unknown; `more` is as in `feedback.checked`.

        Raises as `read_feedback` and `store`.
        """
        return await self.store(self.read_feedback(ids, labels, **more), source)

    def read_feedback(self, ids: Sequence[str | RowName], labels: Any, **more: Any) -> Items:
        """Return checked feedback; raises `InvalidInput` naming a malformed item. `more` is as in `feedback.checked`."""
        if len(ids) != len(labels):
            raise InvalidInput(f"feedback has {len(ids)} ids and {len(labels)} labels; expected the same number of each")
        if len(ids) > self.settings.max_rows:
            raise too_many_rows(f"the feedback has {len(ids)} items", self.settings.max_rows)
        labels = self.definition.loss.read_labels(labels, "item", shown=True)
        rows: list[Meant] = [*self._ids.parse_all([name for name in ids if isinstance(name, str)])]
        if len(rows) < len(ids):
            issued = iter(rows)
            rows = [next(issued) if isinstance(name, str) else name for name in ids]
        return Items(rows, labels, checked(labels, self.definition.loss.lists, self.clock(), **more))

    async def store(self, items: Items, source: int = 0) -> FeedbackAnswer:
        """Store feedback that `read_feedback` returned; returns when accepted items and their impressions are durable.

        Raises `Unavailable`, with nothing stored, if the journal cannot be written now or another process has not stored some
        of the rows yet, and `InvalidInput` for a name that does not say which row of its request is meant.
        """
        labels = items.labels
        # Lists that are complete leave memory.
        waits = "complete" not in items.more if self.definition.loss.lists else np.isnan(labels).any()
        if waits and (waiting := self.follower.showings_bytes) > self.settings.waiting_bytes:
            lists = self.definition.loss.lists
            what, then = ("the feedback of lists", ', with "complete"') if lists else ("showings", "")
            raise Unavailable(
                f"{waiting} bytes of {what} are waiting for their window to end; RIVERDELTA_WAITING_BYTES allows "
                f"{self.settings.waiting_bytes}: send {what.removeprefix('the ')} later{then}, or raise the setting"
            )
        parsed = items.rows
        if RowName in set(map(type, parsed)):
            parsed = await asyncio.to_thread(found, items.rows, self.journal.log)
        good = [i for i, row in enumerate(parsed) if type(row) is tuple]
        outcomes = [Outcome.BAD_ID] * len(parsed)
        if len(good) < len(parsed):
            outcomes = [row if isinstance(row, Outcome) else Outcome.BAD_ID for row in parsed]
        position = 0
        if good:
            keys = np.array([parsed[i] for i in good], np.int64)
            rows, more = (keys[:, 0], keys[:, 1], keys[:, 2]), {name: values[good] for name, values in items.more.items()}
            pending = self.journal.feedback(*rows, labels[good], self.clock(), source, **more)
            answer = await asyncio.wrap_future(pending)
            if (times := more.get("event")) is not None:
                self.metrics.reported(self.clock() - times[[one in JOINED for one in answer.outcomes]])
            position = answer.position
            for i, outcome in zip(good, answer.outcomes, strict=True):
                outcomes[i] = outcome
        self.metrics.feedback(outcomes, self._senders.get(source, senders.OTHER))
        self.follower.expired(outcomes.count(Outcome.EXPIRED))
        return FeedbackAnswer(outcomes, position)

    def status(self) -> dict[str, Any]:
        """Return the service's part of the status."""
        state, journal = self.session.state, self.journal.health()
        trainer, now = self.home.read_status(), self.clock()
        dated = trainer.get("time", now)
        sidecar = {"alive": reports(trainer, now), "silent_seconds": age(dated, now) if trainer else None}
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
            "sidecar": sidecar | {"ahead_seconds": max(dated - now, 0.0)},
            "learning": trainer,
        }
        return status | {"health": health(status, self.definition.loss, time.monotonic() - self._began)._asdict()}

    def close(self) -> None:
        """Stop following, and make all scored rows durable."""
        self.follower.stop()
        self.journal.close()

    def _open(self, release: Release) -> Session:
        shadow = {GATE_WEIGHT: 0.0} if self.settings.serve == "base" else None
        state = State(release.number, 0, release.position)
        threads, loss, lately = self.settings.threads, self.definition.loss, self.definition.lately
        return Session(release.path, state, threads=threads, pinned=shadow, loss=loss, lately=lately)


def _propensity(value: Any, rows: int) -> Floats:
    if is_list(value) and len(value) != rows:
        raise InvalidInput(f"propensity has {len(value)} values; expected {rows}, one a row")
    array = Column("propensity", "float32").check(value)
    if array.shape != (rows,) or not ((array > 0) & (array <= 1)).all():
        raise InvalidInput(f"propensity is {short(array.tolist())}; expected {rows} numbers above 0 and at most 1")
    return array
