"""Board: a dashboard's variables, links to the other dashboards, events, and panels in lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models import dashboard as models

from boards.events import EVENTS
from boards.queries import SOURCE

WIDTH = 24
_TAG = "riverdelta"
#: A series that every service has from its start.
_PRESENT = "riverdelta_sidecar_up"

#: A row's title, then lines of panels: (height, the panels, each with its width).
Line = tuple[int, Sequence[tuple[int, Any]]]
Rows = Mapping[str, Sequence[Line]]


def board(name: str, description: str, rows: Rows, *variables: QueryVariable) -> models.Dashboard:
    """Return a dashboard with panels from left to right in the lines of each row; a row without a title has no bar.

    `variables` are chosen from beside the model.
    """
    made = (
        Dashboard(f"riverdelta: {name}")
        .uid(f"riverdelta-{name.lower()}")
        .description(description)
        .tags([_TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            DashboardLink("riverdelta")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(choice("job", "Job", f"label_values({_PRESENT}, job)"))
        .with_variable(choice("instance", "Instance", f'label_values({_PRESENT}{{job=~"$job"}}, instance)'))
        .with_variable(choice("model", "Model", f'label_values({_PRESENT}{{job=~"$job",instance=~"$instance"}}, model)'))
    )
    for variable in variables:
        made = made.with_variable(variable)
    for event in EVENTS:
        made = made.annotation(event)
    number, top = 0, 0
    for title, lines in rows.items():
        if title:
            number += 1
            made = made.with_row(Row(title).id(number).grid_pos(models.GridPos(h=1, w=WIDTH, x=0, y=top)))
            top += 1
        for height, panels in lines:
            left = 0
            for width, panel in panels:
                number += 1
                made = made.with_panel(panel.id(number).grid_pos(models.GridPos(h=height, w=width, x=left, y=top)))
                left += width
            top += height
    return made.build()


def choice(name: str, label: str, query: str) -> QueryVariable:
    """Return a variable of a label's values: one, several or all of them."""
    everything = models.VariableOption(text=["All"], value=["$__all"])
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(everything)
    )
