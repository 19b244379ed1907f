"""Terms: what learning depends on besides the records before it."""

from __future__ import annotations

from typing import Any

from riverdelta.core.settings import Settings
from riverdelta.evaluation import drift
from riverdelta.learning import reference
from riverdelta.learning.definition import Definition


def in_effect(definition: Definition, settings: Settings) -> dict[str, Any]:
    """Return all that learning reads besides the journal, as a settings record has it."""
    given = reference.load(definition)
    response = drift.as_record(definition.on_drift)
    return {**settings.learning(), "on_drift": response, "reference": given and given.digest.hex()}
