"""Last steps learn with the gradient of the loss: logistic regression with its own, least squares with that of any loss."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from river import optim
from riverdelta.core.losses import LOG_LOSS
from riverdelta.river.offset import OffsetLogisticRegression, ResidualRegression

X = {"a": 0.5, "b": -2.0}


def learned(model, *example):
    model._weights["a"], model._weights["b"], model.intercept = 0.3, -0.1, 0.2
    y, w = model.example(*example)
    model.learn_one(X, y, w=w)
    return np.array([model.weight_of("a"), model.weight_of("b"), model.level])


@given(st.floats(-8, 8), st.booleans(), st.floats(0.1, 5))
def test_the_step_is_the_numeric_gradient_of_the_log_loss(offset, label, weight):
    rate = 0.125
    after = learned(OffsetLogisticRegression(optim.SGD(rate), intercept_lr=rate), 0.55, 0.0, 0.0, offset, label, weight)
    at, x = np.array([0.3, -0.1, 0.2]), np.array([0.5, -2.0, 1.0])

    def loss(parameters):
        return weight * LOG_LOSS.value(parameters @ x + offset, float(label))[0]

    nudge = 1e-5 * np.eye(3)
    gradient = np.array([(loss(at + d) - loss(at - d)) / 2e-5 for d in nudge])
    np.testing.assert_allclose(at - after, rate * gradient, atol=1e-6)


@given(st.floats(-8, 8), st.sampled_from([0.0, 1.0]), st.floats(0.1, 5))
def test_least_squares_takes_twice_the_logistic_step(offset, label, weight):
    logistic = learned(OffsetLogisticRegression(optim.SGD(0.02)), 0.55, 0.0, 0.0, offset, label, weight)
    z = 0.55 + offset
    gradient, curvature = (float(each[0, 0]) for each in LOG_LOSS.derivatives(z, label, weight))
    model = ResidualRegression(optim.SGD(0.01), intercept_lr=0.005)
    np.testing.assert_allclose(learned(model, 0.55, gradient, curvature), logistic, atol=1e-9)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("optimizer", [optim.SGD(0.01), optim.AdaGrad(0.1), optim.Adam(0.1)], ids=lambda o: type(o).__name__)
def test_a_step_counts_in_the_unit_of_the_residual(unit, optimizer):
    steps = []
    for size in (1.0, unit):
        model = ResidualRegression(optimizer.clone())
        model.unit = size
        before = np.array([0.3, -0.1, 0.2])
        steps.append(learned(model, 0.55 * size, -0.5 * size, 1.0) / size - before)
    assert np.abs(steps[0]).max() > 0
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-6)


def test_an_example_without_curvature_teaches_nothing():
    assert ResidualRegression().example(3.0, 0.5, 0.0) == (3.0, 0.0)


def test_a_step_that_goes_beyond_its_response_ends_there():
    model, far = ResidualRegression(optim.SGD(0.01), intercept_lr=0.0), {"a": 100.0}
    y, w = model.example(0.0, -2.0, 0.5)
    model.learn_one(far, y, w=w)
    assert model.residual_one(far) == pytest.approx(4.0)
    model.learn_one({"a": 1.0}, *model.example(model.residual_one({"a": 1.0}), 0.0, 0.5)[:1])
    assert model.residual_one(far) == pytest.approx(4.0)


def test_without_an_offset_it_is_rivers_model():
    from river.linear_model import LogisticRegression

    mine, rivers = OffsetLogisticRegression(), LogisticRegression()
    for i in range(20):
        x = {"a": float(i % 3), "b": float(i)}
        mine.learn_one(x, i % 2 == 0)
        rivers.learn_one(x, i % 2 == 0)
    assert mine.weights == rivers.weights
    assert mine.residual_one(X) == rivers._raw_dot_one(X)
