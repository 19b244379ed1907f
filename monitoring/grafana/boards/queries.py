"""Queries: Prometheus queries, restricted to the models, instances and jobs that the dashboard's variables select."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
#: The labels that name one scorer of one service; recording rules keep them too.
WHO = "job, instance, model"
_CHOSEN = 'job=~"$job",instance=~"$instance",model=~"$model"'
#: The suffix of a legend: the scorer that it is about.
_WHOSE = "{{model}} · {{instance}}"


def of(metric: str, matchers: str = "") -> str:
    """Return the selector of a metric's selected series, with further matchers.

    >>> of("riverdelta_gate_weight_ratio")
    'riverdelta_gate_weight_ratio{job=~"$job",instance=~"$instance",model=~"$model"}'
    """
    return f"{metric}{{{_CHOSEN}{',' if matchers else ''}{matchers}}}"


def rate(metric: str, matchers: str = "") -> str:
    """Return the increase per second of a counter, or of a gauge that only grows."""
    return f"rate({of(metric, matchers)}[$__rate_interval])"


def each(labels: str, expression: str) -> str:
    """Return the sum by scorer and by further labels.

    >>> each("outcome", "x")
    'sum by (job, instance, model, outcome) (x)'
    """
    return f"sum by ({WHO}{', ' if labels else ''}{labels}) ({expression})"


def quantile(share: float, histogram: str, labels: str = "", matchers: str = "") -> str:
    """Return a quantile of a histogram by scorer and by further labels, without series that have no observation."""
    by = f"{labels}, le" if labels else "le"
    # A comparison drops the NaN that stands for no observation.
    return f"histogram_quantile({share}, {each(by, rate(f'{histogram}_bucket', matchers))}) >= 0"


@dataclass(frozen=True)
class Ask:
    """An expression, with the legend of its series: `legend` and the scorer."""

    expression: str
    legend: str = ""

    def query(self, ref: str, instant: bool) -> Dataquery:
        """Return the query, over the range of the dashboard or at its end."""
        legend = f"{self.legend} · {_WHOSE}" if self.legend else _WHOSE
        made = Dataquery().ref_id(ref).datasource(SOURCE).expr(self.expression).legend_format(legend)
        return made.instant() if instant else made.range()
