"""Frozen: what the base returns, and what corrections read, for rows of a log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from riverdelta.core.features import Floats
from riverdelta.graph.files import save
from riverdelta.learning.definition import Definition
from riverdelta.serving.session import Session
from riverdelta.storage.registry import State


def score_with_base(
    definition: Definition, columns: Mapping[str, Any], names: Collection[str]
) -> tuple[Floats, dict[str, npt.NDArray[Any]]]:
    """Return the frozen base's raw outputs float32[N, K] of N rows, and their features by name, taps included.

    `columns` are those of a request, and `names` those of the features. Raises `InvalidInput` naming what is wrong.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    base, count, rows = list[Floats](), len(next(iter(columns.values()))), definition.rows_at_once
    with TemporaryDirectory() as folder:
        path = save(definition.merge(definition.new_stack()), definition.signature, Path(folder) / "base.onnx")
        session = Session(path, State(0, 0, 0), loss=definition.loss)
        for at in range(0, count, rows):
            block = {name: values[at : at + rows] for name, values in columns.items()}
            checked = definition.complete(definition.request_schema.check(block, first=at)[0])
            fed, read = definition.features.split(checked, names, first=at)
            scored = session.run(fed)
            base.append(scored.base)
            for name, kept in parts.items():
                kept.append(scored.taps[name] if name in scored.taps else read[name])
    return np.concatenate(base), {name: np.concatenate(kept) for name, kept in parts.items()}
