"""Convert: River estimators into ONNX, and `River`, the correction that is made of them.

`River` lives here and not with the other corrections because imports go down only and it needs the converters.
"""

from riverdelta.river import compose, feature_hasher, linear_model, one_hot_encoder, scalers, select  # noqa: F401 - to register
from riverdelta.river.base import Converter, Flow, Place, Shape, register
from riverdelta.river.correction import River

__all__ = ["Converter", "Flow", "Place", "River", "Shape", "register"]
