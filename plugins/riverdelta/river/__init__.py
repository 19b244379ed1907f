"""Convert: River estimators into ONNX, one file each, and `River`, the correction that is made of them.

`River` lives here and not with the other corrections because imports go down only and it needs the converters.
"""

from riverdelta.river import (
    feature_hasher,
    linear_model,
    min_max_scaler,
    one_hot_encoder,
    pipeline,
    select,
    standard_scaler,
    union,
)
from riverdelta.river.base import Converter, Flow, Place, Shape, register
from riverdelta.river.correction import River

__all__ = [
    "Converter",
    "Flow",
    "Place",
    "River",
    "Shape",
    "feature_hasher",
    "linear_model",
    "min_max_scaler",
    "one_hot_encoder",
    "pipeline",
    "register",
    "select",
    "standard_scaler",
    "union",
]
