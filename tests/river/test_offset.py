"""The offset is a term of the logit with a coefficient of 1: River's gradient is that of the loss over the whole logit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from river import optim
from riverdelta.core.losses import LOG_LOSS
from riverdelta.river.offset import OffsetLinearRegression, OffsetLogisticRegression

X = {"a": 0.5, "b": -2.0}


def learned(model, offset, y, w=1.0):
    model._weights["a"], model._weights["b"], model.intercept = 0.3, -0.1, 0.2
    model.shift = offset
    model.learn_one(X, y, w=w)
    return np.array([model.weight_of("a"), model.weight_of("b"), model.intercept])


@given(st.floats(-8, 8), st.booleans(), st.floats(0.1, 5))
def test_the_step_is_the_numeric_gradient_of_the_log_loss(offset, label, weight):
    rate = 0.125
    after = learned(OffsetLogisticRegression(optim.SGD(rate), intercept_lr=rate), offset, label, weight)
    at, x = np.array([0.3, -0.1, 0.2]), np.array([0.5, -2.0, 1.0])

    def loss(parameters):
        return weight * LOG_LOSS.value(parameters @ x + offset, float(label))[0]

    nudge = 1e-5 * np.eye(3)
    gradient = np.array([(loss(at + d) - loss(at - d)) / 2e-5 for d in nudge])
    np.testing.assert_allclose(at - after, rate * gradient, atol=1e-6)


@given(st.floats(-8, 8), st.sampled_from([0.0, 1.0]), st.floats(0.1, 5))
def test_least_squares_takes_twice_the_logistic_step(offset, label, weight):
    logistic = learned(OffsetLogisticRegression(optim.SGD(0.02)), offset, bool(label), weight)
    model = OffsetLinearRegression(optim.SGD(0.01), intercept_lr=0.005)
    z = 0.15 + 0.2 + 0.2 + offset
    y, w = model.target(LOG_LOSS, z, label, weight)
    np.testing.assert_allclose(learned(model, offset, y, w), logistic, atol=1e-9)


@pytest.mark.parametrize("logit", [-700.0, 0.0, 700.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_working_response_is_finite_everywhere(logit, label):
    y, w = OffsetLinearRegression().target(LOG_LOSS, logit, label, 1.0)
    assert np.isfinite([y, w]).all()
    assert abs(2 * w * (logit - y) - 2 * (LOG_LOSS.inverse_link(logit)[0, 0] - label)) < 1e-6


def test_without_an_offset_it_is_rivers_model():
    from river.linear_model import LogisticRegression

    mine, rivers = OffsetLogisticRegression(), LogisticRegression()
    for i in range(20):
        x = {"a": float(i % 3), "b": float(i)}
        mine.learn_one(x, i % 2 == 0)
        rivers.learn_one(x, i % 2 == 0)
    assert mine.weights == rivers.weights
    assert mine.raw_one(X, 1.5) == rivers._raw_dot_one(X) + 1.5
