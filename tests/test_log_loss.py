"""Log loss by table: close to exp and log1p everywhere, and exact where a straight line is."""

import math

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.log_loss import WIDEST, log_loss, score


@numba.njit
def both(logits, labels):
    out = np.empty((2, len(logits)))
    for i in range(len(logits)):
        out[0, i], out[1, i] = log_loss(logits[i], labels[i]), score(logits[i])
    return out


LOGIT = st.floats(-40, 40) | st.sampled_from([0.0, -0.0, WIDEST, -WIDEST, 1e30, -1e30, 5e-324])


@settings(deadline=None)
@given(st.lists(st.tuples(LOGIT, st.sampled_from([0.0, 1.0])), min_size=1, max_size=50))
def test_loss_and_score_are_within_what_is_said_of_their_definitions(rows):
    z, y = (np.array(column) for column in zip(*rows, strict=True))
    losses, scores = both(z, y)
    assert np.abs(losses - (np.logaddexp(0, z) - y * z)).max() <= 2e-6
    assert np.abs(scores - 0.5 * (1 + np.tanh(z / 2))).max() <= 1e-6


def test_a_logit_that_is_no_number_gives_no_place_outside_the_table():
    losses, scores = both(np.array([math.inf, -math.inf, math.inf]), np.array([0.0, 0.0, 1.0]))
    assert losses[0] == math.inf
    assert losses[1:].max() < 2e-7
    assert ((scores >= 0) & (scores <= 1)).all()


def test_better_scores_cost_less_step_by_step():
    z = np.linspace(-WIDEST - 1, WIDEST + 1, 40_001)
    losses, scores = both(z, np.ones(len(z)))
    assert (np.diff(losses) <= 0).all()
    assert (np.diff(scores) >= 0).all()
