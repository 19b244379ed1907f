"""The laws that make a correction right: a third party's correction is right when `check_correction` passes.

>>> from riverdelta import Calibration, Schema
>>> check_correction(Calibration(), Schema())
"""

from riverdelta.checks.laws import LAWS, LawBroken, check_correction

__all__ = ["LAWS", "LawBroken", "check_correction"]
