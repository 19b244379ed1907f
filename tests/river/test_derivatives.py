"""What lists teach a pipeline is of about one size, whatever the label's unit and the rates of counts."""

import numpy as np
import pytest

from riverdelta import Count, Multiclass, Ranking, Regression
from riverdelta.core.losses import LOG_LOSS
from riverdelta.river.derivatives import Derivatives


def learned(derivatives, offset, label, weight=1.0):
    rows = np.array(offset, np.float64).reshape(-1, derivatives.loss.outputs)
    weights, labels = np.full(len(rows), weight), np.array(label, np.float64).reshape(-1)
    return derivatives.learn(rows, rows.copy(), labels, weights)


@pytest.mark.parametrize("times", [1e-3, 1.0, 1e6])
def test_the_unit_of_values_is_the_typical_error_and_follows_a_new_one(times):
    derivatives, rng = Derivatives(Regression()), np.random.default_rng(0)
    changed = [learned(derivatives, [0.0], error * times)[2] for error in rng.normal(size=200)]
    assert changed.index(True) == 7  # eight errors make it known
    assert not any(changed[20:])
    assert 0.2 * times < derivatives.unit < 5.0 * times
    changed = [learned(derivatives, [0.0], 100.0 * error * times)[2] for error in rng.normal(size=400)]
    assert 0 < sum(changed) < 5
    assert derivatives.unit > 20.0 * times


@pytest.mark.parametrize("loss", [LOG_LOSS, Multiclass(range(3)), Count(), Ranking()], ids=lambda loss: loss.task)
def test_other_losses_have_a_unit_of_1(loss):
    derivatives = Derivatives(loss)
    assert not learned(derivatives, [0.5] * loss.outputs, [1.0])[2]
    assert derivatives.unit == 1.0


@pytest.mark.parametrize("rate", [0.1, 30.0, 1e6])
def test_a_count_steps_by_at_most_four_whatever_its_rate(rate):
    derivatives, rng = Derivatives(Count()), np.random.default_rng(0)
    for label in rng.poisson(rate, 300):
        learned(derivatives, [np.log(rate)], label)
    for offset, label in ((np.log(rate), 100 * rate), (3e38, 0.0), (1e9, 5.0), (-3e38, 2.0**24)):
        gradient, curvature, _ = learned(derivatives, [offset], np.round(label))
        assert np.abs(gradient).max() <= 4.0
        assert 0.0 < curvature.max() <= 4.0


def test_a_heavy_example_has_a_gradient_of_at_most_ten():
    derivatives = Derivatives(Multiclass(range(3)))
    gradient, _, _ = learned(derivatives, [0.0, 0.0, 0.0], [1.0], weight=3e38)
    assert np.abs(gradient).max() == pytest.approx(10.0)


def test_a_class_that_was_no_label_has_no_gradient_and_a_list_without_a_choice_none():
    gradient, _, _ = learned(Derivatives(Multiclass(range(3))), [0.0, 0.0, 0.0], [1.0])
    assert gradient[0, 1] < 0.0
    assert gradient[0, [0, 2]].tolist() == [0.0, 0.0]
    lists = Derivatives(Ranking())
    assert not learned(lists, [0.5], [1.0])[0].any()
    assert not learned(lists, [0.5, 1.5], [0.0, 0.0])[0].any()
    assert learned(lists, [0.5, 1.5], [1.0, 0.0])[0].sum() == pytest.approx(0.0, abs=1e-12)
