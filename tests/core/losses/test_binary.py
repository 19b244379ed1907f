"""Log loss of a logit: the mixture is exact where it must be, and safe at both ends; labels are 0 and 1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.losses import LOG_LOSS, loss_of

LOGITS = st.floats(-60, 60)
WEIGHTS = st.floats(0, 1)


def probability(z):
    return LOG_LOSS.inverse_link(z)[:, 0]


def mixed(b, c, w):
    return float(LOG_LOSS.mix([b], [c], w)[0, 0])


def near(b, c):
    return b + np.clip(c - b, -LOG_LOSS.reach, LOG_LOSS.reach)


@given(st.floats(allow_nan=False, allow_infinity=False), WEIGHTS)
def test_with_no_correction_the_base_comes_back_bit_for_bit(b, w):
    assert math.copysign(1, mixed(b, b, w)) == math.copysign(1, b)
    assert mixed(b, b, w) == b


@given(st.floats(-25, 25), st.floats(-25, 25), WEIGHTS)
def test_it_is_the_logit_of_the_mixed_probability(b, c, w):
    p = (1 - w) * probability([b]) + w * probability([near(b, c)])
    assert abs(probability([mixed(b, c, w)]) - p) < 1e-9


@given(st.floats(-700, 700), st.floats(-700, 700), WEIGHTS)
def test_it_is_finite_and_between_the_two_whatever_comes(b, c, w):
    assert min(b, near(b, c)) - 1e-6 <= mixed(b, c, w) <= max(b, near(b, c)) + 1e-6


def test_extreme_probabilities_are_clipped_so_that_no_loss_of_theirs_passes_the_bound():
    extremes = LOG_LOSS.link([0.0, 1.0])
    assert np.isfinite(extremes).all()
    assert float(np.abs(extremes).max()) + LOG_LOSS.reach < LOG_LOSS.bound


@given(LOGITS, st.sampled_from([0.0, 1.0]))
def test_it_is_minus_the_log_of_the_labels_probability(z, y):
    expected = -np.log(np.clip(probability([z if y else -z]), 1e-300, 1))
    assert np.isclose(LOG_LOSS.value([z], y), np.minimum(expected, LOG_LOSS.bound), atol=1e-9)


def test_a_row_that_was_shown_has_no_label_yet():
    assert np.isnan(LOG_LOSS.check_labels([0, math.nan], shown=True)[1])
    with pytest.raises(InvalidInput, match="row 1 has the label inf"):
        LOG_LOSS.check_labels([0, math.inf], shown=True)


def test_labels_of_text_are_refused():
    with pytest.raises(InvalidInput, match="expected 0 or 1 for each row"):
        LOG_LOSS.check_labels(["spam"])


@pytest.mark.parametrize("bad", ["no", None, [1], 1j])
def test_a_label_that_is_not_a_number_is_refused_by_its_row_whatever_stands_beside_it(bad):
    for labels in ([True, bad], [0.0, bad, 1]):
        with pytest.raises(InvalidInput, match=r"row 1 has the label .*; expected 0 or 1 for each row"):
            LOG_LOSS.check_labels(labels)


def test_numbers_of_any_type_are_labels():
    labels = np.array([True, 0, 1.0, np.int64(1), np.bool_(False)], object)
    assert LOG_LOSS.check_labels(labels).tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_an_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match="'binray'; did you mean binary"):
        loss_of("binray")
    assert loss_of("binary") is loss_of(LOG_LOSS) is LOG_LOSS
