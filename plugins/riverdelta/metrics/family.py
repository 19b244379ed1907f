"""Family: the metrics of one scorer, named riverdelta_… and labelled with the scorer, in a shared registry."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

M = TypeVar("M", bound=MetricWrapperBase)
#: Metrics by registry and name: a registry accepts a name once, and scorers differ by a label.
_made: WeakKeyDictionary[CollectorRegistry, dict[str, MetricWrapperBase]] = WeakKeyDictionary()
_making = threading.Lock()


class Distribution(Histogram):
    """A histogram that observes many values at the cost of one: one write per bucket hit, not two per value."""

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Add the finite values of float64[M]."""
        values = values[np.isfinite(values)]
        # A value belongs to the first bucket whose upper bound it does not exceed, as in `observe`.
        hits = np.bincount(np.searchsorted(self._upper_bounds, values), minlength=len(self._buckets))
        for bucket in np.flatnonzero(hits).tolist():
            self._buckets[bucket].inc(float(hits[bucket]))
        if len(values):
            self._sum.inc(float(values.sum()))

    def seen(self) -> tuple[int, float]:
        """Return the number of values that this process observed, and their sum."""
        return int(sum(bucket.get() for bucket in self._buckets)), float(self._sum.get())

    def within(self, share: float) -> float | None:
        """Return the lowest bucket bound that `share` of all values do not exceed; None without values or above all bounds."""
        seen = np.cumsum([bucket.get() for bucket in self._buckets])
        bound = self._upper_bounds[int(np.searchsorted(seen, share * seen[-1]))]
        return float(bound) if seen[-1] > 0 and np.isfinite(bound) else None


def counted(counter: Counter) -> int:
    """Return what this process counted."""
    return int(counter._value.get())


class Labelled(Generic[M]):
    """A metric of one scorer; `labels` returns the series for given values of the other labels."""

    def __init__(self, metric: M, model: str) -> None:
        self._metric, self._model = metric, model
        self._series: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """Return a series; it exists from the first call on, at 0."""
        if values not in self._series:
            self._series[values] = self._metric.labels(self._model, *values)
        return self._series[values]

    def series(self) -> Mapping[tuple[str, ...], M]:
        """Return the series that exist, by the values of the other labels."""
        return self._series


class Family:
    """Creates the metrics of the scorer `model`; scorers that share a registry share the metrics and differ by label.

    >>> registry = CollectorRegistry()
    >>> for model in ("ranker", "search", "ranker"):
    ...     Family(registry, model).of(Histogram, "swap_seconds", "Time of a swap, in seconds").labels().observe(1.0)
    >>> registry.get_sample_value("riverdelta_swap_seconds_count", {"model": "ranker"})
    2.0
    """

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._registry, self._model = registry, model

    def of(self, kind: type[M], name: str, text: str, *labels: str, **given: Any) -> Labelled[M]:
        """Return the metric `riverdelta_<name>` with the help `text`; `given` are further arguments of its class."""
        with _making:
            made = _made.setdefault(self._registry, {})
            if name not in made:
                made[name] = kind(f"riverdelta_{name}", text, ("model", *labels), registry=self._registry, **given)
        return Labelled(cast(M, made[name]), self._model)
