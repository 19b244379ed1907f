"""The gate: never worse than the better expert by more than its bound, whatever the labels do and however late they come."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from riverdelta.core.errors import Corrupt
from riverdelta.core.losses import LOG_LOSS
from riverdelta.evaluation.gate import Gate, hedge
from riverdelta.evaluation.gate.delays import Delays

N = 6_000
BOUND = LOG_LOSS.bound


def experts(kind, n, rng):
    """(base, corrected): logits float32[n]."""
    base = rng.normal(-0.5, 1.0, n)
    residual = {
        "better": rng.normal(0.0, 1.0, n),
        "equal": np.zeros(n),
        "wild": rng.choice([-25.0, 25.0], n),
        "mild": rng.choice([-0.5, 0.5], n),
    }[kind]
    return base.astype(np.float32), (base + residual).astype(np.float32)


def labels(kind, base, corrected, rng, delay):
    n = len(base)
    if kind == "random":
        return (rng.random(n) < 0.5).astype(np.float32)
    if kind == "constant":
        return np.zeros(n, np.float32)
    if kind == "true":
        return (rng.random(n) < expit(corrected)).astype(np.float32)
    favours = (corrected > base).astype(np.float32)  # the label that corrected is better at
    if kind == "flipped at the worst moment":
        return np.where(np.arange(n) < n // 2, favours, 1 - favours).astype(np.float32)
    period = max(delay, 1)
    return np.where(np.arange(n) // period % 2 == 0, favours, 1 - favours).astype(np.float32)


def run(gate, base, corrected, label, delay, record=7):
    """Serve each row with the weight of `delay` rows before, in records; return the served logits."""
    served = np.empty(len(base), np.float32)
    weights, noted = [0.5], [0]  # by position: record k is at position k + 1
    for start in range(0, len(base), record):
        rows = slice(start, min(start + record, len(base)))
        # A row was scored when `delay` rows fewer were learned than now: at the last record that ends before that.
        position = np.maximum(np.arange(rows.start, rows.stop) - delay, 0) // record
        position = np.minimum(position, len(noted) - 1)
        served[rows] = [
            mix(b, c, weights[p])[0] for b, c, p in zip(base[rows], corrected[rows], position.tolist(), strict=True)
        ]
        gate.update(base[rows], corrected[rows], served[rows], label[rows], None, position.astype(np.int64))
        gate.note(start // record + 1)
        weights.append(float(np.float32(gate.weight)))
        noted.append(rows.stop)
    return served


def mix(base, corrected, weight):
    return LOG_LOSS.mix(base, corrected, weight)[:, 0]


def loss(logit, label):
    return float((np.logaddexp(0, logit, dtype=float) - label * logit).sum())


KINDS = ("random", "constant", "true", "flipped at the worst moment", "alternating with the delay")


@pytest.mark.parametrize("residuals", ["better", "equal", "wild", "mild"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_labels_at_once_the_excess_is_below_ln_2_and_the_switching_term(kind, residuals):
    rng = np.random.default_rng(1)
    base, corrected = experts(residuals, N, rng)
    label = labels(kind, base, corrected, rng, 50)
    gate = Gate()
    served = gate.serve(base, corrected, label)
    excess = loss(served, label) - min(loss(base, label), loss(corrected, label))
    report = gate.report()
    assert report["bound"] == pytest.approx(math.log(2) + math.log(N + 1))
    assert excess <= report["bound"]
    assert report["excess"] == pytest.approx(excess, abs=0.01)


@pytest.mark.parametrize("delay", [1, 10, 100, 1_000])
@pytest.mark.parametrize("residuals", ["better", "wild", "mild"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_late_labels_the_excess_stays_below_both_bounds(kind, residuals, delay):
    rng = np.random.default_rng(delay)
    base, corrected = experts(residuals, N, rng)
    label = labels(kind, base, corrected, rng, delay)
    gate = Gate()
    served = run(gate, base, corrected, label, delay)
    excess = loss(served, label) - min(loss(base, label), loss(corrected, label))
    report = gate.report()
    assert report["delay"] >= delay
    assert excess <= report["bound"] <= report["worst_case"]
    assert report["excess"] == pytest.approx(excess, rel=1e-4, abs=0.05)


def test_plain_fixed_share_fails_where_labels_alternate_with_the_delay_and_the_gate_does_not():
    rng, n, delay = np.random.default_rng(5), 20_000, 100
    base = np.zeros(n, np.float32)
    corrected = np.full(n, 3.0, np.float32)
    label = labels("alternating with the delay", base, corrected, rng, delay)
    gate = Gate()
    served = run(gate, base, corrected, label, delay, record=1)
    best = min(loss(base, label), loss(corrected, label))
    plain, weights = 0.0, [0.5]
    for t in range(n):
        w = weights[max(t - delay, 0)]
        p = [float(expit(z)) if label[t] else float(expit(-z)) for z in (base[t], corrected[t])]
        plain -= math.log((1 - w) * p[0] + w * p[1])
        v = weights[-1]
        u = v * p[1] / ((1 - v) * p[0] + v * p[1])
        weights.append((1 - 1e-3) * u + 1e-3 / 2)
    assert plain - best > 5 * (loss(served, label) - best)
    assert gate.report()["rate"] < 1.0


def test_both_bounds_fall_a_row_against_an_adversary_of_the_delay():
    per_row = []
    for n in (2_000, 8_000, 32_000):
        gate, rng = Gate(), np.random.default_rng(2)
        base, corrected = np.full(n, -2.0, np.float32), np.full(n, 2.0, np.float32)
        label = labels("alternating with the delay", base, corrected, rng, 20)
        served = run(gate, base, corrected, label, 20, record=5)
        excess = loss(served, label) - min(loss(base, label), loss(corrected, label))
        assert excess <= gate.report()["bound"]
        per_row.append((gate.report()["bound"] / n, gate.report()["worst_case"] / n))
    assert per_row[0] > per_row[1] > per_row[2]
    assert per_row[2][1] < per_row[0][1] / 2


def test_the_gate_comes_back_from_corrections_that_turn_bad():
    base, corrected = np.zeros(4_000, np.float32), np.full(4_000, 1.0, np.float32)
    label = np.r_[np.ones(2_000), np.zeros(2_000)].astype(np.float32)
    gate = Gate()
    gate.serve(base[:2_000], corrected[:2_000], label[:2_000])
    assert gate.weight > 0.999
    gate.serve(base[2_000:2_050], corrected[2_000:2_050], label[2_000:2_050])
    assert gate.weight < 0.01


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 97), min_size=1, max_size=12))
def test_blocks_cut_anywhere_leave_the_same_bits(seed, sizes):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    base, corrected = experts("wild" if seed % 2 else "better", n, rng)
    label = labels("random", base, corrected, rng, 0)
    weight = rng.choice(np.float32([1.0, 1.0, 3.5]), n)
    position = np.sort(rng.integers(0, 5, n))
    served = (base + rng.normal(size=n)).astype(np.float32)
    whole, parts = Gate(), Gate()
    for gate in (whole, parts):
        gate.update(base[:9], corrected[:9], served[:9], label[:9], weight[:9], position[:9])
        gate.note(2)
    whole.update(base, corrected, served, label, weight, position)
    at = 0
    for size in sizes:
        rows = slice(at, at + size)
        parts.update(base[rows], corrected[rows], served[rows], label[rows], weight[rows], position[rows])
        at += size
        saved, parts = parts.state(), Gate()
        parts.load(saved)
    assert all(np.array_equal(whole.state()[name], parts.state()[name]) for name in whole.state())


def test_in_shadow_the_mixture_that_would_have_been_served_is_judged():
    rng = np.random.default_rng(3)
    base, corrected = experts("better", 500, rng)
    label = labels("true", base, corrected, rng, 0)
    shadow, live = Gate(), Gate()
    shadow.update(base, corrected, None, label, None, np.zeros(500, np.int64))
    live.update(base, corrected, mix(base, corrected, 0.5).astype(np.float32), label, None, np.zeros(500, np.int64))
    assert shadow.weight == live.weight
    assert shadow.report()["excess"] == pytest.approx(live.report()["excess"], abs=1e-3)


HOSTILE = {
    "infinite logits": (np.inf, 0.0, 0.0, 1.0),
    "a logit of the base just beyond the most": (np.nextafter(np.float32(BOUND), np.float32(99)), 30.0, 40.0, 0.0),
    "one that a float32 cannot correct": (-1e6, -1e6 + 30.0, -1e6 + 8.0, 1.0),
    "the largest one": (3.4e38, 0.0, 0.0, 0.0),
    "a NaN": (0.0, np.nan, 0.0, 1.0),
    "a label that is none": (0.0, 1.0, 0.5, 0.5),
}


@pytest.mark.parametrize(("b", "c", "s", "y"), HOSTILE.values(), ids=HOSTILE)
def test_a_row_that_cannot_be_judged_is_counted_and_changes_nothing(b, c, s, y):
    gate = Gate()
    row = [np.array([value], np.float32) for value in (b, c, s, y)]
    gate.update(*row, None, np.zeros(1, np.int64))
    assert (gate.report()["skipped"], gate.report()["examples"], gate.weight) == (1, 0, 0.5)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(width=32).filter(lambda b: not abs(b) <= BOUND), min_size=1))
def test_rows_that_cannot_be_judged_change_nothing_wherever_they_come(seed, absurd):
    rng, n = np.random.default_rng(seed), 60
    base, corrected = experts("better", n, rng)
    label, odd = labels("random", base, corrected, rng, 0), rng.random(n) < 0.4
    base[odd] = rng.choice(np.float32(absurd), odd.sum())
    corrected[odd] = base[odd] + np.float32(1)
    position, served = np.sort(rng.integers(0, 3, n)), np.where(odd, base, corrected)
    mixed, alone = Gate(), Gate()
    for gate, rows in ((mixed, np.full(n, True)), (alone, ~odd)):
        gate.note(1)
        gate.update(base[rows], corrected[rows], served[rows], label[rows], None, position[rows])
    states = [gate.state() for gate in (mixed, alone)]
    skipped = hedge.STATE.names.index("skipped")
    assert states[0]["state"][skipped] == odd.sum()
    states[0]["state"][skipped] = 0
    assert all(array.tobytes() == states[1][name].tobytes() for name, array in states[0].items())


def test_a_row_that_is_not_judged_costs_nothing_over_base_alone_as_losses_are_counted_everywhere():
    base = np.float32([56.01, 57, -56.01, -57, 3e38, -3e38]).repeat(2)
    corrected, label = base + np.tile(np.float32([-30, 30]), 6), np.tile(np.float32([0, 0, 1, 1]), 3)
    for y in (label, 1 - label):
        served = mix(base, corrected, 0.5)
        assert (LOG_LOSS.value(served, y) - LOG_LOSS.value(base, y)).max() <= 6e-12


@pytest.mark.parametrize("b", [-3.4e38, -BOUND, BOUND, 3.4e38])
@pytest.mark.parametrize("weight", [0.0, 1.0, 1e4])
def test_the_largest_logits_and_weights_leave_it_finite_and_in_bounds(b, weight):
    gate = Gate()
    base = np.full(200, b, np.float32)
    corrected = (base + np.float32(1e30) * np.tile(np.float32([1, -1]), 100)).astype(np.float32)
    label = np.tile(np.float32([1, 1, 0]), 67)[:200]
    gate.update(base, corrected, None, label, np.full(200, weight, np.float32), np.zeros(200, np.int64))
    assert np.isfinite(gate.state()["state"]).all()
    assert 0.0 < gate.weight < 1.0
    report = gate.report()
    assert report["excess"] <= report["bound"]
    assert report["skipped"] == (0 if abs(b) <= BOUND else 200)


def test_a_state_of_another_make_is_refused():
    for name, array in (("hedge", np.zeros(3)), ("state", np.zeros(3)), ("delays", np.zeros((1, 4))), ("delays", np.zeros(0))):
        with pytest.raises(Corrupt, match=f"'?{name}'? (is|are) float64"):
            Gate().load({**Gate().state(), name: array})


def test_what_is_noted_is_in_the_state_at_once_and_nothing_noted_is_lost():
    gate = Gate()
    gate.note(3)
    assert gate.state()["delays"][:, 0].tolist() == [-1, 3]
    gate.note(5)
    gate.note(8)
    gate.serve(*np.ones((3, 1), np.float32))
    gate.note(9)
    assert gate.state()["delays"][:, :2].tolist() == [[-1, 0], [3, 0], [5, 0], [8, 0], [9, 1]]
    gate.note(10)
    gate.load(Gate().state())
    gate.serve(*np.ones((3, 1), np.float32))
    assert gate.state()["delays"][:, 0].tolist() == [-1]


def test_a_forgotten_position_never_understates_a_delay():
    delays = Delays(capacity=64)
    for position in range(1, 1_000):
        delays.note(position, float(position), 0.0, 0.0, 0.5)
    assert delays.held <= 64
    positions = delays.rows["position"][: delays.held]
    assert positions[[0, -1]].tolist() == [-1, 999]
    assert (np.diff(positions) > 0).all()
    assert (delays.rows["examples"][: delays.held] == np.maximum(positions, 0)).all()


@pytest.mark.parametrize("better", ["base", "corrected"])
def test_a_gate_that_starts_over_serves_the_base_until_the_corrections_win_within_its_bound(better):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400).astype(np.float32)
    base, told = np.zeros(400, np.float32), np.where(label > 0, 2, -2).astype(np.float32)
    gate = Gate()
    gate.serve(base, told, label)
    gate.start_over()
    corrected = told if better == "corrected" else -told
    served = gate.serve(base, corrected, label)
    assert abs(served[0]) < 1e-4
    report = gate.report()
    assert report["examples"] == 400
    assert -1e-9 <= report["excess"] <= report["bound"] <= report["worst_case"] + 1e-6
    assert gate.weight > 0.99 if better == "corrected" else gate.weight < 0.01
    assert report["gain"] > -math.log(401) if better == "base" else report["gain"] > 100


@settings(max_examples=60)
@given(st.integers(1, 60), st.sampled_from([1.0, 0.3, 10.0, 100.0]), st.integers(0, 2**32 - 1))
def test_after_a_start_from_the_base_both_bounds_hold_for_every_weight(rows, weight, seed):
    rng = np.random.default_rng(seed)
    base, corrected = rng.choice(np.float32([-25, -3, 0, 3, 25]), (2, rows))
    gate = Gate()
    gate.start_over()
    gate.serve(base, corrected, rng.integers(0, 2, rows).astype(np.float32), np.full(rows, weight, np.float32))
    report = gate.report()
    rounding = 1e-5 * weight * rows
    assert report["excess"] <= report["bound"] + rounding
    assert report["bound"] <= report["worst_case"] + rounding
