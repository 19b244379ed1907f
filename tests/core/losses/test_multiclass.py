"""Multiclass: labels as clients and numpy have them."""

import numpy as np
import pytest

from riverdelta import Multiclass
from riverdelta.core.errors import InvalidInput


@pytest.mark.parametrize("given", [["3", "7"], [b"3", b"7"], [3, np.int64(7)], [np.float32(3), np.str_("7")], np.array([3, 7])])
def test_names_and_numbers_of_python_and_numpy_are_classes(given):
    assert Multiclass(["7", "3"]).read_labels(given).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("given", [True, np.True_, 0.5, np.float64(2.0), None, "cat "])
def test_what_is_no_class_is_refused(given):
    with pytest.raises(InvalidInput, match=r"row 0 has the label .* expected one of 'cat', 'dog'"):
        Multiclass(["cat", "dog"]).read_labels([given])


@pytest.mark.parametrize(("name", "numbers"), [("²", [1]), ("--5", [1]), ("007", [7, 1])])
def test_every_name_may_be_sent_as_text_and_one_that_is_a_number_as_that_too(name, numbers):
    loss = Multiclass([name, "1"])
    assert loss.label_schema == {"enum": [name, "1", *numbers]}
    assert loss.read_labels([name, "1", *numbers]).tolist() == [0.0, 1.0, *[0.0, 1.0][-len(numbers) :]]
