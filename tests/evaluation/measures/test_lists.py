"""Lists: NDCG and MRR are those of their definitions and of scikit-learn, list by list, however lists come in blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from riverdelta.core.losses import Ranking
from riverdelta.evaluation.measures.known import Moments
from riverdelta.evaluation.prequential import Prequential

LOSS = Ranking(grades=4)


def stream(lists, seed=0):
    """Return base, served, grades, weights and the list of each row."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(lists), rng.integers(1, 25, lists))
    base, served = rng.normal(size=(2, len(group))).astype(np.float32)
    return base, served, rng.choice([0, 0, 0, 1, 4], len(group)).astype(np.float32), np.ones(len(group), np.float32), group


def fed(columns, loss=LOSS, **options):
    prequential = Prequential(loss=loss, **options)
    prequential.update(*columns)
    return prequential


def by_list(columns):
    edges = np.flatnonzero(np.diff(columns[-1])) + 1
    return list(zip(*(np.split(column, edges) for column in columns), strict=True))


def test_the_measures_are_those_of_scikit_learn_and_of_their_definitions():
    columns = stream(60)
    found = fed(columns).report()["all"]["served"]
    kept = [one for one in by_list(columns) if one[2].any()]
    gains = [ndcg_score([2.0 ** one[2] - 1], [one[1]], k=10, ignore_ties=True) if len(one[2]) > 1 else 1.0 for one in kept]
    firsts = [1.0 / (1 + np.flatnonzero(one[2][np.argsort(-one[1], kind="stable")] > 0)[0]) for one in kept]
    z = [one[1].astype(float) for one in kept]
    losses = [one[2] @ (np.log(np.exp(z).sum()) - z) for one, z in zip(kept, z, strict=True)]
    assert found["lists"] == found["examples"] == len(kept) < 60
    assert found["ndcg10"] == pytest.approx(np.mean(gains))
    assert found["mrr"] == pytest.approx(np.mean(firsts))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_one_row_and_no_click_at_all():
    one = fed((np.float32([3]), np.float32([-3]), np.float32([1]), np.ones(1), np.array([9]))).report()["all"]["served"]
    assert (one["lists"], one["loss"], one["ndcg10"], one["mrr"]) == (1, 0.0, 1.0, 1.0)
    none = fed((np.zeros(4), np.zeros(4), np.zeros(4), np.ones(4), np.zeros(4, int))).report()["all"]["served"]
    assert (none["lists"], none["loss"], none["ndcg10"], none["mrr"]) == (0, None, None, None)
    assert fed((*np.zeros((4, 0)), np.zeros(0, int))).report()["all"]["base"]["lists"] == 0


def test_equal_scores_keep_the_order_in_which_rows_were_shown():
    label, zero = np.float32([0, 0, 1]), np.zeros(3, np.float32)
    assert fed((zero, zero, label, np.ones(3), np.zeros(3, int))).report()["all"]["base"]["mrr"] == pytest.approx(1 / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 12), max_size=4))
def test_blocks_of_whole_lists_and_saves_do_not_change_a_bit(seed, cuts):
    columns = stream(12, seed=seed)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(columns[-1])) + 1, [len(columns[0])]])
    whole, resumed = fed(columns, window=5), Prequential(loss=LOSS, window=5)
    for block in zip(*(np.split(column, starts[sorted(cuts)]) for column in columns), strict=True):
        resumed.update(*block)
        again = Prequential(loss=LOSS, window=5)
        again.load(resumed.state())
        resumed = again
    bits = [{name: array.tobytes() for name, array in one.state().items()} for one in (whole, resumed)]
    assert bits[0] == bits[1]


def test_a_list_taken_back_leaves_the_measures_of_the_others():
    base, served, label, weight, group = columns = stream(40, seed=2)
    both, first = fed(columns), group < 10
    both.update(base[first], served[first], label[first], -weight[first], group[first])
    found, wanted = (one.report()["all"]["served"] for one in (both, fed([c[~first] for c in columns])))
    for name in ("lists", "loss", "ndcg10", "mrr"):
        assert found[name] == pytest.approx(wanted[name])


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("hostile", [np.nan, np.inf, 99.0])
def test_a_list_with_a_row_that_cannot_be_measured_is_left_out_and_harms_no_other(place, hostile):
    if hostile == 99.0 and place != 2:
        pytest.skip("99 is a score, and a weight")
    columns = [c.copy() for c in stream(20, seed=3)]
    bad = columns[-1] == columns[-1][np.flatnonzero(columns[2])[3]]
    loss, item = Ranking(grades=4, item="item"), np.arange(len(bad)) % 7
    wanted = fed([c[~bad] for c in columns], loss=LOSS).report()["all"]
    columns[place][np.flatnonzero(bad)[0]] = hostile
    found = Prequential(loss=loss)
    found.update(*columns, moments=Moments.unknown(len(bad))._replace(item=item))
    report = found.report()["all"]
    for scorer in ("base", "served"):
        assert report[scorer] == {**wanted[scorer], "skipped": int(bad.sum())}
    assert np.isfinite(report["popularity"]["loss"])


def test_popularity_counts_what_was_shown_in_lists_without_clicks_and_nothing_of_lists_that_are_left_out():
    loss = Ranking(item="item")
    # Item 0 is never clicked; item 1 is clicked once in 3 lists; a list that cannot be measured has many showings of item 1.
    item, label = np.array([0, 1, 0, 1, 0, 1] + [1] * 50 + [0, 1]), np.float32([0, 1, 0, 0, 0, 0] + [0] * 50 + [0, 1])
    group = np.array([0, 0, 1, 1, 2, 2] + [3] * 50 + [4, 4])
    raw, weight = np.zeros(len(item), np.float32), np.ones(len(item), np.float32)
    raw[20] = np.nan
    found = Prequential(loss=loss)
    found.update(raw, raw, label, weight, group, moments=Moments.unknown(len(item))._replace(item=item))
    report = found.report()["all"]
    of = np.log(np.array([1.0, 2.0]) / 13)
    last = float(np.log(np.exp(of).sum()) - of[1])
    assert report["popularity"]["loss"] == pytest.approx((np.log(2) + last) / 2)
    assert (report["base"]["skipped"], report["popularity"]["lists"]) == (50, 2)
