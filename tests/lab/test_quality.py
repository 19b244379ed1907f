"""AUC by ranks is the share of pairs in the right order."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from riverdelta.lab.quality import auc


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_it_agrees_with_scikit_learn_ties_included(rows):
    score, label = (np.array(part, float) for part in zip(*rows, strict=True))
    if label.min() == label.max():
        assert math.isnan(auc(score, label))
    else:
        assert abs(auc(score, label) - roc_auc_score(label, score)) < 1e-12
