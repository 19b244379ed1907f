"""Tabular bases: scikit-learn models as their users export them, with one input `X` float32[N, F]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from riverdelta.core.durable import write
from riverdelta.lab.stream import Stream

_OPSET = 17


def fit(model: Any, rows: Stream, names: Sequence[str], path: Path) -> None:
    """Fit a scikit-learn model on columns of numbers and vectors and write it as ONNX.

    A classifier has the outputs `label`, an integer, and `probabilities`; a regressor has `variable`.
    """
    from skl2onnx import to_onnx
    from sklearn.base import is_classifier

    classes = is_classifier(model)
    features = np.column_stack([rows.columns[name] for name in names]).astype(np.float32)
    model.fit(features, rows.label.astype(int) if classes else rows.label)
    options = {id(model): {"zipmap": False}} if classes else None
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, to_onnx(model, features[:1], options=options, target_opset=_OPSET).SerializeToString())
