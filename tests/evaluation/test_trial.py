"""Trial: it seldom promotes what is worse, decides once at an example of its own, and survives broken rows and saves."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.core.losses import LOG_LOSS
from riverdelta.evaluation.trial import Trial, Verdict

RUNS, ALPHA = 200, 0.05
#: A trial errs with probability 0.05 at most, so the errors of 200 independent ones are at most binomial(200, 0.05), of which
#: 999 in 1,000 draws are no larger than this (20). The seeds are fixed: the count is what it is, on every machine.
MOST = int(binom.ppf(0.999, RUNS, ALPHA))


def rows_of(gain, rows, rng, spread=0.6):
    """Return champion, challenger, label and weight where each row's expected gain is exactly `gain`.

    Row by row the label's probability is chosen such that softplus(a) - softplus(b) - p·(a - b) = gain.
    """
    a = rng.uniform(-0.7, 0.7, rows)
    b = a + spread * rng.choice([-1.0, 1.0], rows) * rng.uniform(0.8, 1.0, rows)
    a, b = a.astype(np.float32), b.astype(np.float32)
    za, zb = a.astype(np.float64), b.astype(np.float64)
    p = (np.logaddexp(0, za) - np.logaddexp(0, zb) - gain) / (za - zb)
    assert ((p > 0) & (p < 1)).all()
    return a, b, (rng.random(rows) < p).astype(np.float32), np.ones(rows, np.float32)


def fed(columns, splits=(), trial=None, **terms):
    trial = Trial(**terms) if trial is None else trial
    edges = [0, *sorted(splits), len(columns[0])]
    for start, stop in zip(edges, edges[1:], strict=False):
        trial.update(*(c[start:stop] for c in columns))
    return trial


def bits(trial):
    return {name: (a.dtype, a.tobytes()) for name, a in trial.state().items()}


def verdicts(gain, margin, rows=20_000, **terms):
    runs = [fed(rows_of(gain, rows, np.random.default_rng((5, run))), margin=margin, **terms) for run in range(RUNS)]
    return [trial.verdict for trial in runs]


@pytest.mark.parametrize("margin", [0.002, 0.0])
def test_a_challenger_at_the_boundary_is_seldom_promoted_or_rejected_though_every_example_is_looked_at(margin):
    found = verdicts(-margin, margin, alpha=ALPHA)
    assert found.count(Verdict.promoted) <= MOST
    assert found.count(Verdict.rejected) <= MOST


def a_a(run, rows=10_000, error=0.4, other=0.4):
    """Two releases with errors of one size about the truth, drawn apart: each row favours one of them, and on average none."""
    rng = np.random.default_rng((22, run))
    truth = rng.normal(-1.0, 1.2, rows)
    a, b = (truth + size * rng.standard_normal(rows) for size in (error, other))
    label = rng.random(rows) < expit(truth)
    return a.astype(np.float32), b.astype(np.float32), label.astype(np.float32), np.ones(rows, np.float32)


def test_of_200_a_a_streams_watched_at_every_example_few_are_ever_called_better_or_worse():
    found = [fed(a_a(run), margin=0.0, alpha=ALPHA).verdict for run in range(RUNS)]
    assert found.count(Verdict.promoted) <= MOST
    assert found.count(Verdict.rejected) <= MOST
    # What is better in truth is found on the same rows: silence is no merit.
    assert all(fed(a_a(run, other=0.1), margin=0.0, alpha=ALPHA).verdict is Verdict.promoted for run in range(10))


def test_of_200_a_a_streams_few_are_rejected_within_a_margin():
    assert [fed(a_a(run), alpha=ALPHA).verdict for run in range(RUNS)].count(Verdict.rejected) <= MOST


def test_the_error_rate_is_that_of_alpha_and_not_of_chance():
    # At alpha = 0.9 the same streams err often: the test above can fail.
    found = verdicts(-0.002, 0.002, alpha=0.9)
    assert found.count(Verdict.promoted) + found.count(Verdict.rejected) > 3 * MOST


def test_looking_at_every_example_with_the_interval_of_one_look_would_promote_far_too_often():
    promoted = 0
    for run in range(RUNS):
        a, b, label, _ = rows_of(-0.002, 20_000, np.random.default_rng((5, run)))
        x = LOG_LOSS.value(a, label) - LOG_LOSS.value(b, label) + 0.002
        n = np.arange(1, len(x) + 1)
        promoted += bool((np.cumsum(x) > 1.645 * np.sqrt(np.cumsum(x * x)))[n > 50].any())
    assert promoted > 3 * MOST


def test_a_challenger_that_is_better_is_promoted_and_one_that_is_worse_is_rejected():
    for run in range(10):
        rng = np.random.default_rng((6, run))
        assert fed(rows_of(0.02, 20_000, rng)).verdict is Verdict.promoted
        assert fed(rows_of(-0.02, 20_000, rng)).verdict is Verdict.rejected


def test_a_challenger_that_got_better_after_a_bad_start_has_to_make_up_for_it():
    rng = np.random.default_rng(7)
    bad, good = rows_of(-0.05, 150, rng), rows_of(0.05, 6_000, rng)
    trial = fed(bad, margin=0.002)
    assert trial.verdict is Verdict.undecided
    assert fed(good, trial=trial).verdict is Verdict.promoted
    assert trial.report()["examples"] > 150 + fed(good, margin=0.002).report()["examples"]


def test_equal_releases_are_promoted_within_a_margin_and_never_without_one():
    z, label = np.linspace(-9, 9, 40_000, dtype=np.float32), np.tile(np.float32([0, 1]), 20_000)
    ones = np.ones(len(z), np.float32)
    trial = fed((z, z, label, ones), margin=0.002)
    assert trial.verdict is Verdict.promoted
    report = trial.report()
    assert (report["mean"], report["variance"], report["better"], report["worse"]) == (0.0, 0.0, False, False)
    assert report["examples"] == pytest.approx(6.2 * 1.0 / 0.002, rel=0.01)
    assert fed((z, z, label, ones), margin=0.0).verdict is Verdict.undecided


def test_surely_worse_by_any_amount_is_said_apart_from_worse_by_more_than_the_margin():
    trial = fed(rows_of(-0.02, 60_000, np.random.default_rng(8)), margin=0.02)
    report = trial.report()
    assert (report["verdict"], report["worse"], report["better"]) == ("undecided", True, False)
    trial = fed(rows_of(0.05, 60_000, np.random.default_rng(9)), margin=0.0)
    report = trial.report()
    assert (report["verdict"], report["worse"], report["better"]) == ("promoted", False, True)


def test_the_report_says_what_the_losses_were():
    a, b, label, _ = columns = rows_of(-0.002, 5_000, np.random.default_rng(10), spread=1.2)
    report = fed(columns, margin=0.002, alpha=1e-9, bound=0.6).report()
    x = LOG_LOSS.value(a, label) - LOG_LOSS.value(b, label)
    assert report["verdict"] == "undecided"
    assert report["examples"] == 5_000
    assert report["unclipped"] == pytest.approx(x.mean(), rel=1e-9)
    assert report["mean"] == pytest.approx(np.clip(x, -0.6, 0.6).mean(), rel=1e-9)
    assert report["clipped"] == (np.abs(x) >= 0.6).sum() > 100
    assert report["variance"] == pytest.approx(np.clip(x, -0.6, 0.6).var(), rel=0.02)
    assert report["lower"] < report["mean"] < report["upper"]
    assert (report["margin"], report["alpha"], report["bound"]) == (0.002, 1e-9, 0.6)


def test_one_row_at_a_time_decides_at_the_same_example_and_later_rows_change_nothing():
    columns = rows_of(0.1, 3_000, np.random.default_rng(11))
    whole = fed(columns)
    assert whole.verdict is Verdict.promoted
    alone, at = Trial(), None
    for i in range(3_000):
        alone.update(*(c[i : i + 1] for c in columns))
        at = i + 1 if at is None and alone.verdict is Verdict.promoted else at
    assert at == whole.report()["examples"] < 3_000
    assert bits(alone) == bits(whole)
    worse = rows_of(-0.1, 3_000, np.random.default_rng(12))
    assert fed(worse, trial=alone).verdict is Verdict.promoted
    assert bits(alone) == bits(whole)


def test_before_the_first_example_nothing_is_known():
    none = np.empty(0, np.float32)
    trial = Trial()
    assert trial.update(none, none, none, none) is Verdict.undecided
    report = trial.report()
    assert (report["examples"], report["mean"], report["unclipped"], report["variance"]) == (0, None, None, None)
    assert (report["lower"], report["upper"]) == (-1.0, 1.0)


@pytest.mark.parametrize("logits", [(0.0, 80.0), (0.0, -80.0)])
def test_one_example_never_decides_however_extreme(logits):
    a, b = np.float32([logits[0]]), np.float32([logits[1]])
    trial = Trial(alpha=0.5)
    assert trial.update(a, b, np.ones(1, np.float32), np.ones(1, np.float32)) is Verdict.undecided
    assert trial.report()["clipped"] == (1 if logits[1] < 0 else 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_challenger_that_cannot_score_loses_by_the_whole_bound_and_is_rejected(bad):
    a, _, label, weight = rows_of(0.05, 500, np.random.default_rng(13))
    trial = fed((a, np.full(500, bad, np.float32), label, weight))
    report = trial.report()
    assert (report["verdict"], report["mean"], report["skipped"]) == ("rejected", -1.0, 0)
    assert report["clipped"] == report["examples"]


@pytest.mark.parametrize(
    ("place", "bad"),
    [(0, np.nan), (0, np.inf), (2, np.nan), (2, 0.5), (2, -1.0), (3, np.nan), (3, -np.inf), (3, 0.0)],
)
def test_a_row_that_judges_nothing_is_skipped_and_counted(place, bad):
    columns = rows_of(0.0, 60, np.random.default_rng(14))
    clean = fed([np.delete(c, 20) for c in columns])
    columns[place][20] = bad
    report = fed(columns).report()
    assert report.pop("skipped") == 1
    expected = clean.report()
    assert expected.pop("skipped") == 0
    assert report == expected


def test_weights_scale_the_difference_before_it_is_clipped_and_minus_one_takes_back():
    columns = a, b, label, weight = rows_of(0.0, 200, np.random.default_rng(15))
    x = LOG_LOSS.value(a, label) - LOG_LOSS.value(b, label)
    report = fed((a, b, label, 2.5 * weight), bound=0.9).report()
    assert report["mean"] == pytest.approx(np.clip(2.5 * x, -0.9, 0.9).mean())
    assert 0 < report["clipped"] < 200
    trial = fed((a[::-1], b[::-1], label[::-1], -weight), trial=fed(columns))
    assert trial.report()["mean"] == pytest.approx(0.0, abs=1e-15)


def test_the_largest_logits_and_weights_are_clipped_and_overflow_nothing():
    top = np.finfo(np.float32).max
    z = np.float32([top, -top, top, -top])
    report = fed((z, -z, np.float32([1, 0, 0, 1]), np.float32([top, 1, 1, 1]))).report()
    assert (report["mean"], report["clipped"]) == (0.0, 4)
    assert all(math.isfinite(v) for v in report.values() if isinstance(v, float))


NAN = math.nan


@pytest.mark.parametrize(
    ("name", "values"),
    [("alpha", (0.0, 1.0, -0.1, NAN)), ("margin", (-0.001, 1.0, NAN)), ("bound", (0.0, math.inf, NAN))],
)
def test_terms_that_make_no_sense_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=f"{name} is {value}"):
            Trial(**{name: value})


def test_a_saved_trial_ends_under_the_terms_that_it_began_with():
    columns = rows_of(0.0, 400, np.random.default_rng(17))
    begun = fed([c[:200] for c in columns], margin=0.1, alpha=0.01, bound=0.7)
    resumed = Trial(margin=0.3, alpha=0.4, bound=2.0)
    resumed.load(begun.state())
    assert (resumed.margin, resumed.alpha, resumed.bound) == (0.1, 0.01, 0.7)
    assert bits(fed([c[200:] for c in columns], trial=resumed)) == bits(fed(columns, margin=0.1, alpha=0.01, bound=0.7))


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("terms", np.array([0.002, 2.0, 1.0])),
        ("terms", np.array([math.nan, 0.05, 1.0])),
        ("rows", np.array([0, 0, 3])),
        ("rows", np.array([-1, 0, 0])),
        ("count", np.array([-5])),
    ],
)
def test_a_saved_state_that_is_something_else_is_refused_and_changes_nothing(name, broken):
    trial = fed(rows_of(0.0, 50, np.random.default_rng(18)))
    before, state = bits(trial), Trial().state()
    with pytest.raises(Corrupt, match=name):
        trial.load(state | {name: broken})
    assert bits(trial) == before


def test_a_state_is_a_copy_that_later_rows_do_not_change():
    columns = rows_of(0.0, 100, np.random.default_rng(19))
    trial = fed([c[:50] for c in columns])
    state = trial.state()
    kept = {name: a.copy() for name, a in state.items()}
    fed([c[50:] for c in columns], trial=trial)
    assert all(np.array_equal(state[name], kept[name]) for name in kept)
    other = Trial()
    other.load(state)
    fed([c[50:] for c in columns], trial=other)
    assert all(np.array_equal(state[name], kept[name]) for name in kept)


def test_a_gain_that_comes_and_goes_as_an_adversary_likes_does_not_fool_it():
    # In stretches of 50 rows he gains or loses 0.06 nats a row, and gains whenever the average gain stays no larger than 0.
    promoted = 0
    for run in range(RUNS):
        rng, trial, due = np.random.default_rng((20, run)), Trial(margin=0.0, alpha=ALPHA), 0.0
        for _ in range(40):
            ahead = (trial.report()["mean"] or 0.0) * trial.report()["examples"] - due
            gain = 0.06 if due + 50 * 0.06 <= 0.0 and ahead > 0.0 else -0.06
            fed(rows_of(gain, 50, rng), trial=trial)
            due += 50 * gain
        promoted += trial.verdict is Verdict.promoted
    assert promoted <= MOST


def test_the_sigmoid_of_the_truth_cannot_be_beaten():
    rng = np.random.default_rng(21)
    truth = rng.normal(-1, 1, 60_000).astype(np.float32)
    other = (truth + 0.6 * rng.standard_normal(60_000)).astype(np.float32)
    label = (rng.random(60_000) < expit(truth)).astype(np.float32)
    ones = np.ones(60_000, np.float32)
    assert fed((truth, other, label, ones)).verdict is Verdict.rejected
    assert fed((other, truth, label, ones)).verdict is Verdict.promoted
