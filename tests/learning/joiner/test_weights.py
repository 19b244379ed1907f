"""The weights leave the true probability as the fixed point, and what is refused is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.losses import LOG_LOSS
from riverdelta.learning.joiner.weights import LATE_WEIGHT_BOUND, Weights

shares = st.floats(0.01, 1.0)
probabilities = st.floats(0.02, 0.98)


def weight_of(weights, p, label, undone=False):
    """The weight of one row that was served with probability p."""
    found, _, _ = weights.of(np.float32([label]), LOG_LOSS.link([p]).astype(np.float32), np.array([undone]) if undone else None)
    return float(found[0])


@given(shares, probabilities, probabilities)
def test_where_negatives_are_sampled_the_expected_gradient_is_zero_at_the_truth_whatever_was_served(keep, truth, served):
    weights = Weights(keep_negatives=keep)
    negative, positive = weight_of(weights, served, 0), weight_of(weights, served, 1)
    gradient = keep * (1 - truth) * negative * truth - truth * positive * (1 - truth)
    assert gradient == pytest.approx(0.0, abs=1e-6)


@given(shares, probabilities)
def test_a_row_s_gradient_is_that_of_the_log_loss_whose_logit_is_shifted_by_the_log_odds_of_sampling(keep, p):
    weights, shifted = Weights(keep_negatives=keep), 1 / (1 + np.exp(-(float(LOG_LOSS.link(p)[0, 0]) - np.log(keep))))
    assert weight_of(weights, p, 0) * p == pytest.approx(shifted, rel=1e-5)
    assert weight_of(weights, p, 1) * (p - 1) == pytest.approx(shifted - 1, rel=1e-5)


@given(shares, probabilities, st.floats(0, 1))
def test_with_any_share_of_late_positives_the_expected_gradient_is_zero_at_the_truth(keep, p, late):
    weights = Weights(keep_negatives=keep)
    negative, positive, undo = (weight_of(weights, p, *row) for row in ((0,), (1,), (1, True)))
    # Kept negatives, fake ones included; positives in time or without a fake negative; late ones that take theirs back.
    gradient = keep * (1 - p + p * late) * negative * p
    gradient -= p * (1 - late * keep) * positive * (1 - p) + p * late * keep * undo * (1 - p)
    if p < 1 - 1 / LATE_WEIGHT_BOUND:
        assert gradient == pytest.approx(0.0, abs=1e-5)
    else:
        assert gradient > -1e-5


SENT = st.floats(0.0, 100.0, width=32)


@given(shares, probabilities, st.tuples(SENT, SENT))
def test_a_weight_multiplies_what_sampling_gives_its_row(keep, p, sent):
    corrected, label = LOG_LOSS.link([p, p]).astype(np.float32), np.float32([0, 1])
    weights = Weights(keep_negatives=keep)
    plain, heavy = (weights.of(label, corrected, None, one) for one in (None, np.float32(sent)))
    for before, after in zip(plain[:2], heavy[:2], strict=True):
        assert after.tolist() == (before * np.float32(sent)).tolist()


@given(shares, probabilities, st.floats(0, 1), SENT)
def test_a_late_positive_of_any_weight_undoes_a_negative_of_weight_1(keep, p, late, sent):
    corrected = LOG_LOSS.link([p]).astype(np.float32)
    weights, one, omega = Weights(keep_negatives=keep), np.float32([1]), np.float32([sent])
    (negative,), _, _ = weights.of(0 * one, corrected, None)
    (positive,), _, _ = weights.of(one, corrected, None, omega)
    (undo,), (importance,), (back,) = weights.of(one, corrected, np.array([True]), omega)
    assert (importance, back) == (np.float32(sent), np.float32(1 / keep))
    assert undo >= 0
    if p < 1 - 1 / LATE_WEIGHT_BOUND:
        assert negative * p + undo * (p - 1) == pytest.approx(positive * (p - 1), rel=1e-4, abs=1e-4)


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**40), st.floats(0.05, 0.95))
def test_the_share_that_is_kept_is_the_one_asked_for_in_any_stretch_of_keys(incarnation, first, keep):
    weights, rows = Weights(keep_negatives=keep), 4_000
    for stride in (1, 2**20):
        key = (first + np.arange(rows)) * stride % 2**62
        share = weights.keeps(np.full(rows, incarnation), key).mean()
        assert abs(share - keep) < 6 * np.sqrt(keep * (1 - keep) / rows)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1, float("nan"), "half", None])
def test_a_share_that_is_none_is_refused_by_name(keep):
    with pytest.raises(ConfigurationError, match=r"keep_negatives is .*; expected a number above 0 and at most 1"):
        Weights(keep_negatives=keep)


def test_an_unknown_treatment_of_late_positives_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="late is 'drop'; expected one of weighted, plain"):
        Weights(late="drop")
