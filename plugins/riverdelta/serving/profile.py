"""Reference profile: measured on labelled rows by scoring them with the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Schema
from riverdelta.evaluation.drift import Drift, Reference
from riverdelta.evaluation.drift.alarm import LEAST
from riverdelta.learning.definition import Definition
from riverdelta.serving.frozen import score_with_base

LEAST_ROWS = LEAST


def measure(definition: Definition, columns: Mapping[str, Any], label: Any) -> Reference:
    """Score N rows with the frozen base and return the reference profile of all columns, taps included.

    `columns` are those of a request (arrays, or lists if ids are strings) and `label` the N labels, both in their
    original order. Prefer rows that the base was not fitted to. Raises `InvalidInput` naming what is wrong.
    """
    if len(label) < LEAST_ROWS:
        raise InvalidInput(f"the reference has {len(label)} rows; expected at least {LEAST_ROWS}")
    if definition.loss.lists:
        raise InvalidInput(
            "the rows of a reference do not say which are one list: leave it out, and the learner takes it from the stream"
        )
    label = definition.loss.read_labels(label)
    for name, values in columns.items():
        if len(values) != len(label):
            raise InvalidInput(f"column {name!r} has {len(values)} rows and the label {len(label)}; expected the same number")
    usable = Schema({name: column for name, column in definition.schema.items() if column.kind != "tensor"})
    base, read = score_with_base(definition, columns, usable)
    return Drift.reference_of(usable, read, base, label, definition.loss)
