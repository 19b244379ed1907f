"""Panels: what the checked-in dashboards ask Prometheus, with Grafana's variables in place; for every test that asks it too."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

DASHBOARDS = Path(__file__).parents[2] / "monitoring" / "grafana" / "dashboards"
#: What Grafana puts in for each variable where everything is chosen, one hour is shown, and metrics are read every 15 seconds.
VARIABLES = {
    "job": ".+", "instance": ".+", "model": ".+", "measure": ".+",
    "__interval": "15s", "__rate_interval": "1m", "__range": "1h",
}  # fmt: skip
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Asked:
    """An expression of a panel, an annotation or a variable; `needed`: a healthy service has data for it."""

    board: str
    title: str
    expression: str
    needed: bool


def dashboards() -> dict[str, dict]:
    """Return the checked-in dashboards by their file's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def filled(text: str, **variables: str) -> str:
    """Return a text with Grafana's variables in place; raises KeyError for one that is not known.

    >>> filled('rate(x{model=~"$model"}[$__rate_interval])', model="shop")
    'rate(x{model=~"shop"}[1m])'
    """
    values = VARIABLES | variables
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], text)


def expressions(dashboard: dict, **variables: str) -> list[Asked]:
    """Return everything that a dashboard asks of Prometheus, ready to be asked; annotations ask for what rarely happens."""
    name, asked = dashboard["uid"], []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            asked.append(Asked(name, panel["title"], filled(target["expr"], **variables), needed=True))
    for event in dashboard["annotations"]["list"]:
        asked.append(Asked(name, event["name"], filled(event["expr"], **variables), needed=False))
    return asked
