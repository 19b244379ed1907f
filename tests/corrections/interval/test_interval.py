"""Prediction intervals cover what they declare, after a change too, and are those of the published algorithm."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.examples import Examples
from riverdelta.core.losses import Regression
from riverdelta.corrections.interval import LOWER, UPPER, Interval, Intervals
from riverdelta.corrections.interval.conformal import FIRST


def made(interval, slices=1):
    return Intervals(interval, Regression(), {str(at): at for at in range(1, slices)})


def ends_of(intervals):
    lower, upper, known = intervals.table.values.T
    return np.where(known > 0, [lower, upper], np.nan).T


def played(errors, interval, block=16, slices=None):
    """Return the ends in force for each error, and what has learned them all."""
    intervals, ends = made(interval, 1 if slices is None else int(slices.max()) + 1), []
    for first in range(0, len(errors), block):
        rows = slice(first, first + block)
        of = None if slices is None else slices[rows]
        ends.append(np.repeat(ends_of(intervals)[:1], len(errors[rows]), axis=0) if of is None else ends_of(intervals)[of])
        intervals.learn(errors[rows], of)
    return np.concatenate(ends), intervals


def covered(errors, ends):
    return float(((errors >= ends[:, 0]) & (errors <= ends[:, 1])).mean())


class Published:
    """One end by algorithms 1 and 2 of the paper, in plain Python, with a fixed range."""

    def __init__(self, miss, size):
        self.miss, self.size, self.t, self.end, self.experts = miss, size, 0, 0.0, []

    def loss(self, error, end):
        return max((1 - self.miss) * (error - end), self.miss * (end - error))

    def learn(self, error):
        self.t += 1
        power = 1
        while self.t % (2 * power) == 0:
            power *= 2
        self.experts = [e for e in self.experts if self.t <= e["until"]]
        born = {"i": self.t, "until": self.t + 8 * power - 1, "s": self.end, "g": 0.0, "z": 0.0, "wz": 0.0, "w": 0.0}
        self.experts.append(born)
        for e in self.experts:
            gain = (self.loss(error, self.end) - self.loss(error, e["s"])) / self.size
            gain = gain if e["w"] > 0 else max(gain, 0.0)
            e["z"] += gain
            e["wz"] += e["w"] * gain
            e["w"] = e["z"] / (self.t - e["i"] + 1) * (1 + e["wz"])
            slope = self.miss - (error > e["s"])
            e["g"] += slope**2
            e["s"] -= self.size / math.sqrt(3) * slope / math.sqrt(e["g"])
        prior = [1 / (e["i"] ** 2 * (1 + math.floor(math.log2(e["i"])))) for e in self.experts]
        bets = [p * max(e["w"], 0.0) for p, e in zip(prior, self.experts, strict=True)]
        shares = bets if sum(bets) > 0 else prior
        self.end = sum(p * e["s"] for p, e in zip(shares, self.experts, strict=True)) / sum(shares)


def test_the_first_of_an_end_s_two_parts_is_the_published_algorithm():
    # Errors of one size have one range from the first example on.
    errors = np.where(np.random.default_rng(1).random(700) < 0.3, -2.0, 2.0)
    intervals, upper, lower = made(Interval(0.8)), Published(0.1, 8.0), Published(0.1, 8.0)
    for error in errors:
        intervals.learn([error])
        if intervals.report()["other"]["labels"] <= FIRST:
            continue
        upper.learn(error)
        lower.learn(-error)
        found = intervals._sides["end"][0]
        assert found == pytest.approx([lower.end, upper.end], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_it_covers_what_it_declares_in_every_part_of_a_stream_that_changes(coverage):
    rng = np.random.default_rng(3)
    scale = np.repeat([1.0, 4.0, 0.5], 4_000)
    errors = rng.gamma(2.0, scale) - scale + np.repeat([0.0, 3.0, -1.0], 4_000)
    ends, _ = played(errors, Interval(coverage))
    for part in np.split(np.arange(len(errors)), 6):
        late = part[1_000:]
        assert covered(errors[late], ends[late]) == pytest.approx(coverage, abs=0.035)


def test_labels_that_come_late_find_the_declared_share_of_the_intervals_that_were_served():
    rng, late = np.random.default_rng(9), 24
    # Errors follow one another, so that those of a day ago say less about today's.
    errors = np.repeat(rng.normal(size=600), 20) * 3.0 + rng.normal(size=12_000)
    intervals, served = made(Interval(0.9)), np.full((len(errors), 2), np.nan)
    for i in range(len(errors)):
        served[i] = ends_of(intervals)[0]
        if i >= late:
            intervals.learn([errors[i - late]], served=[served[i - late] * (-1.0, 1.0)])
    for part in np.split(np.arange(4_000, 12_000), 8):
        assert covered(errors[part], served[part]) == pytest.approx(0.9, abs=0.04)


def test_both_sides_are_missed_equally_though_errors_are_skewed():
    errors = np.random.default_rng(4).exponential(size=12_000) - 1.0
    ends, _ = played(errors, Interval(0.9))
    late = slice(4_000, None)
    assert (errors[late] < ends[late, 0]).mean() == pytest.approx(0.05, abs=0.015)
    assert (errors[late] > ends[late, 1]).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("times", [1e-6, 1.0, 1e9])
def test_the_unit_of_the_label_does_not_matter(times):
    errors = np.random.default_rng(5).normal(size=2_000)
    plain, scaled = played(errors, Interval())[0], played(errors * times, Interval())[0]
    np.testing.assert_allclose(scaled[36:] / times, plain[36:], rtol=1e-4, atol=1e-6)


def test_a_few_absurd_labels_are_only_missed():
    rng = np.random.default_rng(6)
    errors = rng.normal(size=6_000)
    wild = errors.copy()
    wild[[0, 1, 2_000, 2_001, 2_002]] = 1e30, -1e30, 1e30, -1e18, 1e12
    ends, _ = played(wild, Interval(0.9))
    assert covered(errors[1_000:], ends[1_000:]) == pytest.approx(0.9, abs=0.02)
    assert np.abs(ends[1_000:]).max() < 20


def test_before_enough_labels_there_is_no_interval():
    ends, _ = played(np.random.default_rng(7).normal(size=100), Interval(0.9), block=1)
    assert_array_equal(np.isnan(ends[:, 0]), np.arange(100) < 36)


def test_slices_have_ends_of_their_own():
    rng = np.random.default_rng(8)
    slices = rng.integers(0, 2, 12_000)
    errors = rng.normal(size=12_000) * np.where(slices == 0, 1.0, 50.0)
    ends, intervals = played(errors, Interval(0.9), slices=slices)
    for s in (0, 1):
        late = np.flatnonzero(slices == s)[2_000:]
        assert covered(errors[late], ends[late]) == pytest.approx(0.9, abs=0.02)
    assert [one["labels"] for one in intervals.report().values()] == np.bincount(slices).tolist()


@given(st.lists(st.floats(-1e12, 1e12) | st.just(np.nan), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_blocks_and_restarts_change_nothing(errors, cuts):
    errors = np.array(errors, np.float64)
    slices = np.arange(len(errors)) % 2
    whole = made(Interval(0.8), 2)
    whole.learn(errors, slices)
    whole.measure(errors, errors * 0 - 1, errors * 0 + 1, slices)
    part = made(Interval(0.8), 2)
    for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        rows = slice(first, last)
        part.learn(errors[rows], slices[rows])
        part.measure(errors[rows], errors[rows] * 0 - 1, errors[rows] * 0 + 1, slices[rows])
        again = made(Interval(0.8), 2)
        again.load(part.state())
        part = again
    for name, array in whole.state().items():
        assert_array_equal(part.state()[name], array)


def test_the_measured_coverage_is_of_the_intervals_as_served():
    intervals = made(Interval(0.9))
    intervals.measure([1.0, 5.0, -5.0, 2.0, 9.0], [0.0, 0.0, 0.0, np.nan, 8.0], [2.0, 2.0, 2.0, 3.0, 10.0])
    (found,) = intervals.report().values()
    assert [round(found[name], 3) for name in ("coverage", "below", "above", "width")] == [0.5, 0.25, 0.25, 2.0]


@pytest.mark.parametrize("coverage", [0.5, 1.0, 90, -1, "0.9"])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(ConfigurationError, match="coverage is"):
        Interval(coverage)


def test_labels_that_come_together_move_the_ends_alike_whatever_was_predicted():
    errors, widths = np.random.default_rng(4).normal(size=(40, 200)).astype(np.float32), []
    for spread in (0.0, 8.0):
        intervals = made(Interval(0.9))
        for position, error in enumerate(errors):
            served = np.float32(spread) * np.arange(200, dtype=np.float32)
            columns = dict(zip((LOWER, UPPER), intervals.bounds(served[:, None]), strict=True))
            examples = Examples.unserved(columns, served, served + error, np.zeros(200))
            intervals.observe(replace(examples, position=np.full(200, position)))
        widths.append(np.ptp(ends_of(intervals)[0]))
    assert widths[0] == pytest.approx(widths[1], rel=0.01)
