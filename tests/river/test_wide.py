"""A float64 survives three float32, and what no float32 reaches stays finite."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.corrections.table import Table
from riverdelta.river.wide import split, store


@given(st.floats(1e-25, 1e30) | st.floats(-1e30, -1e-25) | st.just(0.0))
def test_the_sum_of_the_limbs_is_the_number(value):
    assert split([value]).astype(np.float64).sum() == value


def test_what_is_out_of_range_or_no_number_stays_finite():
    limbs = split([np.nan, np.inf, -np.inf, 1e300, 5e-324])
    assert np.isfinite(limbs).all()
    assert limbs[0].tolist() == [0.0, 0.0, 0.0]
    assert limbs[1, 0] == np.finfo(np.float32).max


def test_only_rows_that_changed_are_touched():
    table = Table(np.zeros((3, 3)))
    store(table, [0.0, 0.1, 0.0])
    assert table.touched.tolist() == [False, True, False]
