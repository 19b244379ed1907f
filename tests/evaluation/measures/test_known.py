"""A baseline predicts a row from the labels that had been received when the row was scored, whatever order they came in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.losses import LOG_LOSS, Multiclass, Ranking, Regression
from riverdelta.evaluation.measured import Rows
from riverdelta.evaluation.measures import known, measures_of
from riverdelta.evaluation.measures.known import Moments
from riverdelta.evaluation.prequential import Prequential


def delayed(rows, seed, most=8.0):
    """Return scored and received times, in the order of receipt, of rows with delays of their own."""
    draw = np.random.default_rng(seed)
    scored = np.sort(draw.integers(0, 20, rows)).astype(float)
    received = scored + np.round(draw.random(rows) * most)
    order = np.argsort(received, kind="stable")
    return scored[order], received[order]


def facts_of(measures, label, moments, outputs=1):
    zeros = np.zeros((len(label), outputs), np.float32)
    rows = Rows.of(measures.loss, zeros, zeros, label, np.ones(len(label)))
    return measures.facts(rows, moments)[0]


@given(st.integers(0, 40), st.integers(0, 100))
def test_the_last_label_is_the_last_one_received_when_a_row_was_scored(rows, seed):
    scored, received = delayed(rows, seed)
    label = np.arange(rows, dtype=np.float32)
    (measures,) = measures_of(Regression())
    guesses = facts_of(measures, label, Moments(scored, scored, received))[:, 2, 1]
    for i in range(rows):
        before = np.flatnonzero(received[:i] <= scored[i])
        assert np.isnan(guesses[i]) if not len(before) else guesses[i] == label[before[-1]]


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 100))
def test_in_any_order_of_scoring_and_receipt_a_row_knows_what_was_received_and_all_that_is_too_old(rows, kept, seed):
    draw = np.random.default_rng(seed)
    scored, received = draw.choice([np.nan, -np.inf, *range(9)], (2, rows))
    label = np.arange(rows, dtype=np.float32)
    (measures,) = measures_of(Regression())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "KEPT", kept)
        guesses = facts_of(measures, label, Moments(scored, scored, received))[:, 2, 1]
    came = np.maximum.accumulate(np.where(np.isnan(received), -np.inf, received))
    for i in range(rows):
        before = np.flatnonzero((came[:i] <= scored[i]) | np.isnan(scored[i]) | (np.arange(i) < i - kept))
        assert np.isnan(guesses[i]) if not len(before) else guesses[i] == label[before[-1]]


def test_a_day_late_the_last_label_is_a_day_old_and_the_label_a_week_ago_is_known():
    hours = np.arange(24 * 30) * 3600.0
    label = np.arange(len(hours), dtype=np.float32)
    measured = Prequential(loss=Regression(period=7 * 86_400.0))
    zeros = np.zeros(len(hours), np.float32)
    measured.update(zeros, zeros, label, moments=Moments(hours, hours, hours + 86_400.0))
    found = measured.report()["all"]
    assert (found["last_label"]["mae"], found["last_period"]["mae"]) == (24.0, 168.0)
    later = Prequential(loss=Regression(period=7 * 86_400.0))
    later.update(zeros, zeros, label, moments=Moments(hours, hours, hours + 8 * 86_400.0))
    assert later.report()["all"]["last_period"]["mae"] is None


def test_classes_and_popularity_know_no_label_that_came_later():
    classes, lists = Multiclass(["a", "b"]), Ranking(item="document")
    label, late = np.ones(6, np.float32), np.arange(6) + 3.0
    (measures,) = measures_of(classes)
    tops = facts_of(measures, label, Moments(late, np.arange(6.0), late), 2)[:, 2:, 1]
    assert tops.tolist() == [[-1, -1]] * 3 + [[1, 1]] * 3
    (measures,) = measures_of(lists)
    clicks = np.tile(np.float32([0, 1]), 6)
    group, scored = np.repeat(np.arange(6), 2), np.repeat(np.arange(6.0), 2)
    rows = Rows.of(lists, np.zeros((12, 1)), np.zeros((12, 1)), clicks, np.ones(12), group)
    found, _ = measures.facts(rows, Moments(scored, scored, scored + 3, np.tile([7, 8], 6)))
    assert found[:3, 2, 2].tolist() == [0.5] * 3  # nothing is known: the order of the base
    assert found[3:, 2, 2].tolist() == [1.0] * 3


@pytest.mark.parametrize("loss", [LOG_LOSS, Multiclass(["a", "b"]), Regression(period=9.0), Ranking(item="document")])
def test_the_state_does_not_depend_on_blocks_or_on_a_save_even_if_more_labels_wait_than_are_kept(loss, monkeypatch):
    monkeypatch.setattr(known, "KEPT", 20)
    rows = 300
    scored, received = delayed(rows, 1)
    draw = np.random.default_rng(0)
    scored, group = np.maximum(scored - 9.0, 0.0), np.arange(rows) // 2 if loss.lists else None
    label, item = draw.integers(0, 2, rows).astype(np.float32), draw.integers(0, 9, rows)
    raw = draw.normal(size=(rows, loss.outputs)).astype(np.float32)
    moments = Moments(scored, scored, received, item)

    def run(edges):
        measured = Prequential(window=50, loss=loss)
        for a, b in zip(edges, edges[1:], strict=False):
            again = Prequential(window=50, loss=loss)
            again.load(measured.state())
            at = slice(a, b)
            again.update(raw[at], raw[at], label[at], None, None if group is None else group[at], moments.at(at))
            measured = again
        return {name: array.tobytes() for name, array in measured.state().items()}, measured.report()

    assert run([0, rows]) == run([0, 2, 40, 42, 44, 180, rows])
