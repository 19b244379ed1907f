"""The contracts of corrections, losses, logs, registries and parts with state, as laws that `check` runs on yours.

>>> from riverdelta import Calibration
>>> from riverdelta.core.losses import LOG_LOSS
>>> for one in (Calibration(), LOG_LOSS):
...     check(one)
{}
{}
"""

from riverdelta.checks.law import LawBroken
from riverdelta.checks.memory_log import MemoryLog
from riverdelta.checks.memory_registry import MemoryRegistry
from riverdelta.checks.stateful import Part
from riverdelta.checks.suite import LAWS, Check, check, parametrize_with_checks, yield_checks

__all__ = [
    "LAWS", "Check", "LawBroken", "MemoryLog", "MemoryRegistry", "Part", "check", "parametrize_with_checks", "yield_checks",
]  # fmt: skip
