"""Calibration: what a fresh one does with its first labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Multiclass, Ranking, Stack
from riverdelta.checks.law import run
from riverdelta.core.features import Schema
from riverdelta.core.nodes import Nodes


def taught(offset, label, **given):
    """What a calibration makes of some offsets after one example."""
    made = Calibration(**given)
    made.bind(Schema())
    one = np.full((1, 1), offset, np.float32)
    made.learn({}, one, np.full(1, label, np.float32), np.ones(1, np.float32))
    return lambda *offsets: made.predict({}, np.array(offsets, np.float32).reshape(-1, 1))[:, 0]


def test_one_surprising_label_moves_a_logit_by_less_than_one():
    assert taught(-2.6, 1.0)(-2.6) + 2.6 == pytest.approx(0.69, abs=0.02)
    assert taught(-2.6, 1.0, variance=1.0)(-2.6) + 2.6 > 4.0


@given(st.floats(-8.0, 8.0), st.sampled_from([0.0, 1.0]))
@settings(derandomize=True)
def test_no_first_label_changes_the_order_of_the_base(offset, label):
    after = taught(offset, label)(-3.0, -1.0, 0.0, 1.0, 3.0)
    assert (np.diff(after) > 0).all()


def test_with_a_loose_belief_it_would():
    assert (np.diff(taught(-2.6, 1.0, variance=1.0)(-3.0, -1.0, 0.0, 1.0, 3.0)) < 0).all()


def stream(rows=4_000):
    """Return the logits of a base that is half as sure as it should be, and labels."""
    base = np.random.default_rng(3).normal(size=rows).astype(np.float32)
    return base, (np.random.default_rng(4).random(rows) < 1 / (1 + np.exp(-2 * base))).astype(np.float32)


def learned(base, label):
    """Return a calibration that has learned a stream, and its mean loss on the way."""
    made = Calibration()
    made.bind(Schema())
    z = made.learn({}, base[:, None], label, np.ones(len(base), np.float32))[:, 0].astype(np.float64)
    return made, np.logaddexp(0, z) - label * z


@pytest.mark.parametrize("size", [12, 30])
@pytest.mark.parametrize("share", [0.02, 0.05])
def test_an_overconfident_tail_is_corrected(size, share):
    rng = np.random.default_rng(5)
    base = rng.normal(size=20_000).astype(np.float32) / 2
    tail = rng.random(len(base)) < share
    label = (rng.random(len(base)) < 1 / (1 + np.exp(-np.where(tail, 1, base)))).astype(np.float32)
    base[tail] = size
    assert learned(base, label)[1].mean() < 0.7


ABSURD = pytest.mark.parametrize("value", [-999.0, 1e9, 1e30, -3e38, 1e-30])


@ABSURD
@pytest.mark.parametrize("at", [slice(0, 1), slice(0, 5), slice(500, 503), slice(None, None, 500)])
def test_absurd_logits_of_the_base_cost_the_other_rows_next_to_nothing(value, at):
    base, label = stream()
    clean = learned(base, label)[1]
    others = np.ones(len(base), bool)
    others[at] = False
    base[at] = value
    assert learned(base, label)[1][others].mean() < clean[others].mean() + 0.005
    assert clean.mean() < 0.59


@ABSURD
def test_the_graph_agrees_on_an_absurd_logit(value):
    made, _ = learned(*stream())
    nodes, offset = Nodes(17), np.array([[0.5], [value], [-value], [3.0]], np.float32)
    with nodes.scope("c"):
        raw = made.export(nodes, {}, "offset")
    expected = made.predict({}, offset)
    np.testing.assert_allclose(run(nodes, raw, {"offset": offset}), expected, rtol=1e-6, atol=1e-5)
    # Its residual is that of the largest logit that counts, or of none.
    off = np.abs(expected.astype(np.float64) - offset).ravel()
    assert (off[1:3] <= 2 * off[3] + np.abs(np.spacing(offset[1:3, 0]))).all()


def test_each_class_of_an_overconfident_base_gets_a_slope_and_an_intercept_of_its_own():
    loss = Multiclass(range(6))
    rng = np.random.default_rng(0)
    right = rng.normal(scale=1.5, size=(6_000, 6))
    label = (right + rng.gumbel(size=right.shape)).argmax(axis=1).astype(np.float32)
    # Overconfident, most of all in class 0, and biased towards class 1.
    base = (right * np.array([4, 2, 2, 2, 2, 2]) + np.array([0, 2, 0, 0, 0, 0])).astype(np.float32)
    stack = Stack([Calibration()], loss)
    stack.bind(Schema())
    learned = stack.learn({}, base, label, np.ones(6_000, np.float32))
    late = slice(3_000, None)
    best, ours, before = (loss.value(raw[late], label[late]).mean() for raw in (right, learned, base))
    assert ours < before - 0.75 * (before - best)
    line = stack.corrections[0].served["line"].values
    assert line.shape == (6, 2)
    assert line[0, 1] == line[:, 1].min()


def test_a_list_has_a_common_slope_and_no_intercept():
    stack, rng = Stack([Calibration()], Ranking()), np.random.default_rng(1)
    stack.bind(Schema())
    right = rng.normal(size=(900, 5))
    label = (right + rng.gumbel(size=right.shape)).argmax(axis=1)[:, None] == np.arange(5)
    block = (3 * right).reshape(-1, 1).astype(np.float32), label.ravel().astype(np.float32), np.ones(4_500, np.float32)
    stack.learn({}, *block, np.repeat(np.arange(900), 5))
    ((intercept, slope),) = stack.corrections[0].served["line"].values.tolist()
    assert intercept == 0
    assert -0.8 < slope < -0.5


@pytest.mark.parametrize(
    ("scaled", "variance", "best"),
    [(lambda z: np.clip(12 + 6 * z, 0, 40), 0.1, 0.13), (lambda z: np.clip(0.3 + 0.15 * z, -1, 1), 10.0, 5.3)],
    ids=["BM25", "cosine"],
)
def test_scores_of_another_scale_get_the_temperature_of_the_clicks(scaled, variance, best):
    rng, lists, rows = np.random.default_rng(3), 1_000, 10
    relevance = rng.normal(size=(lists, rows))
    share = np.exp(relevance) / np.exp(relevance).sum(axis=1, keepdims=True)
    click = np.stack([rng.multinomial(1, each) for each in share]).astype(np.float32).ravel()
    base = scaled(relevance + 0.5 * rng.normal(size=relevance.shape)).astype(np.float32).reshape(-1, 1)
    stack = Stack([Calibration(variance=variance)], Ranking())
    stack.bind(Schema())
    stack.learn({}, base, click, np.ones(len(click), np.float32), group=np.repeat(np.arange(lists), rows))
    assert 1.0 + stack.corrections[0].served["line"].values[0, 1] == pytest.approx(best, rel=0.15)
