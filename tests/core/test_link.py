"""The mixture: exact where it must be, safe at both ends."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core import link

LOGITS = st.floats(-60, 60)
WEIGHTS = st.floats(0, 1)


@given(LOGITS, WEIGHTS)
def test_with_no_correction_the_base_comes_back_bit_for_bit(b, w):
    assert link.mix([b], [b], w).tolist() == [b]


@given(st.floats(-25, 25), st.floats(-25, 25), WEIGHTS)
def test_it_is_the_logit_of_the_mixed_probability(b, c, w):
    p = (1 - w) * link.sigmoid(b) + w * link.sigmoid(b + np.clip(c - b, -link.RESIDUAL_BOUND, link.RESIDUAL_BOUND))
    assert abs(link.sigmoid(link.mix([b], [c], w))[0] - p) < 1e-9


@given(st.floats(-700, 700), st.floats(-700, 700), WEIGHTS)
def test_it_is_finite_and_between_the_two_whatever_comes(b, c, w):
    clipped = b + np.clip(c - b, -link.RESIDUAL_BOUND, link.RESIDUAL_BOUND)
    mixed = link.mix([b], [c], w)[0]
    assert min(b, clipped) - 1e-6 <= mixed <= max(b, clipped) + 1e-6


@given(st.floats(1e-6, 1 - 1e-6))
def test_a_probability_survives_its_logit(p):
    assert abs(link.sigmoid(link.logit(p)) - p) < 1e-9


def test_extreme_probabilities_are_clipped_and_not_infinite():
    assert np.isfinite(link.logit([0.0, 1.0])).all()


@given(LOGITS, st.sampled_from([0.0, 1.0]))
def test_log_loss_is_minus_the_log_of_the_labels_probability(z, y):
    assert np.isclose(link.log_loss(z, y), -np.log(np.clip(link.sigmoid(z if y else -z), 1e-300, 1)), atol=1e-9)
