"""What an example teaches counts in the unit of the label, and belongs to the classes that were labels."""

import numpy as np
import pytest

from riverdelta import Calibration, Count, Entity, Head, Linear, Multiclass, Ranking, Regression, Schema, Stack
from riverdelta.core.errors import ConfigurationError
from riverdelta.corrections.base import Correction
from riverdelta.corrections.table import Table

SCHEMA = Schema.of({"u": "int64", "x": "float32"})


def stack_of(correction, loss):
    stack = Stack([correction.clone()], loss)
    stack.bind(SCHEMA)
    return stack


def rows(number):
    return {"u": np.ones(number, np.int64)}, np.zeros((number, 1), np.float32)


def test_an_entity_of_a_number_is_a_kalman_mean():
    label = np.random.default_rng(0).normal(2.0, 1.0, 60).astype(np.float32)
    weight = np.tile(np.array([1.0, 0.5], np.float32), 30)
    found = stack_of(Entity("u", variance=0.5, slots=8), Regression()).learn(*rows(60), label, weight)[:, 0]
    # The state does not move: prior mean 0 and variance 0.5, observations of variance 1 / weight.
    mean, variance, expected = 0.0, 0.5, []
    for row, (y, w) in enumerate(zip(label.tolist(), weight.tolist(), strict=True)):
        expected.append(mean)
        gain = variance / (variance + 1.0 / w) if row >= 7 else 0.0  # the first errors only say what the unit is
        mean, variance = mean + gain * (y - mean), (1.0 - gain) * variance
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("absurd", [1e15, -1e15], ids=["high", "low"])
@pytest.mark.parametrize(
    "correction", [Calibration(), Entity("u", slots=8), Linear("u", slots=8)], ids=lambda c: type(c).__name__
)
def test_an_absurd_first_label_is_forgotten(correction, absurd):
    label = np.full(60, 5.0, np.float32) + np.random.default_rng(1).normal(size=60).astype(np.float32)
    label[:2] = absurd
    found = stack_of(correction, Regression()).learn(*rows(60), label, np.ones(60, np.float32))
    assert 0.0 < found[-1, 0] < 8.0


@pytest.mark.parametrize("absurd", [1e15, -1e15, 1e9], ids=["high", "low", "large"])
@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize(
    "correction", [Calibration(), Entity("u", slots=8), Linear("u", slots=8), Head("x")], ids=lambda c: type(c).__name__
)
def test_an_absurd_label_among_the_first_moves_no_later_output_by_more_than_a_few_errors(correction, first, absurd):
    rng = np.random.default_rng(2)
    columns = {"u": np.ones(40, np.int64), "x": np.ones(40, np.float32)}
    offset, label = np.full((40, 1), 45.0, np.float32), (50.0 + rng.normal(size=40)).astype(np.float32)
    label[first] = absurd
    found = stack_of(correction, Regression()).learn(columns, offset, label, np.ones(40, np.float32))[:, 0]
    assert np.abs(found - 50.0).max() < 60.0
    assert abs(found[-1] - 50.0) < 5.0


def test_an_absurd_first_count_moves_no_later_rate_out_of_its_range():
    label, offset = np.full(40, 50.0, np.float32), np.full((40, 1), np.log(45.0), np.float32)
    label[0] = 2.0**24
    for correction in (Calibration(), Entity("u", slots=8), Linear("u", slots=8), Head("x")):
        columns = {"u": np.ones(40, np.int64), "x": np.ones(40, np.float32)}
        found = np.exp(stack_of(correction, Count()).learn(columns, offset, label, np.ones(40, np.float32))[:, 0])
        assert (found > 10.0).all(), correction
        assert (found < 250.0).all(), correction


def test_overdispersed_counts_teach_less():
    moved = []
    for label in ([10.0, 10.0] * 20, [0.0, 20.0] * 20):
        offset = np.full((40, 1), np.log(9.0), np.float32)
        stack = stack_of(Entity("u", slots=8), Count())
        stack.learn(rows(40)[0], offset, np.array(label, np.float32), np.ones(40, np.float32))
        moved.append(stack.corrections[0].learner["precision"].max())
    assert moved[1] < 0.3 * moved[0]


def test_old_states_of_two_labels_have_nothing_more():
    for correction in (Calibration(), Entity("u", slots=8), Linear("u", slots=8)):
        stack = stack_of(correction, Stack([]).loss)
        assert not {"seen", "unit", "offsets"} & stack.corrections[0].learner.keys()


@pytest.mark.parametrize("classes", [2, 10])
def test_the_announced_size_has_a_row_of_each_class(classes):
    stack = stack_of(Entity("u", slots=100), Multiclass(range(classes)))
    now, later = stack.sizes()["entity_u"]
    assert later - now == 100 * (8 * classes + 8)


class OfRows(Correction):
    reads, offset = (), None

    def bind(self, schema):
        super().bind(schema)
        self.served, self.learner = {"none": Table(np.zeros((1, 1)))}, {}

    def predict(self, columns, offset):
        return offset

    def learn(self, columns, offset, label, weight):
        return offset

    def export(self, nodes, columns, offset):
        return offset


def test_a_correction_that_takes_no_lists_is_refused_with_the_line_to_write():
    with pytest.raises(ConfigurationError, match=r"OfRows.learn takes no lists.*write def learn\(.*group=None\)$"):
        stack_of(OfRows(), Ranking())
