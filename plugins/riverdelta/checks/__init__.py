"""The laws of what third parties may bring: a correction, a log or a registry is right when its suite passes.

`check_stateful` is the law of whatever saves state, such as an observer.

>>> from riverdelta import Calibration, Schema
>>> check_correction(Calibration(), Schema())
"""

from riverdelta.checks.laws import LAWS, LawBroken, check_correction
from riverdelta.checks.logs import LOG_LAWS, check_log
from riverdelta.checks.memory_log import MemoryLog
from riverdelta.checks.memory_registry import MemoryRegistry
from riverdelta.checks.registries import REGISTRY_LAWS, check_registry
from riverdelta.checks.stateful import check_stateful

__all__ = [
    "LAWS", "LOG_LAWS", "REGISTRY_LAWS", "LawBroken", "MemoryLog", "MemoryRegistry", "check_correction", "check_log",
    "check_registry", "check_stateful",
]  # fmt: skip
