"""riverdelta keeps a frozen ONNX scorer learning from its users' feedback.

The public API: the decorator `online`, the corrections, and the types that they use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from riverdelta.bento import online
    from riverdelta.core.errors import RiverdeltaError
    from riverdelta.core.features import Schema
    from riverdelta.core.hashing import id64
    from riverdelta.core.losses import Count, Multiclass, Ranking, Regression
    from riverdelta.corrections.base import Correction
    from riverdelta.corrections.calibration import Calibration
    from riverdelta.corrections.entity import Entity
    from riverdelta.corrections.head import Head
    from riverdelta.corrections.interval import Interval
    from riverdelta.corrections.linear import Linear
    from riverdelta.corrections.lookup import Lookup
    from riverdelta.corrections.project import Project
    from riverdelta.corrections.seasons import Seasons
    from riverdelta.corrections.stack import Stack
    from riverdelta.corrections.table import Table
    from riverdelta.evaluation.drift import Adapt, Freeze
    from riverdelta.river import River

#: The module of each name. It is imported on first use, so that the command line starts without numba and BentoML.
_MODULES = {
    "Adapt": "evaluation.drift",
    "Calibration": "corrections.calibration",
    "Correction": "corrections.base",
    "Count": "core.losses",
    "Entity": "corrections.entity",
    "Freeze": "evaluation.drift",
    "Head": "corrections.head",
    "Interval": "corrections.interval",
    "Linear": "corrections.linear",
    "Lookup": "corrections.lookup",
    "Multiclass": "core.losses",
    "Project": "corrections.project",
    "Ranking": "core.losses",
    "Regression": "core.losses",
    "River": "river",
    "RiverdeltaError": "core.errors",
    "Schema": "core.features",
    "Seasons": "corrections.seasons",
    "Stack": "corrections.stack",
    "Table": "corrections.table",
    "id64": "core.hashing",
    "online": "bento",
}

__all__ = [
    "Adapt", "Calibration", "Correction", "Count", "Entity", "Freeze", "Head", "Interval", "Linear", "Lookup", "Multiclass",
    "Project", "Ranking", "Regression", "River", "RiverdeltaError", "Schema", "Seasons", "Stack", "Table", "id64", "online",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'riverdelta' has no attribute {name!r}")
    return getattr(importlib.import_module(f"riverdelta.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
