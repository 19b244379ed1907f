"""Measured: losses are bounded wherever they are reported, so that no report sums an absurd number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.losses import LOG_LOSS
from riverdelta.evaluation.history import GRAIN, POINTS, History
from riverdelta.evaluation.prequential import Prequential
from riverdelta.evaluation.slices import HALF_LIFE, Slices
from riverdelta.evaluation.traffic import Traffic
from riverdelta.evaluation.trial import Trial
from riverdelta.evaluation.worth import Worth
from riverdelta.lab import quality

BOUND = LOG_LOSS.bound
TOP = float(np.finfo(np.float32).max)
SCORERS = ("base", "served")


@given(st.lists(st.tuples(st.floats(-700, 700), st.sampled_from([0.0, 1.0])), min_size=1, max_size=50))
def test_losses_and_scores_are_those_of_their_definitions(rows):
    z, y = (np.array(column) for column in zip(*rows, strict=True))
    assert np.allclose(LOG_LOSS.value(z, y), np.minimum(np.logaddexp(0, z) - y * z, BOUND), rtol=0, atol=1e-12)
    assert np.allclose(LOG_LOSS.inverse_link(z)[:, 0], expit(z), rtol=1e-12, atol=0)


class Reports:
    """Everything that reports losses, and each mean loss that it reports now."""

    def __init__(self):
        self.prequential, self.history, self.traffic, self.trial = Prequential(), History(), Traffic(), Trial()
        self.slices, self.worth = Slices({"country": ["de"]}, Schema.of({"country": "int64"})), Worth()
        self.rows = []

    def update(self, base, served, label):
        base, served, label = (np.asarray(a, np.float32) for a in (base, served, label))
        n, ones = len(base), np.ones(len(base), np.float32)
        self.prequential.update(base, served, label)
        self.history.update(base, served, label, ones, np.zeros(n))
        self.slices.update({"country": np.full(n, id64("de"))}, base, served, label, ones)
        self.traffic.update(np.arange(n), np.zeros(n, int), base, served, served)
        self.trial.update(base, served, label, ones)
        self.worth.update(base, served, label, ones)
        self.rows.append((base, served, label))
        return self

    def losses(self):
        """Each report's mean log losses, and of how many rows each is the mean."""
        columns = [np.concatenate(column) for column in zip(*self.rows, strict=True)]
        n, (base, served, label) = len(columns[0]), columns
        history, measured = self.history.report(), self.prequential.report()
        sizes = np.diff([0, *history["examples"]])
        fading = 0.5 ** (np.arange(n) / HALF_LIFE)
        slices, expected = self.slices.report()["country"]["de"], self.traffic.report()["expected_loss"]
        made = {}
        for scorer, z in zip(SCORERS, (base, served), strict=True):
            made |= {(scorer, window): (measured[window][scorer]["loss"], n) for window in measured}
            made |= {(scorer, "point", i): (m, k) for i, (m, k) in enumerate(zip(history[scorer], sizes, strict=True))}
            made[scorer, "slice"] = slices[scorer]["loss"], fading.sum()
            made[scorer, "expected"] = expected[scorer], n
            made[scorer, "lab"] = quality.log_loss(z[~np.isnan(z)], label[~np.isnan(z)]) if not np.isnan(z).all() else None, n
        return made


def ordinary(rows, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.normal(-1, 1.5, rows).astype(np.float32)
    return base, base + np.float32(0.1), (rng.random(rows) < 1 / (1 + np.exp(-base))).astype(np.float32)


@pytest.mark.parametrize("z", [TOP, -TOP, 1e4])
@pytest.mark.parametrize("at", [0, 4_000, 9_999])
def test_one_absurd_row_on_the_wrong_side_moves_no_report_by_more_than_its_part_of_the_bound(z, at):
    base, served, label = ordinary(10_000)
    clean = Reports().update(base, served, label)
    base[at] = served[at] = z
    label[at] = z < 0
    spoilt = Reports().update(base, served, label)
    before, after = clean.losses(), spoilt.losses()
    assert before.keys() == after.keys()
    for name, (loss, rows) in after.items():
        assert abs(loss - before[name][0]) <= (BOUND + 1e-5) / rows, name
    for window in ("all", "recent"):
        assert {clean.prequential.report()[window][s]["clipped"] for s in SCORERS} == {0}
        assert {spoilt.prequential.report()[window][s]["clipped"] for s in SCORERS} == {1}
    for report in (spoilt.worth.report()["gain"], spoilt.trial.report()):
        assert abs(report["mean"]) < 0.1
    assert abs(spoilt.trial.report()["unclipped"]) < 0.1


ANY = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([TOP, -TOP, 57.0, -57.0])


def figures(report):
    """All numbers of a report, however deep."""
    if isinstance(report, dict):
        report = list(report.values())
    if isinstance(report, list):
        return [x for part in report for x in figures(part)]
    return [report] if isinstance(report, float) else []


@settings(max_examples=60)
@given(st.lists(st.tuples(ANY, ANY, st.sampled_from([0.0, 1.0])), min_size=1, max_size=2 * GRAIN))
def test_whatever_logits_come_every_report_is_finite_and_no_mean_loss_is_above_the_bound(rows):
    reports = Reports().update(*zip(*rows, strict=True))
    for part in (reports.prequential, reports.history, reports.slices, reports.traffic, reports.trial, reports.worth):
        assert all(math.isfinite(x) for x in figures(part.report()))
    means = [loss for loss, _ in reports.losses().values() if loss is not None]
    assert all(-1e-6 <= loss <= BOUND + 1e-5 for loss in means)
    good = [row for row in rows if all(map(math.isfinite, row))]
    for s, scorer in enumerate(SCORERS):
        beyond = sum(
            bool(np.logaddexp(0, row[s]) - row[2] * row[s] > BOUND) for row in good if not math.isclose(abs(row[s]), BOUND)
        )
        assert reports.prequential.report()["all"][scorer]["clipped"] == beyond


def test_what_version_0_1_saved_of_an_absurd_row_is_mended_when_it_is_loaded():
    base, served, label = ordinary(10_000)
    clean, spoilt = Reports().update(base, served, label), Reports().update(base, served, label)
    # As it would have summed them: the loss as it is.
    saved = spoilt.prequential.state()
    saved["sums"][:, 0] += TOP
    saved["counts"][:, 0, -1] += 1
    spoilt.prequential.load(saved)
    saved = spoilt.history.state()
    saved["points"][POINTS // 3, 2:] += TOP
    spoilt.history.load(saved)
    saved = spoilt.slices.state()
    saved["country/sums"][0, :, 3] += TOP
    spoilt.slices.load(saved)
    for scorer in SCORERS:
        usual, found = (r.prequential.report()["all"][scorer] for r in (clean, spoilt))
        assert found["loss"] == pytest.approx(usual["loss"] + BOUND / 10_001, abs=2e-4)
        assert found["clipped"] == 1
        usual, found = (r.history.report()[scorer] for r in (clean, spoilt))
        assert [b for a, b in zip(usual, found, strict=True) if a != b] == [None]
        assert spoilt.slices.report()["country"]["de"][scorer]["loss"] is None
