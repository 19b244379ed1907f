"""Events: what happened to a scorer, as annotations on every time series."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import AnnotationQuery

from boards.queries import SOURCE, of


class _Described(AnnotationQuery):
    """An annotation with a text, for which the SDK's model lacks Grafana's fields."""

    said = ""

    def to_json(self) -> dict[str, object]:
        """Return the model's JSON with the text and the scorer that it is about."""
        texts = {"titleFormat": self.said, "textFormat": "{{model}} · {{instance}}", "tagKeys": "model,instance"}
        return super().to_json() | texts


@dataclass(frozen=True)
class Event(Builder[AnnotationQuery]):
    """An annotation wherever an expression is above 0; neighbours in time become one region."""

    name: str
    color: str
    expression: str
    said: str

    def build(self) -> AnnotationQuery:
        """Return the annotation."""
        made = _Described(name=self.name, datasource=SOURCE, icon_color=self.color, expr=self.expression)
        made.said = self.said
        return made


def _rises(metric: str, matchers: str = "") -> str:
    """Return a query for a recent rise: a delta, not an increase, since these are gauges, and a fall is not an event."""
    return f"delta({of(metric, matchers)}[$__rate_interval]) > 0"


EVENTS = (
    Event("Releases", "blue", _rises("riverdelta_controls", 'action="release"'), "A release was made"),
    Event("Champions", "green", _rises("riverdelta_controls", 'action="promote"'), "A release became the champion"),
    Event("Rollbacks", "red", _rises("riverdelta_controls", 'action="rollback"'), "Rolled back"),
    Event("Learning frozen", "purple", f"{of('riverdelta_learning_frozen')} == 1", "Learning is frozen"),
    Event("Breaker open", "red", f"{of('riverdelta_breaker_open')} == 1", "The breaker is open"),
    Event("Drift alarms", "orange", _rises("riverdelta_drift_alarms"), "Drift alarm: {{quantity}}"),
)
