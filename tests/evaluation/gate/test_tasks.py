"""The gate's bound for every loss: lists, classes, squares and rates, whatever labels, weights, delays and units are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.checks import Part, check
from riverdelta.core.losses import LOG_LOSS, Count, Multiclass, Ranking, Regression
from riverdelta.evaluation.gate import Gate, hedge

SQUARED, RANGED, COUNT = Regression(), Regression((-3, 3)), Count()
MULTICLASS, RANKING = Multiclass(["a", "b", "c"]), Ranking(grades=4)
LOSSES = {
    "binary": LOG_LOSS,
    "multiclass": MULTICLASS,
    "ranking": RANKING,
    "squared": SQUARED,
    "ranged": RANGED,
    "count": COUNT,
}
KINDS = ("drawn", "alternating", "turned at the worst moment")
#: The rows of a list, and how many of them are clicked.
SIZE, CLICKS = 5, 2


def stream(loss, kind, examples, seed=0, scale=1.0):
    """Return base, corrected, label, weight float32 and group of a stream: labels are drawn or favour an output."""
    rng = np.random.default_rng(seed)
    size = SIZE if loss.lists else 1
    rows, group = examples * size, np.repeat(np.arange(examples), size)
    turn = np.arange(examples) // 20 % 2 == 0 if kind == "alternating" else np.arange(examples) < examples // 2
    favours = rng.random(examples) < 0.5 if kind == "drawn" else turn
    base = rng.normal(size=(rows, loss.outputs))
    corrected = base + rng.choice([0.3, 1.0, 3.0]) * rng.normal(size=(rows, loss.outputs))
    towards = (corrected - base) * np.repeat(np.where(favours, 1, -1), size)[:, None]
    weight = rng.choice([1.0, 1.0, 7.0, 0.1], rows)
    if loss.lists:
        clicked = towards.reshape(examples, size).argsort(1).argsort(1) >= size - CLICKS
        label, weight = (
            (clicked * rng.choice([1.0, 1.0, 3.0], (examples, size))).ravel(),
            1 / rng.choice([1.0, 0.5, 0.2, 0.01], rows),
        )
    elif loss.labels is not None:
        label = towards.argmax(1) if loss.outputs > 1 else towards[:, 0] > 0
    else:
        label = (base + corrected)[:, 0] / 2 + towards[:, 0] * rng.exponential(2.0, rows)
        if loss is COUNT:
            label = np.rint(np.exp(np.clip(label, -5, 3)))
        elif loss.label_range:
            base, corrected, label = (np.clip(one, -3.0, 3.0) for one in (base, corrected, label))
        base, corrected, label = (scale * one for one in (base, corrected, label))
    return *(np.asarray(one, np.float32) for one in (base, corrected, label, weight)), group


def cost(loss, raw, label, weight, group):
    return float((weight.astype(float) * loss.value(raw, label, group)).sum())


def run(gate, columns, delay, back=0, shown=None):
    """Serve each example with the weight of `delay` examples before, in records of 7; return the excess of what was served.

    Every `back`-th record is taken back after it was learned. Of each list only the rows `shown` bool[N] are labelled.
    """
    loss, (base, corrected, label, _, group) = gate.loss, columns
    starts = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(group))
    weights, total, shown = [0.5], np.zeros(3), np.ones(len(label), bool) if shown is None else shown
    for record, first in enumerate(range(0, len(starts) - 1, 7)):
        lists = np.arange(first, min(first + 7, len(starts) - 1))
        position = np.minimum(np.maximum(lists - delay, 0) // 7, record)
        rows = slice(starts[first], starts[lists[-1] + 1])
        served = np.concatenate([
            loss.mix(base[a:b], corrected[a:b], weights[p])
            for a, b, p in zip(starts[lists], starts[lists + 1], position, strict=True)
        ]).astype(np.float32)  # fmt: skip
        position = np.repeat(position, np.diff(starts[first : lists[-1] + 2]))[shown[rows]]
        b, c, y, w, of = (one[rows][shown[rows]] for one in columns)
        z = served[shown[rows]]
        for sign in (1, -1) if back and record % back == 0 else (1,):
            gate.update(b, c, z, y, sign * w, position, of)
            total += [sign * cost(loss, raw, y, w, of) for raw in (z, b, c)]
        gate.note(record + 1)
        weights.append(float(np.float32(gate.weight)))
    return total[0] - total[1:].min()


def holds(gate, excess, size):
    """Assert that the excess is within both bounds, to the rounding of float32 outputs and of sums of this size."""
    report = gate.report()
    assert report["excess"] == pytest.approx(excess, abs=1e-5 * size)
    assert excess <= report["bound"] + 1e-9 * size
    assert report["bound"] <= report["worst_case"] + 1e-5 * size
    return report


@pytest.mark.parametrize("back", [0, 3])
@pytest.mark.parametrize("delay", [0, 1, 40])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_for_every_loss_the_excess_is_within_both_bounds_however_late_labels_come_or_are_taken_back(loss, kind, delay, back):
    gate, columns = Gate(loss), stream(loss, kind, 350)
    excess = run(gate, columns, delay, back)
    holds(gate, excess, float(np.abs(columns[3]).sum()) * 10)
    assert gate.report()["skipped"] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [LOG_LOSS, MULTICLASS, RANKING], ids=lambda loss: type(loss).__name__)
def test_with_labels_at_once_a_mixable_rate_gives_the_bound_of_the_largest_total_weight(loss, kind):
    gate, (base, corrected, label, weight, group) = Gate(loss), stream(loss, kind, 300)
    served = gate.serve(base, corrected, label, weight, group)
    costs = [cost(loss, raw.reshape(base.shape), label, weight, group) for raw in (served, base, corrected)]
    total = np.bincount(group, label * weight).max() if loss.lists else weight.max()
    theorem = math.log(2) + total * math.log(301) + (total - 1) * math.log(2 * 301)
    report = gate.report()
    assert costs[0] - min(costs[1:]) <= report["bound"] <= theorem + 1e-5 * weight.sum()
    assert report["rate"] == pytest.approx(1 / total)


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_of_labels_ends_the_fall_of_the_rate_and_with_labels_at_once_the_worst_case_grows_as_a_logarithm(kind):
    worst, weight_of_all = {}, 7.0 * 6.0**2  # the largest weight times the square of the range
    for examples in (300, 3_000):
        gate, columns = Gate(RANGED), stream(RANGED, kind, examples)
        base, corrected, label, weight, group = columns
        served = gate.serve(base, corrected, label, weight, group)
        costs = [cost(RANGED, raw.reshape(base.shape), label, weight, group) for raw in (served, base, corrected)]
        report = gate.report()
        assert costs[0] - min(costs[1:]) <= report["bound"] <= report["worst_case"]
        # The spread is within half of it: X <= (16 + 2 / 2) of it.
        worst[examples] = weight_of_all * (17 + 17 / 16 * (math.log(examples + 1) + math.log(2 * (examples + 1))))
        assert report["worst_case"] <= worst[examples] + 1e-4 * weight.sum()
    assert worst[3_000] < 1.2 * worst[300]


def test_a_wide_range_of_labels_does_not_make_the_gate_slow():
    rng, n = np.random.default_rng(9), 100
    label = (5_000 + rng.normal(0, 30, n)).astype(np.float32)
    base, corrected = (label + rng.normal(0, error, n).astype(np.float32) for error in (20, 10))
    for loss in (Regression(), Regression((0, 10_000))):
        gate = Gate(loss)
        gate.serve(base, corrected, label)
        assert gate.weight > 0.9


@pytest.mark.parametrize(("clicks", "propensity", "excess"), [(2, 1.0, 30), (1, 0.2, 100)])
def test_a_list_of_more_than_unit_weight_breaks_the_rate_of_1_and_is_within_the_bound_of_its_total(clicks, propensity, excess):
    n, size = 400, 4
    base, corrected = np.tile(np.float32([1, 1, 0, 0]), n), np.tile(np.float32([0, 0, 1, 1]), n)
    group, turn = np.repeat(np.arange(n), size), np.repeat(np.arange(n) % 2, size).astype(bool)
    better = np.where(turn, corrected, base) == 1
    label = (better & (np.tile([0, 1, 0, 1], n) < clicks)).astype(np.float32)
    weight = np.full(n * size, 1 / propensity, np.float32)
    gate = Gate(RANKING)
    served = gate.serve(base, corrected, label, weight, group)
    costs = [cost(RANKING, raw, label, weight, group) for raw in (served, base, corrected)]
    assert costs[0] - min(costs[1:]) <= gate.report()["bound"]
    assert gate.report()["rate"] == pytest.approx(propensity / clicks)
    # The mixture of rate 1, which loses ln 2 at most where every list has the weight 1.
    odds, plain = 0.0, 0.0
    for t in range(n):
        rows = slice(t * size, (t + 1) * size)
        one = [raw[rows] for raw in (base, corrected)]
        plain += cost(RANKING, RANKING.mix(*one, 1 / (1 + math.exp(-odds))), label[rows], weight[rows], None)
        odds += cost(RANKING, one[0], label[rows], weight[rows], None) - cost(RANKING, one[1], label[rows], weight[rows], None)
    assert plain - min(costs[1:]) > excess


@pytest.mark.parametrize("delay", [0, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_of_lists_shown_in_part_the_excess_is_within_both_bounds(kind, delay):
    gate, columns = Gate(RANKING), stream(RANKING, kind, 300)
    shown = np.random.default_rng(3).random(len(columns[0])) < 0.6
    shown[::SIZE] = True
    holds(gate, run(gate, columns, delay, shown=shown), 1_000)
    assert gate.report()["examples"] == 300


def test_of_lists_shown_in_full_nothing_is_added_to_the_worst_case():
    gates = [Gate(RANKING), Gate(RANKING)]
    columns = stream(RANKING, "alternating", 200)
    for gate, shown in zip(gates, (None, np.arange(1_000) % SIZE != 3), strict=True):
        run(gate, columns, 0, shown=shown)
    lasting = [gate.state()["state"][hedge.STATE.names.index("far_spread")] * hedge.FAR_COST for gate in gates]
    assert lasting[0] < 1e-4 * columns[3].sum() / 100 < lasting[1]


def test_a_list_is_one_example_and_one_bad_row_leaves_it_out():
    gate, (base, corrected, label, weight, group) = Gate(RANKING), stream(RANKING, "drawn", 10)
    corrected[7] = np.nan
    gate.serve(base, corrected, label, weight, group)
    assert (gate.report()["examples"], gate.report()["skipped"]) == (9, SIZE)
    good = group != 1
    alone = Gate(RANKING)
    alone.serve(base[good], corrected[good], label[good], weight[good], group[good])
    assert alone.weight == gate.weight


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_blocks_cut_between_examples_leave_the_same_bits_and_saved_gates_continue(loss):
    columns = stream(loss, "alternating", 120)
    ends = np.append(np.flatnonzero(np.diff(columns[4], prepend=-1)), len(columns[4]))

    def feed(gate, start, stop):
        base, corrected, label, weight, group = (one[ends[start] : ends[stop]] for one in columns)
        gate.update(base, corrected, None, label, weight, np.empty(0, np.int64), group)

    check(Part(lambda: Gate(loss), feed, 120))


@pytest.mark.parametrize("delay", [0, 15])
@pytest.mark.parametrize(
    "of", [lambda scale: SQUARED, lambda scale: Regression((-3 * scale, 3 * scale))], ids=["squared", "ranged"]
)
def test_outputs_and_labels_a_thousand_times_larger_leave_every_weight_as_it_is(of, delay):
    weights, sizes = [], []
    for scale in (1.0, 1_000.0):
        gate = Gate(of(scale))
        run(gate, stream(gate.loss, "alternating", 300, scale=scale), delay)
        weights.append(gate.weight)
        sizes.append([gate.report()[name] / scale**2 for name in ("bound", "worst_case", "excess", "spread")])
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


def test_values_outside_the_range_of_labels_have_no_mixable_rate_and_both_bounds_hold():
    for seed in range(5):
        gate, columns = Gate(RANGED), stream(RANGED, "alternating", 200, seed)
        columns[1][::3] *= 10
        holds(gate, run(gate, columns, 0), 1_000)


@pytest.mark.parametrize("at", [0, 1, 200])
def test_one_label_in_the_wrong_unit_costs_what_it_costs_and_does_not_stop_the_gate(at):
    rng, n = np.random.default_rng(4), 600
    label = rng.normal(size=n).astype(np.float32)
    base, corrected = label + rng.normal(0, 1, n).astype(np.float32), label + rng.normal(0, 0.3, n).astype(np.float32)
    label[at] = 1e6
    gate, ones = Gate(SQUARED), np.ones(n, np.float32)
    served = gate.serve(base, corrected, label)
    costs = [cost(SQUARED, raw, label, ones, None) for raw in (served, base, corrected)]
    assert costs[0] - min(costs[1:]) <= gate.report()["bound"] + 1e-6 * max(costs)
    assert gate.weight > 0.9


def test_squares_follow_the_better_expert_at_once_and_leave_it_when_it_turns_bad():
    rng, n = np.random.default_rng(5), 800
    label = rng.normal(size=n)
    near, far = label + rng.normal(0, 0.2, n), label + rng.normal(0, 1.0, n)
    base, corrected = np.r_[far[:400], near[400:]].astype(np.float32), np.r_[near[:400], far[400:]].astype(np.float32)
    gate, label = Gate(SQUARED), label.astype(np.float32)
    gate.serve(base[:400], corrected[:400], label[:400])
    assert gate.weight > 0.99
    gate.serve(base[400:500], corrected[400:500], label[400:500])
    assert gate.weight < 0.05


def test_before_mixing_costs_anything_the_rate_is_unlimited():
    gate = Gate(SQUARED)
    assert (gate.report()["rate"], gate.report()["bound"], gate.report()["worst_case"]) == (
        None,
        pytest.approx(0),
        pytest.approx(0),
    )
    same = np.ones(50, np.float32)
    gate.serve(same, same, 3 * same)
    assert (gate.report()["rate"], gate.weight, gate.report()["bound"]) == (None, 0.5, pytest.approx(0))


NUMBERS = st.one_of(st.floats(-5, 5, width=32), st.sampled_from([0.0, 1e3, -1e3, 1e6]))
WEIGHTS = st.sampled_from([1.0, 1.0, 0.1, 50.0, -1.0, 0.0])
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, WEIGHTS, st.integers(0, 9)), min_size=1, max_size=60)


@settings(max_examples=60)
@given(ROWS, st.sampled_from(["squared", "ranged", "count", "ranking", "multiclass"]), st.integers(1, 5))
def test_whatever_outputs_labels_weights_and_delays_are_both_bounds_hold(rows, name, size):
    loss, table = LOSSES[name], np.array(rows)
    n = len(table)
    base, residual = (np.repeat(table[:, k : k + 1], loss.outputs, 1) * np.arange(1, loss.outputs + 1) for k in (0, 1))
    label, weight, lag = table[:, 2], table[:, 3], table[:, 4].astype(int)
    corrected, group = base + residual, np.arange(n) // size if loss.lists else np.arange(n)
    if name == "ranged":
        base, corrected, label = (np.clip(one, -3, 3) for one in (base, corrected, label))
    elif name == "count":
        base, corrected, label = np.clip(base, -9, 9), np.clip(corrected, -9, 9), np.abs(np.rint(label))
    elif loss.lists:
        base, corrected, label = np.clip(base, -14, 14), np.clip(corrected, -14, 14), np.clip(np.rint(np.abs(label)), 0, 4)
    elif loss.labels is not None:
        base, corrected, label = np.clip(base, -9, 9), np.clip(corrected, -20, 20), np.abs(label).astype(int) % loss.outputs
    base, corrected, label, weight = (np.asarray(one, np.float32) for one in (base, corrected, label, weight))
    gate, weights, total, size_of_all = Gate(loss), [0.5], np.zeros(3), 1.0
    for number, of in enumerate(np.unique(group), 1):
        r = group == of
        position = max(number - 1 - int(lag[r][0]), 0)
        served = loss.mix(base[r], corrected[r], weights[position]).astype(np.float32)
        gate.update(base[r], corrected[r], served, label[r], weight[r], np.full(r.sum(), position), group[r])
        costs = [cost(loss, raw, label[r], weight[r], None) for raw in (served, base[r], corrected[r])]
        total += costs
        size_of_all += sum(abs(cost(loss, raw, label[r], np.abs(weight[r]), None)) for raw in (served, base[r], corrected[r]))
        gate.note(number)
        weights.append(float(np.float32(gate.weight)))
        report = gate.report()
        assert total[0] - total[1:].min() <= report["bound"] + 1e-9 * size_of_all
        assert report["bound"] <= report["worst_case"] + 1e-5 * size_of_all


@pytest.mark.parametrize("far", [-1e3, -1e9])
@pytest.mark.parametrize("loss", [MULTICLASS, RANKING], ids=["multiclass", "ranking"])
def test_a_class_or_a_row_that_the_base_rules_out_leaves_the_bound_as_it_is(loss, far):
    rng, n, size = np.random.default_rng(6), 400, 3
    base = rng.normal(size=(n, size)).astype(np.float32)
    base[:, 2] = far
    right = rng.integers(0, 2, n)
    wrong = base + np.float32(3) * (np.arange(size) == 1 - right[:, None])
    label, group = right.astype(np.float32), np.arange(n)
    if loss.lists:
        label, group = np.float32(np.arange(size) == right[:, None]).ravel(), np.repeat(group, size)
    base, wrong = (one.reshape(len(label), loss.outputs) for one in (base, wrong))
    gate, ones = Gate(loss), np.ones(len(label))
    served = gate.serve(base, wrong, label, None, group)
    assert (gate.report()["examples"], gate.report()["skipped"]) == (n, 0)
    costs = [cost(loss, raw, label, ones, group) for raw in (served, base)]
    assert costs[0] - costs[1] <= gate.report()["bound"] < 10
    label[-size:] = np.float32([0, 0, 1] if loss.lists else [2, 2, 2])
    gate = Gate(loss)
    gate.serve(base, wrong, label, None, group)
    # A score may be of any size, a logit is a log probability.
    assert gate.report()["skipped"] == (0 if loss.lists and far > -1e4 else size)


@pytest.mark.parametrize("size", [1.0, 100.0, 1_000.0])
def test_of_a_base_whose_scores_are_far_apart_the_gate_follows_what_ranks_better(size):
    rng, n, rows = np.random.default_rng(8), 300, 6
    base = size * rng.normal(size=(n, rows)).astype(np.float32)
    clicked = np.arange(rows) == rng.integers(0, rows, n)[:, None]
    corrected = base + np.float32(3) * clicked
    gate, group = Gate(RANKING), np.repeat(np.arange(n), rows)
    gate.serve(base.reshape(-1, 1), corrected.reshape(-1, 1), clicked.ravel().astype(np.float32), None, group)
    assert (gate.report()["examples"], gate.report()["skipped"]) == (n, 0)
    assert gate.weight > 0.9
