"""Influence bounds: what one example, or any sequence of them, can do to the coefficients, whatever it holds.

Each law is stated beside the same attack without the bound, where it fails.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Linear, Schema
from riverdelta.core.errors import ConfigurationError
from riverdelta.corrections import limits

SCHEMA = Schema.of({"u": "int64", "h": "float32", "v": "float32[2]"})
CLIP, RADIUS, RATE = 10.0, 8.0, 0.1
#: Below it a mean of squares counts as it: (1e-12)².
LEAST = 1e-24
MAKE = {
    "calibration": lambda **terms: Calibration(**terms),
    "calibration that forgets": lambda **terms: Calibration(forget=0.9, **terms),
    "linear": lambda **terms: Linear("u", "h", "v", slots=8, rate=RATE, **terms),
    "linear by ftrl": lambda **terms: Linear("u", "h", "v", slots=8, method="ftrl", rate=RATE, **terms),
    "entity": lambda **terms: Entity("u", on=["h", "v"], slots=8, **terms),
    "entity that forgets": lambda **terms: Entity("u", on=["h", "v"], slots=8, forget=0.9, **terms),
}
ALL = pytest.mark.parametrize("name", MAKE)


def value(*sizes):
    edge = st.sampled_from([0.0, *(s * size for s in (-1, 1) for size in sizes)])
    return (edge | st.floats(-4, 4, width=32)).map(np.float32)


def row(any_value):
    label, weight = st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1e-30, 0.1, 1.0, 10.0, 1e6, 3e38])
    return st.tuples(st.integers(0, 2), any_value, any_value, st.tuples(any_value, any_value), label, weight)


ROW = row(value(1e-38, 1e-30, 1e-6, 1e3, 1e9, 1e18, 3e38))
ROWS = st.lists(ROW, min_size=1, max_size=30)
#: Without a radius coefficients grow until float32 cannot tell a step; these leave them small enough.
MILD_ROWS = st.lists(row(value(1e-3, 1e3, 1e6)), min_size=1, max_size=30)


def bound(name, **terms):
    made = MAKE[name](**terms)
    made.bind(SCHEMA)
    return made


def learn(c, user, offset, h, v, label, weight):
    columns = {"u": np.array([user]), "h": np.array([h], np.float32), "v": np.array([v], np.float32)}
    return c.learn(columns, *(np.float32(a) for a in ([[offset]], [label], [weight])))[0, 0]


def bits(c):
    return {k: a.tobytes() for k, a in [*((k, t.values) for k, t in c.served.items()), *c.learner.items()]}


def tails(c):
    """Σx² and the rows in which x is not 0, of each feature that is a float."""
    kept = c.learner
    if isinstance(c, Calibration):
        return kept["belief"][5:6].copy(), kept["belief"][6:7].copy()
    if isinstance(c, Linear):
        return kept["scale"][:, 1].copy(), kept["scale"][:, 2].copy()
    return kept["square"][1:].copy(), kept["present"].copy()


def typical(c):
    total, rows = tails(c)
    return np.maximum(total / np.maximum(rows, 1), LEAST)


def row_of(c, user):
    """The row of a user's coefficients: 0, which is zero, before its first example."""
    return c.served["rows"].values[int(c._hash(np.array([user]))[0]), 0]


def reach(c, user):
    """How far the coefficients are from the base, in logits: what `radius` bounds."""
    if isinstance(c, Calibration):
        b0, b1 = c.served["line"].values[0].astype(float)
        return math.hypot(b0, b1 * math.sqrt(typical(c)[0]))
    if isinstance(c, Linear):
        scaled = c.served["dense"].values[:, 0].astype(float) * c.learner["scale"][:, 0]
        return max(np.abs(c.served["ids"].values).max(), np.abs(scaled).max())
    one, h, v0, v1 = c.served["mean"].values[row_of(c, user)].astype(float)
    return math.sqrt(typical(c) @ np.array([one**2, h**2, v0**2 + v1**2]))


@ALL
@settings(max_examples=60)
@given(rows=ROWS)
def test_no_sequence_of_examples_takes_coefficients_out_of_the_ball(name, rows):
    c = bound(name)
    for row in rows:
        learn(c, *row)
        # A row of weight 0 updates nothing; others may have changed what is typical since.
        assert row[5] == 0 or reach(c, row[0]) <= RADIUS * 1.001
        assert all(np.isfinite(t.values).all() for t in c.served.values())


def hammer(c, times=400):
    """One label again and again on a row of which the base is sure that it is the other."""
    for k in range(times):
        learn(c, 1, -60.0 - k % 2, 1.0, (1.0, 0.5), 1, CLIP)
    return reach(c, 1)


@ALL
def test_without_a_radius_hammering_takes_them_out(name):
    assert hammer(bound(name)) <= RADIUS * 1.001
    assert hammer(bound(name, radius=2.5)) <= 2.5 * 1.001
    free = bound(name, radius=math.inf)
    # AdaGrad's own steps shrink: an id moves by 0.1·2√k in k rows.
    assert hammer(free, 4_000) > RADIUS


@ALL
@settings(max_examples=40)
@given(rows=ROWS, last=ROW, times=st.sampled_from([1.001, 3.0, 1e6, 1e30]))
def test_an_example_of_any_weight_does_what_one_of_the_clipped_weight_does(name, rows, last, times):
    one, other = bound(name), bound(name)
    for row in rows:
        learn(one, *row)
        learn(other, *row)
    user, offset, h, v, label, _ = last
    columns = {"u": np.array([user]), "h": np.array([h]), "v": np.array([v], np.float32)}
    z = float(one.predict(columns, np.array([[offset]]))[0, 0])
    error = abs(label - (1 / (1 + math.exp(-z)) if z > -700 else 0.0))
    clipped = CLIP / error * 1.001 if error else math.inf
    if not clipped * times < 3e38:
        return
    learn(one, user, offset, h, v, label, clipped)
    learn(other, user, offset, h, v, label, clipped * times)
    assert bits(one) == bits(other)


def limited(c, *numbers):
    """Numbers as they count before the next example."""
    return limits.limited(np.array([numbers], np.float32), c.served["limit"])[0].astype(float)


def moved(c, row):
    """How far one example moves each coefficient, and the furthest that its docstring allows."""
    user, offset, h, v, _, _ = row
    if isinstance(c, Calibration):
        before, o = c.learner["belief"][:2].copy(), float(limits.counted(np.float32(offset), np.float32(c.loss.reach)))
        learn(c, *row)
        a, b, d = c.learner["belief"][2:5]
        det = a * d - b * b
        step = np.abs([d - b * o, a * o - b]) / det if det > 0 else np.zeros(2)
        return np.abs(c.learner["belief"][:2] - before), CLIP * step
    if isinstance(c, Linear):
        ids, dense = (c.served[k].values[:, 0].astype(float) for k in ("ids", "dense"))
        scale = c.learner["scale"][:, 0].copy()
        learn(c, *row)
        now = np.maximum(c.learner["scale"][:, 0], 1e-300)
        # A new largest |x| shrinks the coefficient first, or has it start anew.
        kept = np.where(np.maximum(scale, now) < 8 * np.minimum(scale, now), np.minimum(scale / now, 1.0) ** 2, 0.0)
        off = c.served["dense"].values[:, 0] - dense * kept
        return np.abs(np.r_[c.served["ids"].values[:, 0] - ids, off * now]), RATE
    before, x = c.served["mean"].values[row_of(c, user)].astype(float), np.abs(limited(c, 1.0, h, *v))
    x[2:] *= min(1.0, float(c.served["limit"].values[0, 2]) / max(math.hypot(*x[2:]), 1e-30))
    sizes = c.learner["sizes"].copy()
    learn(c, *row)
    # A feature whose typical size has changed is bounded anew, or forgotten.
    slot = row_of(c, user)
    before = np.where(((sizes == 0) | (c.learner["sizes"] == sizes))[[0, 1, 2, 2]], before, c.served["mean"].values[slot])
    return np.abs(c.served["mean"].values[slot] - before), CLIP * x / c.learner["precision"][slot]


@ALL
@settings(max_examples=80)
@given(rows=MILD_ROWS)
def test_one_example_moves_no_coefficient_further_than_the_clipped_gradient_takes_it(name, rows):
    c = bound(name, radius=math.inf)
    for row in (row for row in rows if row[5]):
        far, limit = moved(c, row)
        assert (far <= np.asarray(limit) * 1.001 + 1e-6 * (far.max() + 1)).all()


SURE = (1, -30.0, 1.0, (1.0, 0.5), 1, 1e4)


@pytest.mark.parametrize("name", ["calibration", "entity"])
def test_without_a_clip_one_heavy_example_moves_them_further(name):
    far, limit = moved(bound(name, radius=math.inf), SURE)
    assert (far <= limit * 1.001).all()
    far, limit = moved(bound(name, radius=math.inf, clip=math.inf), SURE)
    assert (far > 100 * limit).all()


@pytest.mark.parametrize("name", ["linear", "linear by ftrl"])
def test_without_a_clip_one_heavy_example_stops_a_linear_model_from_learning(name):
    """Its step is never longer than `rate`; what a huge gradient does is to make every later step short."""
    left = {}
    for clip in (CLIP, math.inf):
        c = bound(name, clip=clip)
        learn(c, *SURE)
        slot, start = c.served["ids"].values.argmax(), c.served["ids"].values.max()
        for _ in range(200):
            learn(c, 1, 3.0, 0.0, (0.0, 0.0), 0, 1)
        left[clip] = float(start - c.served["ids"].values[slot, 0])
    assert left[CLIP] > 0.3
    assert left[math.inf] < 0.01


@ALL
@settings(max_examples=60)
@given(rows=ROWS)
def test_one_example_adds_to_what_is_typical_no_more_than_sixteen_typical_ones_unless_most_before_were_like_it(name, rows):
    c = bound(name)
    for row in rows:
        total, seen = tails(c)
        most, since = (c.learner["window"][:, k].copy() if "window" in c.learner else c.loss.reach**2 for k in (1, 2))
        learn(c, *row)
        grown = tails(c)[0] - total
        tested = c.learner["window"][:, 2] > since if "window" in c.learner else False
        assert (grown <= np.where((seen > 0) & ~tested, 1.001 * most + 1e-9 * total, np.inf)).all()


@ALL
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_whose_logit_weight_or_label_is_not_finite_leaves_the_state_alone(name, bad):
    for at in (1, 5, 4):
        for warm in (0, 20):
            c = bound(name)
            for k in range(warm):
                learn(c, k % 3, 0.3, 1.0, (0.5, -1.0), k % 2, 1.0)
            before = bits(c)
            row = [0, 0.3, 1.0, (0.5, -1.0), 1.0, 1.0]
            row[at] = bad
            logit = learn(c, *row)
            assert bits(c) == before
            assert at != 1 or not np.isfinite(logit)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["linear", "linear by ftrl", "entity"])
def test_a_feature_that_is_not_finite_leaves_the_state_alone(name, bad):
    c = bound(name)
    for warm in (0, 20):
        for k in range(warm):
            learn(c, k % 3, 0.3, 1.0, (0.5, -1.0), k % 2, 1.0)
        before = bits(c)
        learn(c, 0, 0.3, bad, (0.5, -1.0), 1.0, 1.0)
        learn(c, 0, 0.3, 1.0, (0.5, bad), 1.0, 1.0)
        assert bits(c) == before


@ALL
@pytest.mark.parametrize("argument", ["clip", "radius"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, None, "8"])
def test_a_bound_that_is_none_is_refused_by_name(name, argument, value):
    with pytest.raises(ConfigurationError, match=f"{argument} is .* or float\\('inf'\\) for no bound"):
        MAKE[name](**{argument: value})
