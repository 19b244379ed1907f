"""The laws that make a correction or a loss right: a third party's is right when `check_correction` or `check_loss` passes.

>>> from riverdelta import Calibration, Schema
>>> from riverdelta.core.losses import LOG_LOSS
>>> check_loss(LOG_LOSS)
>>> check_correction(Calibration(), Schema(), LOG_LOSS)
"""

from riverdelta.checks.corrections import check_correction
from riverdelta.checks.law import LawBroken
from riverdelta.checks.losses import check_loss

__all__ = ["LawBroken", "check_correction", "check_loss"]
