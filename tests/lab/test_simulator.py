"""The simulated log has the truth that it states."""

import numpy as np

from riverdelta.core.losses import LOG_LOSS
from riverdelta.lab.simulator import Simulation


def test_the_same_seed_gives_the_same_log_and_another_another():
    a, b, c = (Simulation(rows=500, seed=s).generate() for s in (1, 1, 2))
    assert np.array_equal(a.stream.label, b.stream.label)
    assert all(np.array_equal(a.stream.columns[n], b.stream.columns[n]) for n in a.stream.columns)
    assert not np.array_equal(a.stream.label, c.stream.label)


def test_labels_follow_the_stated_truth():
    log = Simulation(rows=60_000, seed=3).generate()
    order = np.argsort(log.truth)
    for part in np.array_split(order, 10):
        assert abs(log.stream.label[part].mean() - log.truth[part].mean()) < 4 * np.sqrt(0.25 / len(part))
    known = LOG_LOSS.value(LOG_LOSS.link(log.truth), log.stream.label).mean()
    assert known < LOG_LOSS.value(LOG_LOSS.link(np.full(60_000, log.truth.mean())), log.stream.label).mean()


def test_lower_positions_are_examined_less():
    log = Simulation(rows=8_000, bias=0.5).generate()
    position = log.stream.columns["position"]
    by_position = [log.propensity[position == p].mean() for p in range(8)]
    assert by_position == sorted(by_position, reverse=True)
    assert by_position[0] == 1.0


def test_users_arrive_over_time():
    log = Simulation(rows=40_000, users=500, start=0.2).generate()
    user = log.stream.columns["user_id"]
    assert user[:4_000].max() < user[-4_000:].max()


def test_tastes_drift():
    still, moving = (Simulation(rows=20_000, users=20, drift=d, user=0.0, item=0.0, seed=5).generate() for d in (0.0, 0.3))

    def spread(log):
        user, item = log.stream.columns["user_id"], log.stream.columns["item_id"]
        cells = (user * 10_000 + item)[log.stream.columns["position"] == 0]
        truth = log.truth[log.stream.columns["position"] == 0]
        return max(np.ptp(truth[cells == c]) for c in np.unique(cells)[:200])

    assert spread(still) < 1e-9 < spread(moving)


def test_labels_come_later_than_their_rows_by_the_stated_mean():
    log = Simulation(rows=20_000, delay=30.0).generate()
    late = log.label_time - log.stream.time
    assert late.min() >= 0
    assert abs(late.mean() - 30.0) < 1.5
