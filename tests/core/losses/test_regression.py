"""Labels of a value: what is in a range, and which row is refused."""

import numpy as np
import pytest

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Regression


@pytest.mark.parametrize("kind", [list, np.float64, np.float32])
def test_the_ends_of_a_range_are_labels_whether_float32_has_them_or_not(kind):
    # The float32 of 0.1 is above it, that of 0.7 below.
    loss = Regression(label_range=(0.1, 0.7))
    assert loss.check_labels(kind([0.1, 0.7])).tolist() == np.float32([0.1, 0.7]).tolist()
    with pytest.raises(InvalidInput, match=r"row 1 has the label 0.71"):
        loss.check_labels([0.5, 0.71])


def test_a_label_that_is_no_number_is_refused_by_its_row_in_the_whole_stream():
    with pytest.raises(InvalidInput, match="row 101 has the label 'x'"):
        Regression().check_labels([1.0, "x"], first=100)
