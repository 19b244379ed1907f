"""History: bounded, and the same however it comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.evaluation.history import GRAIN, POINTS, History, parts_of


def stream(rows, seed=0, gain=0.5):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=rows).astype(np.float32)
    truth = base + gain * rng.normal(size=rows).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return base, truth, label, np.ones(rows, np.float32), np.arange(rows, dtype=np.float64)


def same(one, other):
    mine, theirs = one.state(), other.state()
    return mine.keys() == theirs.keys() and all(mine[k].tobytes() == theirs[k].tobytes() for k in mine)


def test_a_long_stream_keeps_its_shape_in_a_bounded_number_of_points():
    history, rows = History(), 5 * POINTS * GRAIN + 6 * GRAIN
    arrays = stream(rows)
    history.update(*arrays)
    report = history.report()
    ends, base = report["examples"], np.array(report["base"])
    assert POINTS / 2 <= len(ends) <= POINTS
    assert ends[-1] == rows
    sizes = np.diff([0, *ends])
    assert len(set(sizes[:-1].tolist())) == 1
    z, y = arrays[0].astype(np.float64), arrays[2]
    assert np.isclose((base * sizes).sum() / ends[-1], np.mean(np.logaddexp(0, z) - y * z), atol=1e-5)
    assert report["time"] == [n - 1 for n in ends]


def test_a_last_point_of_few_rows_waits_until_it_is_half_full():
    history = History()
    history.update(*stream(GRAIN + GRAIN // 2 - 1))
    assert history.report()["examples"] == [GRAIN]
    history.update(*stream(1))
    assert history.report()["examples"] == [GRAIN, GRAIN + GRAIN // 2]


def test_a_row_that_is_taken_back_leaves_the_mean_of_the_others():
    history = History()
    label, weight = np.zeros(GRAIN, np.float32), np.ones(GRAIN, np.float32)
    base = np.zeros(GRAIN, np.float32)
    base[[3, 4]], weight[4] = 5.0, -1.0
    history.update(base, base, label, weight, np.zeros(GRAIN))
    assert history.report()["base"] == [round(float(np.log(2)), 5)]


def test_what_is_not_finite_is_left_out_and_weights_that_cancel_make_no_loss():
    history = History()
    zeros = np.zeros(GRAIN + 3)
    bad = zeros.copy()
    bad[:3] = np.nan, np.inf, -np.inf
    history.update(bad, zeros, zeros, np.tile([1.0, -1.0], GRAIN)[: GRAIN + 3][::-1].copy(), zeros)
    report = history.report()
    assert report["examples"] == [GRAIN]
    assert report["base"] == [None]


def test_one_that_saved_nothing_begins_anew_and_a_broken_one_is_refused():
    history = History()
    history.update(*stream(1_000))
    good = history.state()
    history.load({})
    assert same(history, History())
    for name, wrong in (("points", np.zeros(3)), ("counts", np.array([0, 4, 4])), ("counts", np.array([POINTS, 0, 4]))):
        with pytest.raises(Corrupt):
            History().load({**good, name: wrong})


TIMES = st.lists(st.integers(0, 10_000).map(float), min_size=2, max_size=60).map(sorted)


@given(TIMES, st.integers(1, 1_000))
def test_the_parts_of_a_line_are_in_order_with_a_gap_of_three_columns_or_more_between_them(times, column):
    parts = parts_of([(time, time) for time in times], column)
    flat = [time for part in parts for time, _ in part]
    assert flat == sorted(flat)
    assert all(time == pytest.approx(value) for part in parts for time, value in part)
    assert times[0] <= flat[0] <= flat[-1] <= times[-1]
    assert len(parts) - 1 <= sum(later - earlier > 3 * column for earlier, later in zip(times, times[1:], strict=False))


def test_a_steady_stream_is_one_part_however_slow_and_bursts_are_one_point_each():
    steady = [(600.0 * i, 0.5) for i in range(12)]
    assert parts_of(steady, 60.0) == [steady]
    bursts = [(3_600.0 * i + j, float(j)) for i in range(3) for j in range(4)]
    assert parts_of(bursts, 60.0) == [[(3_600.0 * i + 1.5, 1.5)] for i in range(3)]
    assert parts_of(bursts[:1], 60.0) == [bursts[:1]]
