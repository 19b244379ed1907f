"""Metrics: everything that riverdelta tells Prometheus.

`prometheus_client` decides at its import whether values live in one process or, with PROMETHEUS_MULTIPROC_DIR set, in files
that all workers share: import this package after the variable is set, as it is in every BentoML worker. With files there is
no Info, no Enum and no removal of labels, so every label here has a fixed, small set of values.
"""

from riverdelta.metrics.dead import forget_dead_workers
from riverdelta.metrics.family import Distribution
from riverdelta.metrics.learner import STALE_SECONDS, TrainerMirror
from riverdelta.metrics.page import Page
from riverdelta.metrics.worker import ENDPOINTS, JOURNAL_ERRORS, REFUSALS, STAGES, TRANSPORTS, Metrics, refusal

__all__ = [
    "ENDPOINTS", "JOURNAL_ERRORS", "REFUSALS", "STAGES", "STALE_SECONDS", "TRANSPORTS", "Distribution", "Metrics", "Page",
    "TrainerMirror", "forget_dead_workers", "refusal",
]  # fmt: skip
