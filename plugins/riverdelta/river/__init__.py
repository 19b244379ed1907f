"""`River`, the correction that learns by a River pipeline, and the converters of River estimators to ONNX."""

from riverdelta.river import compose, feature_hasher, linear_model, one_hot_encoder, scalers, select  # noqa: F401 - to register
from riverdelta.river.base import Converter, Flow, Place, Shape, register
from riverdelta.river.correction import River

__all__ = ["Converter", "Flow", "Place", "River", "Shape", "register"]
