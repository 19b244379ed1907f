"""Traffic: what the corrections change, and the loss to expect, checked against what they are by definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.evaluation.traffic import Traffic

LAW = settings(max_examples=60)
LOGIT = st.floats(-6, 6, width=32)
#: Requests: lists of rows (base, corrected, served).
REQUESTS = st.lists(st.lists(st.tuples(LOGIT, LOGIT, LOGIT), min_size=1, max_size=6), min_size=1, max_size=12)


def columns(requests):
    rows = [(k, i, *row) for k, request in enumerate(requests) for i, row in enumerate(request)]
    request, index, *logits = zip(*rows, strict=True)
    return np.array(request), np.array(index), *(np.array(z, np.float32) for z in logits)


def changed(requests):
    """By definition: no best row of the served logits is a best row of the base."""
    pairs = [r for r in requests if len(r) > 1]
    moved = [not any(b == max(x[0] for x in r) and s == max(x[2] for x in r) for b, _, s in r) for r in pairs]
    return sum(moved) / len(moved) if moved else None


@LAW
@given(REQUESTS)
def test_the_figures_are_those_of_their_definitions(requests):
    traffic, block = Traffic(), columns(requests)
    traffic.update(*block)
    report, (_, _, base, corrected, served) = traffic.report(), block
    sizes = np.abs(corrected.astype(float) - base)
    assert report["residual"]["1"] == sizes.max()
    assert report["residual"]["0.5"] == np.quantile(sizes, 0.5)
    assert report["top_changed"] == changed(requests)
    p, q = (1 / (1 + np.exp(-z.astype(float))) for z in (served, base))
    assert report["expected_loss"]["base"] == pytest.approx(np.mean(-p * np.log(q) - (1 - p) * np.log(1 - q)))


@LAW
@given(REQUESTS)
def test_the_base_is_never_expected_to_do_better_than_what_is_served(requests):
    traffic = Traffic()
    traffic.update(*columns(requests))
    expected = traffic.report()["expected_loss"]
    assert expected["base"] >= expected["served"] - 1e-12


@LAW
@given(REQUESTS, st.integers(1, 20), st.lists(st.integers(0, 40), max_size=3))
def test_rows_come_in_any_blocks_and_the_last_ones_count(requests, window, cuts):
    whole, parts, block = Traffic(window), Traffic(window), columns(requests)
    whole.update(*block)
    for part in zip(*(np.split(column, sorted(cuts)) for column in block), strict=True):
        parts.update(*part)
        again = Traffic(window)
        again.load(parts.state())
        parts = again
    # Only a request that a cut tore apart is told otherwise, and its rows name their place.
    assert whole.report()["residual"] == parts.report()["residual"]
    assert whole.report()["top_changed"] == parts.report()["top_changed"]
    assert whole.report()["rows"] == min(window, len(block[0]))


def test_a_request_of_which_rows_have_left_the_window_is_not_counted():
    traffic = Traffic(window=3)
    f = np.float32
    traffic.update([7, 7, 8, 8], [0, 1, 0, 1], f([1, 0, 1, 0]), f([0, 1, 1, 0]), f([0, 1, 1, 0]))
    assert traffic.report()["top_changed"] == 0.0


def test_the_expected_loss_is_what_labels_show_where_scores_are_calibrated():
    rng, n = np.random.default_rng(0), 10_000
    served = rng.normal(-1, 1.5, n).astype(np.float32)
    base = (served + rng.normal(0, 1, n)).astype(np.float32)
    label = rng.random(n) < 1 / (1 + np.exp(-served.astype(float)))
    traffic = Traffic()
    traffic.update(np.arange(n), np.zeros(n, int), base, served, served)
    for name, z in (("base", base), ("served", served)):
        losses = np.logaddexp(0, z.astype(float)) - label * z
        error = losses.std() / np.sqrt(n)
        assert abs(traffic.report()["expected_loss"][name] - losses.mean()) < 4 * error


def test_rows_that_are_not_finite_are_left_out_and_nothing_is_known_of_nothing():
    traffic = Traffic()
    nothing = traffic.report()
    assert nothing == {
        "rows": 0,
        "residual": {"0.5": None, "0.9": None, "0.99": None, "1": None},
        "top_changed": None,
        "expected_loss": {"base": None, "served": None},
    }
    bad = np.array([np.nan, np.inf, 0], np.float32)
    traffic.update([1, 1, 2], [0, 1, 0], bad, bad, bad)
    assert traffic.report()["rows"] == 1
    assert traffic.report()["top_changed"] is None


def test_a_state_of_another_window_is_refused_and_none_begins_anew():
    traffic = Traffic(4)
    with pytest.raises(Corrupt, match=r"'logits' is float32\[5, 3\]; expected float32\[4, 3\]"):
        traffic.load(Traffic(5).state())
    traffic.update([1], [0], *np.ones((3, 1), np.float32))
    traffic.load({})
    assert traffic.report()["rows"] == 0
