"""Learning: losses, the gate, examples learned, the size of the corrections, releases."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from boards.board import board, choice
from boards.quality import quality
from boards.queries import of
from boards.releases import releases
from boards.updates import updates

#: The measures that the chosen models have: one panel each.
MEASURES = choice("measure", "Measure", f"label_values({of('riverdelta_measure')}, measure)")


def dashboard() -> Dashboard:
    """Return the dashboard for the owners of the model."""
    rows = {**quality(), **updates(), **releases()}
    return board("Learning", "Losses, the gate, updates, corrections and releases.", rows, MEASURES)
