"""The laws of what third parties may bring: a correction, loss, log or registry is right when its suite passes.

`check_stateful` is the law of whatever saves state, such as an observer.

>>> from riverdelta import Calibration, Schema
>>> from riverdelta.core.losses import LOG_LOSS
>>> check_loss(LOG_LOSS)
>>> check_correction(Calibration(), Schema(), LOG_LOSS)
"""

from riverdelta.checks.corrections import check_correction
from riverdelta.checks.law import LawBroken
from riverdelta.checks.logs import LOG_LAWS, check_log
from riverdelta.checks.losses import check_loss
from riverdelta.checks.memory_log import MemoryLog
from riverdelta.checks.memory_registry import MemoryRegistry
from riverdelta.checks.registries import REGISTRY_LAWS, check_registry
from riverdelta.checks.stateful import check_stateful

__all__ = [
    "LOG_LAWS", "REGISTRY_LAWS", "LawBroken", "MemoryLog", "MemoryRegistry", "check_correction", "check_log", "check_loss",
    "check_registry", "check_stateful",
]  # fmt: skip
