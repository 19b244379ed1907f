"""A pipeline's gradient is limited in the unit of the label."""

import numpy as np
import pytest

from riverdelta import Regression
from riverdelta.core.losses import LOG_LOSS
from riverdelta.river.unit import Unit


@pytest.mark.parametrize("times", [1e-3, 1.0, 1e6])
def test_the_largest_gradient_is_ten_typical_errors(times):
    unit = Unit(Regression())
    for error in np.random.default_rng(0).normal(size=50):
        unit.observe(0.0, error * times)
    assert unit.most(0.0, 1e3 * times, 1.0, 10.0) == pytest.approx(10.0 * unit.size)
    assert 0.5 * times < unit.size < 2.0 * times


def test_log_loss_has_no_unit():
    assert not Unit(LOG_LOSS).state
