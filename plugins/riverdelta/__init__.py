"""riverdelta keeps a frozen ONNX scorer learning from its users' feedback.

The public API: corrections and what they read. `riverdelta.bento` has the BentoML decorator, also here as `online`.
"""

from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.corrections.lookup import Lookup
from riverdelta.errors import RiverdeltaError
from riverdelta.features import Schema, id64
from riverdelta.stack import Stack

__all__ = [
    "Calibration",
    "Correction",
    "Entity",
    "Linear",
    "Lookup",
    "RiverdeltaError",
    "Schema",
    "Stack",
    "Table",
    "id64",
]
