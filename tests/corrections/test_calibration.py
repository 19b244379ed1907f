"""Calibration: what a fresh one does with its first labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration
from riverdelta.core.features import Schema


def taught(offset, label, **given):
    """What a calibration makes of some offsets after one example."""
    made = Calibration(**given)
    made.bind(Schema())
    one = np.full((1, 1), offset, np.float32)
    made.learn({}, one, np.full(1, label, np.float32), np.ones(1, np.float32))
    return lambda *offsets: made.predict({}, np.array(offsets, np.float32).reshape(-1, 1))[:, 0]


def test_one_surprising_label_moves_a_logit_by_less_than_one():
    assert taught(-2.6, 1.0)(-2.6) + 2.6 == pytest.approx(0.69, abs=0.02)
    assert taught(-2.6, 1.0, variance=1.0)(-2.6) + 2.6 > 4.0


@given(st.floats(-8.0, 8.0), st.sampled_from([0.0, 1.0]))
@settings(derandomize=True)
def test_no_first_label_changes_the_order_of_the_base(offset, label):
    after = taught(offset, label)(-3.0, -1.0, 0.0, 1.0, 3.0)
    assert (np.diff(after) > 0).all()


def test_with_a_loose_belief_it_would():
    assert (np.diff(taught(-2.6, 1.0, variance=1.0)(-3.0, -1.0, 0.0, 1.0, 3.0)) < 0).all()
