"""Labels as clients send them: names of classes that are numbers, and the ends of a range."""

import numpy as np
import pytest

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Multiclass, Regression


@pytest.mark.parametrize(
    ("classes", "label", "code", "numbers"),
    [
        (["1", "2", "other"], 1, 0, [1, 2]),
        (["1.0", "2.0", "3.0"], 2, 1, [1, 2, 3]),
        (["007", "8"], 7, 0, [7, 8]),
        (["0.5", "1.5"], 1.5, 1, [0.5, 1.5]),
        (["01", "1", "1.0"], 1, 1, []),
        (["--1", "2"], 2, 1, [2]),
        (["²", "nan"], 1, 1, [0, 1]),
    ],
)
def test_a_number_is_the_class_of_that_name_wherever_some_name_is_a_number(classes, label, code, numbers):
    loss = Multiclass(classes)
    # A list is how JSON comes, an array how binary formats do.
    assert loss.read_labels([label]).tolist() == loss.read_labels(np.array([label])).tolist() == [code]
    assert loss.label_schema == {"enum": [*classes, *numbers]}


@pytest.mark.parametrize(("classes", "label"), [(["1", "2", "other"], 0), (["1.0", "2.0"], 0), (["01", "1.0"], 1)])
def test_a_number_that_could_be_two_classes_is_refused(classes, label):
    for given in ([label], np.array([label])):
        with pytest.raises(InvalidInput, match=rf"row 0 has the label {label}; expected one of"):
            Multiclass(classes).read_labels(given)


def test_the_ends_of_a_range_are_labels_though_no_float32_is_equal_to_them():
    loss = Regression((0.1, 0.3))
    for given in ([0.1, 0.3], np.float64([0.1, 0.3]), np.float32([0.1, 0.3])):
        labels = loss.check_labels(given)
        assert labels.tolist() == np.float32([0.1, 0.3]).tolist()
        assert loss.in_range(labels, labels).all()
    assert loss.label_schema == {"type": "number", "minimum": 0.1, "maximum": 0.3}
    with pytest.raises(InvalidInput, match=r"row 0 has the label 0\.31; expected a number from 0\.1 to 0\.3"):
        loss.check_labels([0.31])
