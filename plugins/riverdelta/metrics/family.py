"""Family: metrics of one registry and one scorer, named riverdelta_… and labelled with the scorer's name."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)
#: The label that every metric has first.
MODEL = "model"


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


class Labelled(Generic[M]):
    """A metric of one scorer whose other labels are yet to be given."""

    def __init__(self, metric: M, model: str) -> None:
        self._metric, self._model = metric, model

    def labels(self, *values: str) -> M:
        """Return the series with these values of the other labels."""
        return self._metric.labels(self._model, *values)


class Family:
    """Makes metrics: `counter`, `histogram`, `gauge` one series; `counters`, `histograms`, `gauges` one for each label value.

    >>> registry = CollectorRegistry()
    >>> Family(registry, "ranker").counter("swaps", "New tables, in swaps").inc(2)
    >>> registry.get_sample_value("riverdelta_swaps_total", {"model": "ranker"})
    2.0
    """

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._registry, self._model = registry, model

    def counter(self, name: str, text: str) -> Counter:
        """Return a counter."""
        return self.counters(name, text).labels()

    def counters(self, name: str, text: str, *labels: str) -> Labelled[Counter]:
        """Return a counter for each value of `labels`."""
        return Labelled(Counter(f"riverdelta_{name}", text, (MODEL, *labels), registry=self._registry), self._model)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Distribution:
        """Return a histogram."""
        return self.histograms(name, text, buckets).labels()

    def histograms(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Labelled[Distribution]:
        """Return a histogram for each value of `labels`."""
        made = Distribution(f"riverdelta_{name}", text, (MODEL, *labels), buckets=buckets, registry=self._registry)
        return Labelled(made, self._model)

    def gauge(self, name: str, text: str, mode: Any = "mostrecent") -> Gauge:
        """Return a gauge; `mode` says what becomes of the values of several workers."""
        return self.gauges(name, text, mode).labels()

    def gauges(self, name: str, text: str, mode: Any = "mostrecent", *labels: str) -> Labelled[Gauge]:
        """Return a gauge for each value of `labels`."""
        made = Gauge(f"riverdelta_{name}", text, (MODEL, *labels), registry=self._registry, multiprocess_mode=mode)
        return Labelled(made, self._model)
