"""Confidence sequence: the published formula, right at every row whatever the stream, the same however it is split."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.evaluation.confidence import ConfidenceSequence, _below, _excess, _gamma, boundary

RUNS, ALPHA = 200, 0.05
#: Should each of 200 runs err with probability 0.05, more than so many errors would come in one of 1,000 tries.
MOST = int(stats.binom.ppf(0.999, RUNS, ALPHA))


def log_mixture(s, v, rho):
    """Return log m(s, v) as `boundary` computes it."""
    a = v + rho
    return _gamma(a) + _excess(a, s) + math.log(_below(a, s)) - _gamma(rho) - math.log(_below(rho, 0.0))


def by_integration(s, v, rho):
    """Return log m(s, v) from its definition, with scipy's gamma density for the mixture and Simpson's rule."""
    gamma = stats.gamma(rho, scale=1.0 / rho)
    root = np.linspace(0.0, 1.0, 100_001)[1:]  # λ = 1 - root², which takes the density's edge at λ = 1 away
    rate = 1.0 - root**2
    logs = rate * s + v * (2.0 * np.log(root) + rate) + gamma.logpdf(root**2) - gamma.logcdf(1.0)
    terms = np.concatenate([[0.0], np.exp(logs - logs.max()) * 2.0 * root])
    return logs.max() + math.log(integrate.simpson(terms, dx=1e-5))


@pytest.mark.parametrize("rho", [1.3, 8.0, 60.0])
@pytest.mark.parametrize("v", [0.0, 0.7, 25.0, 3_000.0])
@pytest.mark.parametrize("z", [0.0, 1.0, 3.0, 9.0])
def test_the_mixture_is_its_integral(rho, v, z):
    s = z * math.sqrt(v + rho)
    assert log_mixture(s, v, rho) == pytest.approx(by_integration(s, v, rho), abs=1e-7)


@pytest.mark.parametrize("rho", [1e-3, 0.4, 15.9, 16.1, 999.0, 1_001.0, 1e6])
@pytest.mark.parametrize("v", [0.0, 1e-6, 3.0, 983.0, 986.0, 1e5])
def test_the_mixture_is_that_of_other_gamma_functions(rho, v):
    a = v + rho
    for s in np.array([0.0, 1e-3, 0.5, 3.0, 30.0]) * math.sqrt(a):
        m = special.gammaln(a) + math.log(special.gammainc(a, a + s)) - a * math.log(a + s) + s + a
        m -= special.gammaln(rho) + math.log(special.gammainc(rho, rho)) - rho * math.log(rho) + rho
        assert log_mixture(s, v, rho) == pytest.approx(m, abs=1e-8)


@settings(max_examples=200)
@given(
    st.floats(0.0, 1e12),
    st.floats(1.0, 3.0),
    st.floats(1e-3, 1e6),
    st.floats(1e-12, 0.999).map(lambda alpha: -math.log(alpha)),
)
def test_the_boundary_is_the_root_and_grows_and_is_no_lower_than_one_look_allows(v, factor, rho, threshold):
    u = boundary(v, rho, threshold)
    assert log_mixture(u, v, rho) == pytest.approx(threshold, rel=1e-6, abs=1e-7)
    # Where the sum gives way to the expansion P is off by up to 2e-10, which moves u by that share of the threshold.
    assert boundary(factor * v, rho, threshold) >= u * (1.0 - 1e-10 - 4e-10 / threshold)
    # exp(λs - ψ(λ)v) <= exp(s²/2v) for every λ, so no mixture of them is larger.
    assert u >= math.sqrt(2.0 * v * threshold) * (1.0 - 1e-10)


@pytest.mark.parametrize(
    ("v", "mixed", "stitched"),
    [(1, 5.7, 15.5), (10, 11.7, 15.5), (100, 34.4, 43.9), (1e4, 381, 402), (1e6, 4336, 4107)],
)
def test_the_mixture_and_the_stitched_boundary_are_as_wide_as_stated(v, mixed, stitched):
    threshold, best_at = math.log(1.0 / ALPHA), 10.0
    rho = best_at / (2.0 * threshold + math.log1p(2.0 * threshold))
    assert boundary(v, rho, threshold) == pytest.approx(mixed, rel=0.01)
    eta, power, w = 2.0, 1.4, max(v, best_at)
    lil = power * math.log(math.log(eta * w / best_at)) + math.log(special.zeta(power) / (ALPHA * math.log(eta) ** power))
    k1, k2 = (eta**0.25 + eta**-0.25) / math.sqrt(2.0), (math.sqrt(eta) + 1.0) / 2.0
    assert math.sqrt(k1**2 * w * lil + (k2 * lil) ** 2) + k2 * lil == pytest.approx(stitched, rel=0.01)


@pytest.mark.parametrize("best_at", [30.0, 1_000.0, 1e5])
def test_the_boundary_is_about_least_where_it_was_asked_to_be(best_at):
    threshold = math.log(1.0 / ALPHA)
    rho = best_at / (2.0 * threshold + math.log1p(2.0 * threshold))
    width = {v: boundary(v, rho, threshold) / math.sqrt(v) for v in best_at * 4.0 ** np.arange(-8, 9)}
    assert width[best_at] <= 1.25 * min(width.values())


def skewed(rng, rows):
    """Mostly a small gain, seldom a great loss, whose normal approximation is far off."""
    return np.where(rng.random(rows) < 0.05, -0.95, 0.05), np.zeros(rows)


def autoregressive(rng, rows):
    """x_i = 0.7·x_{i-1} + 0.3·noise: long runs on one side."""
    x, noise = np.zeros(rows + 1), rng.choice([-1.0, 1.0], rows)
    for i in range(rows):
        x[i + 1] = 0.7 * x[i] + 0.3 * noise[i]
    return x[1:], 0.7 * x[:-1]


def switching(rng, rows):
    """An adversary: after a gain over what was due it plays for little, after a loss for all, and moves the mean about."""
    x, mean, ahead = np.zeros(rows), np.zeros(rows), 0.0
    for i, coin in enumerate(rng.random(rows) < 0.5):
        mean[i] = -0.4 if ahead > 0 else 0.4
        x[i] = mean[i] + (0.02 if ahead > 0 else 0.6) * (1.0 if coin else -1.0)
        ahead += x[i] - mean[i]
    return x, mean


def watched(stream, sides, alpha, side, rows=300):
    """Return in how many runs a bound was wrong at any row of t's own average conditional mean."""
    wrong = 0
    for run in range(RUNS):
        x, conditional = stream(np.random.default_rng((7, run)), rows)
        due = np.cumsum(conditional) / np.arange(1, rows + 1)
        sequence = ConfidenceSequence(alpha, -1.0, 1.0, sides=sides, guess=(-0.1, 0.1), best_at=30.0)
        for value, mean in zip(x, due, strict=True):
            sequence.update([value])
            if (side >= 0 and sequence.lower > mean + 1e-12) or (side <= 0 and sequence.upper < mean - 1e-12):
                wrong += 1
                break
    return wrong


@pytest.mark.parametrize("stream", [skewed, autoregressive, switching])
def test_both_bounds_hold_at_every_row_of_a_hostile_stream(stream):
    assert watched(stream, 2, ALPHA, 0) <= MOST


@pytest.mark.parametrize("stream", [skewed, switching])
def test_bounds_that_are_allowed_to_err_do_so_on_the_same_streams(stream):
    assert watched(stream, 2, 0.95, 0) > MOST


@pytest.mark.parametrize("side", [1, -1])
def test_each_bound_alone_holds_at_every_row_with_one_side(side):
    assert watched(switching, 1, ALPHA, side) <= MOST


def test_the_interval_of_one_look_errs_in_most_runs_where_the_sequence_seldom_does():
    fooled = caught = 0
    for run in range(RUNS):
        x = np.random.default_rng((8, run)).choice([-0.5, 0.5], 20_000)
        t = np.arange(1, len(x) + 1)
        fooled += bool((np.abs(np.cumsum(x))[30:] > 1.96 * 0.5 * np.sqrt(t[30:])).any())
        caught += ConfidenceSequence(ALPHA, -0.5, 0.5).until(x, 0.0)[1] != 0
    assert fooled > RUNS / 2
    assert caught <= MOST


def test_a_constant_stream_closes_in_on_its_value_without_variance():
    sequence = ConfidenceSequence(ALPHA, 0.0, 1.0)
    sequence.update(np.full(100_000, 0.25))
    assert sequence.lower <= 0.25 <= sequence.upper
    assert sequence.upper - sequence.lower < 1e-3


def test_the_bounds_close_in_like_one_over_the_root_of_the_rows():
    rng, sequence = np.random.default_rng(1), ConfidenceSequence(ALPHA, 0.0, 1.0)
    widths = []
    for rows in (1_000, 9_000, 90_000):
        sequence.update(rng.random(rows))
        widths.append(sequence.upper - sequence.lower)
    assert 2.5 < widths[0] / widths[1] < 4.0
    assert 2.5 < widths[1] / widths[2] < 4.0
    # The standard error of one look at the same rows, times what the paper's boundaries cost at most in this range.
    assert widths[2] < 2.0 * 5.0 * math.sqrt(1.0 / 12.0 / 100_000)


def test_a_narrow_guess_is_tighter_where_the_mean_is_near_it_and_right_where_it_is_not():
    rng = np.random.default_rng(2)
    for centre in (0.0, 0.8):
        x = centre + rng.uniform(-0.2, 0.2, 300)
        whole, narrow = ConfidenceSequence(ALPHA, -1, 1), ConfidenceSequence(ALPHA, -1, 1, guess=(-0.1, 0.1))
        for sequence in (whole, narrow):
            sequence.update(x)
            assert sequence.lower < centre < sequence.upper
        assert (narrow.upper - narrow.lower < whole.upper - whole.lower) == (centre == 0.0)


@pytest.mark.parametrize("guess", [(-1.0, 1.0), (-0.1, 0.1)])
def test_the_bounds_are_the_published_ones_of_predictions_from_earlier_values_alone(guess):
    x = np.random.default_rng(5).uniform(-0.3, 0.9, 400)
    sequence = ConfidenceSequence(ALPHA, -1, 1, sides=1, guess=guess, best_at=7.0)
    sequence.update(x)
    before = [np.mean([0.0, *x[:i]]) for i in range(len(x))]
    squares, scale, threshold = ((x - np.clip(before, *guess)) ** 2).sum(), guess[1] + 1.0, math.log(1.0 / ALPHA)
    rho = 7.0 / scale**2 / (2.0 * threshold + math.log1p(2.0 * threshold))
    radius = scale * boundary(squares / scale**2, rho, threshold) / len(x)
    assert sequence.variance == pytest.approx(squares / len(x), rel=1e-12)
    assert (sequence.lower, sequence.upper) == pytest.approx((x.mean() - radius, x.mean() + radius), rel=1e-12)


def test_two_sides_are_each_bound_at_half_the_error():
    x = np.random.default_rng(3).random(500)
    both, each = ConfidenceSequence(0.1, 0, 1, best_at=5.0), ConfidenceSequence(0.05, 0, 1, sides=1, best_at=5.0)
    both.update(x)
    each.update(x)
    assert (both.lower, both.upper) == (each.lower, each.upper)


def bits(sequence):
    return {name: (a.dtype, a.tobytes()) for name, a in sequence.state().items()}


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(-0.6, 0.6), st.sampled_from([1e-9, 0.02, 0.5]), st.integers(0, 300))
def test_watching_a_line_finds_the_first_row_at_which_a_bound_passes_it(seed, line, noise, saved_at):
    rng = np.random.default_rng(seed)
    x = np.clip(rng.choice([-0.5, 0.0, 0.5]) + noise * rng.standard_normal(300), -1, 1)
    looked, found = ConfidenceSequence(0.2, -1, 1), (300, 0)
    for i, value in enumerate(x):
        looked.update([value])
        if looked.lower > line or looked.upper < line:
            found = (i + 1, 1 if looked.lower > line else -1)
            break
    assert ConfidenceSequence(0.2, -1, 1).until(x, line) == found
    first = ConfidenceSequence(0.2, -1, 1)
    taken, side = first.until(x[:saved_at], line)
    if not side:
        resumed = ConfidenceSequence(0.2, -1, 1)
        resumed.load(first.state())
        more, side = resumed.until(x[saved_at:], line)
        taken += more
    assert (taken, side) == found


def test_before_the_first_value_the_bounds_are_the_range():
    sequence = ConfidenceSequence(ALPHA, -2.0, 3.0)
    sequence.update([])
    assert (sequence.lower, sequence.upper, sequence.count) == (-2.0, 3.0, 0)
    assert math.isnan(sequence.mean)
    assert math.isnan(sequence.variance)
    sequence.update([2.5])
    assert (sequence.lower, sequence.upper, sequence.mean) == (-2.0, 3.0, 2.5)


def test_a_billion_rows_overflow_nothing():
    rows = 10**9
    sequence = ConfidenceSequence(1e-6, -1.0, 1.0)
    sequence.load({"sums": np.array([0.001 * rows, 0.5 * rows]), "count": np.array([rows])})
    assert sequence.until(np.zeros(3), 0.0) == (1, 1)
    assert 0.0008 < sequence.lower < 0.001 < sequence.upper < 0.0012


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0001, -1.0001])
def test_a_value_out_of_range_is_refused_by_its_row_and_nothing_is_added(bad):
    sequence = ConfidenceSequence(ALPHA, -1, 1)
    with pytest.raises(InvalidInput, match=rf"{bad} at row 2; expected float64\[M\] within \[-1.0, 1.0\]"):
        sequence.update([0.0, 1.0, bad, 0.5])
    with pytest.raises(InvalidInput, match=r"shape \[2, 2\]"):
        sequence.update(np.zeros((2, 2)))
    assert sequence.count == 0


@pytest.mark.parametrize("alpha", [0.0, 1.0, math.nan])
def test_a_probability_of_error_that_makes_no_sense_is_refused(alpha):
    with pytest.raises(ConfigurationError, match=f"alpha is {alpha}"):
        ConfidenceSequence(alpha, 0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("sums", np.array([0.0, -1.0])),
        ("sums", np.array([math.nan, 1.0])),
        ("count", np.array([-1])),
    ],
)
def test_a_saved_state_that_is_something_else_is_refused_and_changes_nothing(name, broken):
    sequence = ConfidenceSequence(ALPHA, -1, 1)
    sequence.update([0.5, -0.25])
    before, state = bits(sequence), ConfidenceSequence(ALPHA, -1, 1).state()
    with pytest.raises(Corrupt, match=name):
        sequence.load(state | {name: broken})
    assert bits(sequence) == before
