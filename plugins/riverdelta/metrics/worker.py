"""Metrics: what one worker reports to Prometheus, by name, unit and label."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from riverdelta.core.age import SKEW_SECONDS
from riverdelta.core.senders import OTHER
from riverdelta.metrics.family import Distribution, Family, Labelled, counted
from riverdelta.metrics.files import forget_dead_workers
from riverdelta.metrics.learner import TrainerMirror
from riverdelta.storage.journal.base import Health, Outcome
from riverdelta.storage.registry import State

STAGES = ("decode", "score", "journal", "encode", "total")
#: Why a request was refused: a client error, too large, temporarily unavailable, or a server error.
REFUSALS = ("invalid", "too_large", "unavailable", "internal")
JOURNAL_ERRORS = ("full_disk", "other")
SCORERS = ("base", "served")
_REQUEST = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_REPORTED = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)
_FRESHNESS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SWAP = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0)


def outcome(status: int) -> str:
    """Return the outcome of a request, by the HTTP status of its answer: `ok`, `conflict`, or one of `REFUSALS`.

    >>> [outcome(status) for status in (200, 404, 409, 413, 503, 500)]
    ['ok', 'invalid', 'conflict', 'too_large', 'unavailable', 'internal']
    """
    if status < 400:
        return "ok"
    known = {409: "conflict", 413: "too_large", 501: "invalid", 503: "unavailable"}
    return known.get(status, "invalid" if status < 500 else "internal")


class Figures(NamedTuple):
    """What one worker counted at an endpoint: when it last answered (Unix seconds; 0: never), its rows or items that
    were not refused, and by Triton's names of stages the number of requests and the seconds spent."""

    last: float
    rows: int
    spent: dict[str, tuple[int, float]]


#: Triton's names of stages.
_MEASURED = {"success": "total", "compute_input": "decode", "compute_infer": "score", "compute_output": "encode"}


class Metrics:
    """The metrics of one worker, and the learner's status; the values of all workers are aggregated when they are read.

    Scorers of one process share a registry and differ by the label `model`. Times are in seconds.

    >>> registry = CollectorRegistry()
    >>> metrics = Metrics(registry, "ranker")
    >>> metrics.scored("rest", rows=32, decode=1e-5, score=1e-4, journal=1e-5)
    >>> registry.get_sample_value("riverdelta_rows_scored_total", {"model": "ranker", "transport": "rest"})
    32.0
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, model: str = "", senders: Iterable[str] = ()) -> None:
        new = Family(registry, model).of

        def gauge(name: str, text: str, mode: str) -> Gauge:
            return new(Gauge, name, text, multiprocess_mode=mode).labels()

        self._stages = new(
            Distribution, "request_seconds", "Time of a scoring request by stage, in seconds", "transport", "stage",
            buckets=_REQUEST,
        )  # fmt: skip
        self._waited = new(
            Distribution, "feedback_seconds", "Time until feedback is durable and answered, in seconds", "transport",
            buckets=_REQUEST,
        )  # fmt: skip
        self._requests = new(Counter, "requests", "Requests by outcome, in requests", "transport", "endpoint", "outcome")
        self._rows = new(Counter, "rows_scored", "Rows scored, in rows", "transport")
        self._not_finite = new(Counter, "rows_not_finite", "Rows whose score was not a finite number, in rows", "scorer")
        self._feedback = new(Counter, "feedback", "Feedback items by outcome, in items", "outcome")
        self._senders = new(Counter, "sender_feedback", "Feedback items by the name of their sender, in items", "sender")
        self._reported = new(
            Distribution, "report_delay_seconds", "Time from an event to the feedback about it, in seconds", buckets=_REPORTED
        ).labels()
        self._refused = new(Counter, "feedback_refused", "Feedback requests that were refused, in requests", "reason")
        self._freshness = new(
            Distribution, "freshness_seconds",
            "Time from feedback received to a worker's first score that contains it, in seconds", buckets=_FRESHNESS,
        ).labels()  # fmt: skip
        self._swap = new(
            Distribution, "swap_seconds", "Time to put new tables into service, in seconds", buckets=_SWAP
        ).labels()
        self._swaps = new(Counter, "swaps", "New tables taken or refused by all workers, in swaps", "outcome")
        self._errors = new(Counter, "journal_errors", "Times the journal began to fail, in failures", "kind")
        self._lost = new(Counter, "impressions_dropped", "Impressions dropped while the journal failed, in rows").labels()
        self._provider = new(
            Gauge, "execution_provider", "Workers on this provider, in workers", "provider", multiprocess_mode="livesum"
        )
        self._age = gauge("live_age_seconds", "Age of the oldest tables in service, in seconds", "livemax")
        self._position = gauge("live_position", "Journal position that all workers' tables contain, in records", "livemin")
        self._pending = gauge("journal_pending_rows", "Impressions not durable yet, in rows", "livesum")
        self._failing = gauge("journal_failing", "Whether a worker cannot write the journal, 0 or 1", "livemax")
        self._trainer = TrainerMirror(registry, model)
        self._dropped, self._error = 0, False
        #: The newest publication in service as the learner dated it, and as this worker does: never in the future.
        self._dated = self._published = 0.0
        self._answered: dict[str, float] = {}
        # Series that exist from the start, so that a rate includes the first event.
        for counter, values in (
            (self._feedback, tuple(Outcome)),
            (self._senders, (*senders, OTHER)),
            (self._refused, REFUSALS),
            (self._swaps, ("taken", "refused")),
            (self._errors, JOURNAL_ERRORS),
            (self._not_finite, SCORERS),
        ):
            for value in values:
                counter.labels(str(value))

    def expect(self, endpoints: Mapping[str, Iterable[str]]) -> None:
        """Let the series of these endpoints, by transport, exist, so that a rate sees the first request.

        A call within the process (transport `python`) is not a request.
        """
        for transport, labels in endpoints.items():
            self._rows.labels(transport), self._waited.labels(transport)
            for stage in STAGES:
                self._stages.labels(transport, stage)
            for endpoint in labels:
                self._requests.labels(transport, endpoint, "ok")

    def scored(
        self, transport: str, rows: int, decode: float, score: float, journal: float, prepare: float | None = None
    ) -> None:
        """Record a scored block, and the time of its stages; `prepare` only where the scorer has one."""
        if prepare is not None:
            self._stages.labels(transport, "prepare").observe(prepare)
        for stage, seconds in (("decode", decode), ("score", score), ("journal", journal)):
            self._stages.labels(transport, stage).observe(seconds)
        self._rows.labels(transport).inc(rows)

    def not_finite(self, base: int, served: int) -> None:
        """Count the rows whose base score, and those whose served score, was NaN, whatever the answer was."""
        for scorer, rows in zip(SCORERS, (base, served), strict=True):
            self._not_finite.labels(scorer).inc(rows)

    def encoded(self, transport: str, seconds: float) -> None:
        """Record the time spent encoding a scoring answer."""
        self._stages.labels(transport, "encode").observe(seconds)

    def answered(self, transport: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a request by its transport and endpoint and by the HTTP status that its answer has or would have;
        note how long a good one took."""
        became = outcome(status)
        self._requests.labels(transport, endpoint, became).inc()
        if became != "ok":
            if endpoint == "feedback":
                self._refused.labels(became).inc()
            return
        self._answered[endpoint] = time.time()
        if endpoint == "score":
            self._stages.labels(transport, "total").observe(seconds)
        elif endpoint == "feedback":
            self._waited.labels(transport).observe(seconds)

    def figures(self, endpoint: str) -> Figures:
        """Return what this worker counted at `score` or `feedback` since it started."""
        failed = sum(counted(n) for (_, at, became), n in self._requests.series().items() if at == endpoint and became != "ok")
        if endpoint == "score":
            rows = [counted(n) for n in self._rows.series().values()]
            spent = {name: _total(self._stages, stage) for name, stage in _MEASURED.items()}
        else:
            rows = [counted(n) for (became,), n in self._feedback.series().items() if not Outcome(became).refused]
            spent = dict.fromkeys(("success", "compute_infer"), _total(self._waited))
        return Figures(self._answered.get(endpoint, 0.0), sum(rows), {**spent, "fail": (failed, 0.0)})

    def feedback(self, outcomes: Sequence[Outcome], sender: str = OTHER) -> None:
        """Count feedback items by outcome, and by their sender, one of the `senders`."""
        self._senders.labels(sender).inc(len(outcomes))
        for each, items in Tally(outcomes).items():
            self._feedback.labels(each.value).inc(items)

    def reported(self, seconds: npt.NDArray[np.float64]) -> None:
        """Record how long after its event each label came; NaN is left out, and an event ahead of the clock counts as now."""
        self._reported.observe_many(np.maximum(seconds[~np.isnan(seconds)], 0.0))

    def fresh(self, seconds: npt.NDArray[np.float64]) -> None:
        """Record the ages of feedback that this worker's tables now contain for the first time; those below -5 are unknown."""
        self._freshness.observe_many(np.maximum(seconds[seconds >= -SKEW_SECONDS], 0.0))

    def freshness(self, share: float) -> float | None:
        """Return the seconds within which `share` of the feedback was in this worker's tables, rounded up to a bucket.

        >>> metrics = Metrics(CollectorRegistry())
        >>> metrics.fresh(np.array([0.03, 0.04, 0.04, 4.0]))
        >>> metrics.freshness(0.5), metrics.freshness(0.95)
        (0.05, 5.0)
        """
        return self._freshness.within(share)

    def swapped(self, seconds: float) -> None:
        """Record that new tables were swapped in, and how long that took."""
        self._swaps.labels("taken").inc()
        self._swap.observe(seconds)

    def refused_swap(self) -> None:
        """Count new tables that were refused because they were damaged or did not fit."""
        self._swaps.labels("refused").inc()

    def provider(self, name: str) -> None:
        """Record at a worker's start which provider it runs on, and stop counting killed workers."""
        forget_dead_workers()
        self._provider.labels(name).set(1)

    def mirror(self, status: Mapping[str, Any], state: State, health: Health, now: float) -> None:
        """Export the learner's status, the tables in service and this worker's journal health; called about every second."""
        self._trainer.update(status, now)
        dated = float(status.get("published") or 0.0)
        if dated not in (0.0, self._dated) and state.swap >= status["swap"]:
            self._dated = self._published = dated
        if self._published:
            self._published = min(self._published, now)
            self._age.set(now - self._published)
        self._position.set(state.position)
        self._pending.set(health.pending_rows)
        self._lost.inc(max(health.dropped_rows - self._dropped, 0))
        self._dropped = health.dropped_rows
        if health.error is not None and not self._error:
            self._errors.labels("full_disk" if "full" in health.error.lower() else "other").inc()
        self._error = health.error is not None
        self._failing.set(self._error)


def _total(distribution: Labelled[Distribution], *stage: str) -> tuple[int, float]:
    """Return the number and the sum of a distribution's values over all transports."""
    seen = [one.seen() for labels, one in distribution.series().items() if labels[1:] == stage]
    return sum(n for n, _ in seen), sum(seconds for _, seconds in seen)
