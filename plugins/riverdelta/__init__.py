"""riverdelta keeps a frozen ONNX scorer learning from its users' feedback.

The public API: the decorator, the corrections, and what they read.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.corrections.base import Correction, Table
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.corrections.lookup import Lookup
from riverdelta.corrections.stack import Stack
from riverdelta.evaluation.drift import Adapt, Freeze

if TYPE_CHECKING:
    from riverdelta.bento import online
    from riverdelta.river import River

#: Imported when they are first asked for: the corrections alone need neither BentoML nor the converters.
_LAZY = {"online": "riverdelta.bento", "River": "riverdelta.river"}

__all__ = [
    "Adapt",
    "Calibration",
    "Correction",
    "Entity",
    "Freeze",
    "Linear",
    "Lookup",
    "River",
    "RiverdeltaError",
    "Schema",
    "Stack",
    "Table",
    "id64",
    "online",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'riverdelta' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
