"""Admission: neither weights nor their splitting let a sender or an entity past its limit."""

import numpy as np
import pytest

from riverdelta.core.examples import Examples
from riverdelta.core.settings import Settings
from riverdelta.learning.admission import Admission

ROWS = 30_000
FLOOD = 99


def admitted(weight, part, **settings):
    """Return what a flooding sender gets learned beside eight others: rows and weight, and the rows of the others then."""
    rng = np.random.default_rng(0)
    source = np.where((rng.random(ROWS) < part) & (np.arange(ROWS) > ROWS // 3), FLOOD, rng.integers(1, 9, ROWS))
    columns = {"user": rng.integers(0, 5_000, ROWS)}
    base, label = np.zeros(ROWS, np.float32), rng.integers(0, 2, ROWS).astype(np.float32)
    sent = np.where(source == FLOOD, weight, 1).astype(np.float32)
    examples = Examples.unserved(columns, base, label, np.arange(ROWS) * 1.0, source, sent)
    now, _ = Admission.of(["user"], Settings(breaker="off", **settings)).admit(examples)
    mine = now & (source == FLOOD)
    others = now & (source != FLOOD) & (np.arange(ROWS) > ROWS // 3)
    return mine.sum(), sent[mine].sum(), others.sum()


@pytest.mark.parametrize(("weight", "part"), [(1.0, 0.8), (10.0, 0.3), (100.0, 0.05), (0.1, 0.8), (0.001, 0.9)])
def test_a_flood_has_no_more_weight_than_one_of_ordinary_labels_whatever_its_weights(weight, part):
    rows, heavy, others = admitted(weight, part)
    plain, _, beside = admitted(1.0, 0.8)
    assert 0 < rows <= 1.2 * plain / beside * others
    assert heavy <= 1.2 * plain / beside * others


def test_labels_of_weight_0_use_up_no_share():
    draw, late = np.random.default_rng(0).random(ROWS), np.arange(ROWS) > ROWS // 3
    assert admitted(0.0, 0.8)[2] == ((draw >= 0.8) & late).sum()


@pytest.mark.parametrize(("weight", "most"), [(1.0, 20), (0.01, 20), (4.0, 5), (30.0, 0), (0.0, 100)])
def test_an_entity_is_updated_by_weight_and_no_more_often_as_with_weights_of_1(weight, most):
    rows = np.zeros(100, np.float32)
    examples = Examples.unserved({"user": np.zeros(100, np.int64)}, rows, rows, np.zeros(100), sent=rows + np.float32(weight))
    admission = Admission.of(["user"], Settings(breaker="off", sender_burst=0, max_updates_per_entity=20))
    now, later = admission.admit(examples)
    assert (now.sum(), later.sum()) == (most, 0)
