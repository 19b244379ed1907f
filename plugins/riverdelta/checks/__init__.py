"""The laws that make a part right: a third party's correction is right when `check_correction` passes, wrong ones fail it.

`check_stateful` is the law of whatever saves state, such as an observer.

>>> from riverdelta import Calibration, Schema
>>> check_correction(Calibration(), Schema())
"""

from riverdelta.checks.laws import LAWS, LawBroken, check_correction
from riverdelta.checks.stateful import check_stateful

__all__ = ["LAWS", "LawBroken", "check_correction", "check_stateful"]
