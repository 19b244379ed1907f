"""Tabular bases: scikit-learn models as their users export them, with one input `X` float32[N, F]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.durable import write
from riverdelta.core.features import Floats
from riverdelta.lab.stream import Stream


def table(rows: Stream, names: Sequence[str]) -> Floats:
    """Return columns as one array float32[N, F]."""
    return np.stack([rows.columns[name] for name in names], axis=1).astype(np.float32)


def export(model: Any, features: Floats, path: Path, opset: int = 17) -> None:
    """Write a fitted model as ONNX: input `X`, outputs `label` and `probabilities`, or a regressor's `variable`."""
    from skl2onnx import to_onnx

    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    path.parent.mkdir(parents=True, exist_ok=True)
    made = to_onnx(model, features[:1], options=options, target_opset=opset)
    write(path, made.SerializeToString())
