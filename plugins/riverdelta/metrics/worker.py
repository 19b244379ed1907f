"""Metrics: what one worker reports to Prometheus, by name, unit and label."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from riverdelta.core.errors import RiverdeltaError, TooLarge
from riverdelta.metrics.dead import forget_dead_workers
from riverdelta.metrics.family import Family, Labelled
from riverdelta.metrics.learner import TrainerMirror
from riverdelta.storage.journal.base import Health, Outcome
from riverdelta.storage.registry import State

#: `python` is a call within the process: a user's own code, a replay.
TRANSPORTS = ("rest", "oip_rest", "grpc", "python")
STAGES = ("decode", "score", "journal", "encode", "total")
ENDPOINTS = ("score", "feedback", "status", "metadata", "health", "admin")
#: Why a request was refused: the client's fault, too much of it, not now, or our fault.
REFUSALS = ("invalid", "too_large", "unavailable", "internal")
JOURNAL_ERRORS = ("full_disk", "other")
SCORERS = ("base", "served")
_REQUEST = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_FRESHNESS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_SWAP = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0)


def refusal(error: BaseException) -> str:
    """Return which of `REFUSALS` an error is.

    >>> refusal(TooLarge("x")), refusal(KeyError("x"))
    ('too_large', 'internal')
    """
    status = error.http_status if isinstance(error, RiverdeltaError) else 500
    if isinstance(error, TooLarge):
        return "too_large"
    return "invalid" if 400 <= status < 500 else "unavailable" if status == 503 else "internal"


class Metrics:
    """What one worker did, and what the learner says; the values of all workers are put together where they are read.

    Times are in seconds; a transport is one of `TRANSPORTS`, an endpoint one of `ENDPOINTS`.

    >>> registry = CollectorRegistry()
    >>> metrics = Metrics(registry, "ranker")
    >>> metrics.scored("rest", rows=32, decode=1e-5, score=1e-4, journal=1e-5)
    >>> registry.get_sample_value("riverdelta_rows_scored_total", {"model": "ranker", "transport": "rest"})
    32.0
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, model: str = "") -> None:
        new = Family(registry, model)
        request = new.histograms(
            "request_seconds", "Time of a scoring request by stage, in seconds", _REQUEST, "transport", "stage"
        )
        self._stages = {t: {s: request.labels(t, s) for s in STAGES} for t in TRANSPORTS}
        waited = new.histograms(
            "feedback_seconds", "Time until feedback is durable and answered, in seconds", _REQUEST, "transport"
        )
        self._waited = {t: waited.labels(t) for t in TRANSPORTS}
        self._requests = new.counters(
            "requests", "Requests by what became of them, in requests", "transport", "endpoint", "outcome"
        )
        self._ok = {(t, e): self._requests.labels(t, e, "ok") for t in TRANSPORTS for e in ENDPOINTS}
        rows = new.counters("rows_scored", "Rows that got a score, in rows", "transport")
        self._rows = {t: rows.labels(t) for t in TRANSPORTS}
        self._not_finite = new.counters("rows_not_finite", "Rows whose score was not a finite number, in rows", "scorer")
        self._feedback = new.counters("feedback", "Feedback items by outcome, in items", "outcome")
        self._refused = new.counters("feedback_refused", "Feedback requests refused as a whole, in requests", "reason")
        self._freshness = new.histogram(
            "freshness_seconds", "From feedback received to a worker's first score with it learned, in seconds", _FRESHNESS
        )
        self._swap = new.histogram("swap_seconds", "Time to put new tables into service, in seconds", _SWAP)
        self._swaps = new.counters("swaps", "New tables taken or refused, by all workers, in swaps", "outcome")
        self._errors = new.counters("journal_errors", "Times the journal began to fail, in failures", "kind")
        self._lost = new.counter("impressions_dropped", "Impressions given up while the journal failed, in rows")
        self._age = new.gauge("live_age_seconds", "Age of the oldest tables in service, in seconds", "livemax")
        self._position = new.gauge("live_position", "Journal position that all workers' tables contain, in records", "livemin")
        self._provider = new.gauges("execution_provider", "Workers on this provider, in workers", "livesum", "provider")
        self._pending = new.gauge("journal_pending_rows", "Impressions that are not durable yet, in rows", "livesum")
        self._failing = new.gauge("journal_failing", "Whether a worker cannot write the journal, 0 or 1", "livemax")
        self._trainer = TrainerMirror(registry, model)
        self._dropped, self._published, self._error = 0, 0.0, False
        # Series that exist from the start, so that a rate sees the first event.
        first: dict[Labelled[Counter], Iterable[str]] = {
            self._feedback: Outcome,
            self._refused: REFUSALS,
            self._swaps: ("taken", "refused"),
            self._errors: JOURNAL_ERRORS,
            self._not_finite: SCORERS,
        }
        for counter, values in first.items():
            for value in values:
                counter.labels(str(value))

    def scored(self, transport: str, rows: int, decode: float, score: float, journal: float) -> None:
        """Note a block that got scores, and the time of three of its stages."""
        stages = self._stages[transport]
        stages["decode"].observe(decode)
        stages["score"].observe(score)
        stages["journal"].observe(journal)
        self._rows[transport].inc(rows)

    def not_finite(self, base: int, served: int) -> None:
        """Count the rows whose base score, and those whose served score, was NaN, whatever was answered for them."""
        for scorer, rows in zip(SCORERS, (base, served), strict=True):
            self._not_finite.labels(scorer).inc(rows)

    def encoded(self, transport: str, seconds: float) -> None:
        """Note the time that went into a scoring answer's bytes."""
        self._stages[transport]["encode"].observe(seconds)

    def answered(self, transport: str, endpoint: str, seconds: float, error: BaseException | None = None) -> None:
        """Count a request, as ok or as what `refusal` says of its error, and the whole time that a good one took."""
        if error is not None:
            reason = refusal(error)
            self._requests.labels(transport, endpoint, reason).inc()
            if endpoint == "feedback":
                self._refused.labels(reason).inc()
            return
        self._ok[transport, endpoint].inc()
        if endpoint == "score":
            self._stages[transport]["total"].observe(seconds)
        elif endpoint == "feedback":
            self._waited[transport].observe(seconds)

    def feedback(self, outcomes: Iterable[Outcome]) -> None:
        """Count feedback items by outcome."""
        for outcome, items in Tally(outcomes).items():
            self._feedback.labels(outcome.value).inc(items)

    def fresh(self, seconds: npt.NDArray[np.float64]) -> None:
        """Note how long ago feedback was received that this worker's tables now contain for the first time."""
        self._freshness.observe_many(seconds)

    def freshness(self, share: float) -> float | None:
        """Return the seconds in which so large a share of feedback was in this worker's tables, up to a bucket's bound.

        >>> metrics = Metrics(CollectorRegistry())
        >>> metrics.fresh(np.array([0.03, 0.04, 0.04, 4.0]))
        >>> metrics.freshness(0.5), metrics.freshness(0.95)
        (0.05, 5.0)
        """
        return self._freshness.within(share)

    def swapped(self, seconds: float) -> None:
        """Note that new tables were put into service, and how long that took."""
        self._swaps.labels("taken").inc()
        self._swap.observe(seconds)

    def refused_swap(self) -> None:
        """Count new tables that were damaged or did not fit."""
        self._swaps.labels("refused").inc()

    def provider(self, name: str) -> None:
        """Note at a worker's start which provider it runs on; workers that were killed are counted no longer."""
        forget_dead_workers()
        self._provider.labels(name).set(1)

    def mirror(self, status: Mapping[str, Any], state: State, health: Health, now: float) -> None:
        """Repeat the learner's status, and note what is in service and how this worker's journal does; every second or so."""
        self._trainer.update(status, now)
        if status.get("published") and state.swap >= status["swap"]:
            self._published = max(self._published, float(status["published"]))
        if self._published:
            self._age.set(max(now - self._published, 0.0))
        self._position.set(state.position)
        self._pending.set(health.pending_rows)
        self._lost.inc(max(health.dropped_rows - self._dropped, 0))
        self._dropped = health.dropped_rows
        if health.error is not None and not self._error:
            self._errors.labels("full_disk" if "full" in health.error.lower() else "other").inc()
        self._error = health.error is not None
        self._failing.set(self._error)
