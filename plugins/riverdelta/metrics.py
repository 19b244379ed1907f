"""Metrics: everything that riverdelta tells Prometheus, by name, unit and label.

`prometheus_client` decides at its import whether values live in one process or, with PROMETHEUS_MULTIPROC_DIR set, in files
that all workers share: import this module after the variable is set, as it is in every BentoML worker. With files there is
no Info, no Enum and no removal of labels, so every label here has a fixed, small set of values.
"""

from __future__ import annotations

import math
import os
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, multiprocess

from riverdelta.errors import RiverdeltaError, TooLarge
from riverdelta.journal.base import Health, Outcome
from riverdelta.registry import State

#: `python` is a call within the process: a user's own code, a replay.
TRANSPORTS = ("rest", "oip_rest", "grpc", "python")
STAGES = ("decode", "score", "journal", "encode", "total")
ENDPOINTS = ("score", "feedback", "status", "metadata", "health")
#: Why a request was refused: the client's fault, too much of it, not now, or our fault.
REFUSALS = ("invalid", "too_large", "unavailable", "internal")
JOURNAL_ERRORS = ("full_disk", "other")
#: A learner whose status is older than this counts as down; it writes four a second, and a large release takes a while.
STALE_SECONDS = 10.0

_mark_dead: Any = multiprocess.mark_process_dead  # untyped
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


class Distribution(Histogram):
    """A histogram that takes many values at the price of one: one write a bucket that is hit, not two a value."""

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Add the finite values of float64[M]."""
        values = values[np.isfinite(values)]
        # A value belongs to the first bucket whose upper bound it does not exceed, as in `observe`.
        hits = np.bincount(np.searchsorted(self._upper_bounds, values), minlength=len(self._buckets))
        for bucket in np.flatnonzero(hits).tolist():
            self._buckets[bucket].inc(float(hits[bucket]))
        if len(values):
            self._sum.inc(float(values.sum()))

    def within(self, share: float) -> float | None:
        """Return the least bucket's bound that such a share of all values keeps; None without values, or past all bounds."""
        seen = np.cumsum([bucket.get() for bucket in self._buckets])
        bound = self._upper_bounds[int(np.searchsorted(seen, share * seen[-1]))]
        return float(bound) if seen[-1] > 0 and np.isfinite(bound) else None


class Metrics:
    """What one worker did, and what the learner says; the values of all workers are put together where they are read.

    Times are in seconds; a transport is one of `TRANSPORTS`, an endpoint one of `ENDPOINTS`.

    >>> registry = CollectorRegistry()
    >>> metrics = Metrics(registry)
    >>> metrics.scored("rest", rows=32, decode=1e-5, score=1e-4, journal=1e-5)
    >>> registry.get_sample_value("riverdelta_rows_scored_total", {"transport": "rest"})
    32.0
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        new = _Family(registry)
        request = new.histogram(
            "request_seconds", "Time of a scoring request by stage, in seconds", _REQUEST, "transport", "stage"
        )
        self._stages = {t: {s: request.labels(t, s) for s in STAGES} for t in TRANSPORTS}
        waited = new.histogram(
            "feedback_seconds", "Time until feedback is durable and answered, in seconds", _REQUEST, "transport"
        )
        self._waited = {t: waited.labels(t) for t in TRANSPORTS}
        self._requests = new.counter(
            "requests", "Requests by what became of them, in requests", "transport", "endpoint", "outcome"
        )
        self._ok = {(t, e): self._requests.labels(t, e, "ok") for t in TRANSPORTS for e in ENDPOINTS}
        rows = new.counter("rows_scored", "Rows that got a score, in rows", "transport")
        self._rows = {t: rows.labels(t) for t in TRANSPORTS}
        self._feedback = new.counter("feedback", "Feedback items by outcome, in items", "outcome")
        self._refused = new.counter("feedback_refused", "Feedback requests refused as a whole, in requests", "reason")
        self._freshness = new.histogram(
            "freshness_seconds", "From feedback received to a worker's first score with it learned, in seconds", _FRESHNESS
        )
        self._swap = new.histogram("swap_seconds", "Time to put new tables into service, in seconds", _SWAP)
        self._swaps = new.counter("swaps", "New tables taken or refused, by all workers, in swaps", "outcome")
        self._errors = new.counter("journal_errors", "Times the journal began to fail, in failures", "kind")
        self._lost = new.counter("impressions_dropped", "Impressions given up while the journal failed, in rows")
        self._age = new.gauge("live_age_seconds", "Age of the oldest tables in service, in seconds", "livemax")
        self._position = new.gauge("live_position", "Journal position that all workers' tables contain, in records", "livemin")
        self._provider = new.gauge("execution_provider", "Workers on this provider, in workers", "livesum", "provider")
        self._pending = new.gauge("journal_pending_rows", "Impressions that are not durable yet, in rows", "livesum")
        self._failing = new.gauge("journal_failing", "Whether a worker cannot write the journal, 0 or 1", "livemax")
        self._trainer = TrainerMirror(registry)
        self._dropped, self._published, self._error = 0, 0.0, False
        # Series that exist from the start, so that a rate sees the first event.
        first: dict[Counter, Iterable[str]] = {
            self._feedback: Outcome,
            self._refused: REFUSALS,
            self._swaps: ("taken", "refused"),
            self._errors: JOURNAL_ERRORS,
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


class TrainerMirror:
    """What the learner says of itself in its status, which every worker reads and repeats: the most recent word counts.

    The learner is another process, and no worker may add its counts up, so they are gauges, without `_total`; `rate` works
    on them all the same, since they only grow.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        new = _Family(registry)
        self._up = new.gauge("sidecar_up", "Whether the learner wrote its status in the last 10 seconds, 0 or 1")
        self._paused = new.gauge("learning_paused", "Whether the learner waits for a disk or a journal, 0 or 1")
        self._occupancy = new.gauge("table_occupancy_ratio", "Used share of a hashed table, a ratio", "mostrecent", "table")
        self._plain = {
            key: new.gauge(name, text)
            for key, name, text in (
                ("frozen", "learning_frozen", "Whether an operator froze learning, 0 or 1"),
                ("position", "learned_position", "Journal position that has been learned, in records"),
                ("examples", "examples_joined", "Rows that got their label, in rows"),
                ("learned", "examples_learned", "Examples learned, in rows"),
                ("unmatched", "labels_unmatched", "Accepted labels whose impression had left the joiner, in rows"),
                ("unmatured", "rows_unmatured", "Shown rows that left the joiner before their window closed, in rows"),
                ("kept_negatives", "negatives_kept", "Negatives that became examples, in rows"),
                ("dropped_negatives", "negatives_dropped", "Negatives that sampling left out, in rows"),
                ("backlog_rows", "joiner_backlog_rows", "Impressions that wait for feedback, in rows"),
                ("journal_bytes", "journal_bytes", "Size of the journal on disk, in bytes"),
                ("release", "release_number", "Release that the tables in service come from, a number"),
                ("champion", "champion_number", "Release that passed its test last, a number"),
                ("release_bytes", "release_bytes", "Size of all releases on disk, in bytes"),
                ("swap", "swap_number", "Newest tables published, a number"),
                ("releases", "releases", "Releases kept on disk, in releases"),
                ("releases_refused", "releases_refused", "Releases refused since the learner's start, in releases"),
                ("parity_max_logit", "parity_max_logit", "Largest difference of the last release from Python, in logits"),
            )
        }
        self._gate = {
            key: new.gauge(f"gate_{name}", text)
            for key, name, text in (
                ("weight", "weight_ratio", "Weight of the corrected probability in the served one, a ratio"),
                ("rate", "learning_rate_ratio", "Rate of the gate, 1 without delay, a ratio"),
                ("delay", "delay_examples", "Most labels on the way while a row was served, in rows"),
                ("gain", "gain_nats", "Log loss that serving has saved over the base alone, in nats"),
                ("excess", "excess_nats", "Log loss of what was served over that of the better expert, in nats"),
                ("bound", "bound_nats", "What the excess cannot pass, in nats"),
            )
        }
        self._admission = {
            key: new.gauge(name, text)
            for key, name, text in (
                ("open", "breaker_open", "Whether the breaker keeps examples from being learned, 0 or 1"),
                ("trips", "breaker_trips", "Times the breaker has opened, in times"),
                ("limited", "updates_limited", "Examples kept back because an entity had enough, in rows"),
            )
        }
        self._drift_by = {
            key: new.gauge(f"drift_{name}", text, "mostrecent", label)
            for key, name, text, label in (
                ("psi", "psi_ratio", "Population stability index of a column against its reference, a ratio", "column"),
                ("js", "js_ratio", "Jensen-Shannon distance of a column from its reference, a ratio", "column"),
                ("alarms", "alarms", "Drift alarms so far, in alarms", "quantity"),
                ("evidence", "evidence_ratio", "Log of a drift detector's evidence over that of an alarm, a ratio", "quantity"),
            )
        }
        self._drift = {
            key: new.gauge(f"drift_{name}", text)
            for key, name, text in (
                ("alarmed", "alarmed", "Whether drift raised an alarm within the last reference's length, 0 or 1"),
                ("adapting_examples", "adapting_examples", "Examples yet to be learned at a raised rate, in rows"),
            )
        }
        self._prequential = {
            measure: new.gauge(f"prequential_{measure}", f"Prequential {text}", "mostrecent", "scorer", "window")
            for measure, text in (
                ("log_loss", "log loss, in nats a row"),
                ("calibration_ratio", "sum of scores over sum of labels, a ratio"),
                ("auc", "area under the ROC curve, a ratio"),
                ("auc_error", "most by which the AUC may be off, a ratio"),
                ("accuracy", "accuracy at the threshold, a ratio"),
                ("precision", "precision at the threshold, a ratio"),
                ("recall", "recall at the threshold, a ratio"),
                ("f1", "F1 at the threshold, a ratio"),
                ("threshold", "threshold from which a score counts as positive, a ratio"),
                ("examples", "examples judged, in rows"),
                ("skipped", "examples that were not finite and left out, in rows"),
            )
        }

    def update(self, status: Mapping[str, Any], now: float) -> None:
        """Repeat a status at time `now` (Unix seconds); what it lacks stays as it was, and null becomes NaN."""
        self._up.set(now - float(status.get("time") or 0.0) <= STALE_SECONDS)
        if not status:
            return
        self._paused.set(status.get("paused") is not None)
        for key, gauge in self._plain.items():
            if key in status:
                gauge.set(_number(status[key]))
        drift = status.get("drift", {})
        for by, label in (("columns", "column"), ("quantities", "quantity")):
            for name, values in drift.get(by, {}).items():
                for key, value in values.items():
                    self._drift_by[key].labels(**{label: name}).set(_number(value))
        for part, gauges in (("gate", self._gate), ("admission", self._admission), ("drift", self._drift)):
            for key, value in status.get(part, {}).items():
                if key in gauges:
                    gauges[key].set(_number(value))
        for table, share in status.get("occupancy", {}).items():
            self._occupancy.labels(table).set(_number(share))
        for window, scorers in status.get("prequential", {}).items():
            for scorer, measures in scorers.items():
                for measure, value in measures.items():
                    if measure in self._prequential:
                        self._prequential[measure].labels(scorer, window).set(_number(value))


def forget_dead_workers() -> list[int]:
    """Stop counting the live gauges of workers that no longer run, and return their process ids; for a worker's start.

    Without it the gauges of a worker that was killed are added up for ever. Does nothing outside multiprocess mode.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    names = {path.stem.rpartition("_")[2] for path in Path(folder).glob("gauge_live*_*.db")} if folder else set()
    dead = sorted(int(pid) for pid in names if pid.isdigit() and not _runs(int(pid)))
    for pid in dead:
        _mark_dead(pid)
    return dead


class _Family:
    """Makes metrics of one registry, named riverdelta_…."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"riverdelta_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Distribution:
        return Distribution(f"riverdelta_{name}", text, labels, buckets=buckets, registry=self._registry)

    def gauge(self, name: str, text: str, mode: Any = "mostrecent", *labels: str) -> Gauge:
        return Gauge(f"riverdelta_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
