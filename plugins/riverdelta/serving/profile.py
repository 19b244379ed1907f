"""Reference profile: measured on labelled rows by scoring them with the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats, Schema
from riverdelta.evaluation.drift import Drift, Reference
from riverdelta.evaluation.drift.alarm import LEAST
from riverdelta.graph.files import save as save_merged
from riverdelta.learning.definition import Definition
from riverdelta.serving.session import Session
from riverdelta.storage.registry import State

LEAST_ROWS = LEAST


def measure(definition: Definition, columns: Mapping[str, Any], label: Any) -> Reference:
    """Score N rows with the frozen base and return the reference profile of all columns, taps included.

    `columns` are those of a request (arrays, or lists if ids are strings) and `label` the N labels, both in their
    original order. Prefer rows that the base was not fitted to. Raises `InvalidInput` naming what is wrong.
    """
    if len(label) < LEAST_ROWS:
        raise InvalidInput(f"the reference has {len(label)} rows; expected at least {LEAST_ROWS}")
    label = definition.loss.read_labels(label)
    for name, values in columns.items():
        if len(values) != len(label):
            raise InvalidInput(f"column {name!r} has {len(values)} rows and the label {len(label)}; expected the same number")
    usable = Schema({name: column for name, column in definition.schema.items() if column.kind != "tensor"})
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in usable}
    base: list[Floats] = []
    with TemporaryDirectory() as folder:
        model = definition.merge(definition.new_stack())
        path = save_merged(model, definition.signature, Path(folder) / "base.onnx")
        session = Session(path, State(0, 0, 0), loss=definition.loss)
        for at in range(0, len(label), definition.rows_at_once):
            block = {name: values[at : at + definition.rows_at_once] for name, values in columns.items()}
            checked = definition.complete(definition.request_schema.check(block, first=at)[0])
            fed, read = definition.features.split(checked, usable, first=at)
            scored = session.run(fed)
            base.append(scored.base)
            for name, kept in parts.items():
                kept.append(scored.taps[name] if name in scored.taps else read[name])
    whole = {name: np.concatenate(kept) for name, kept in parts.items()}
    return Drift.reference_of(usable, whole, np.concatenate(base), label)
