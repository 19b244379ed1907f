"""Worth: an interval that covers what it is about, of the tables that serve now and of no others."""

from dataclasses import replace

import numpy as np
import pytest

from riverdelta.core.arrays import of_json
from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.evaluation.worth import Worth

SINCE = {"action": "rollback", "release": 1, "position": 50, "time": 60.0}


def stream(rows, seed=0, gain=0.5):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=rows).astype(np.float32)
    truth = base + gain * rng.normal(size=rows).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return base, truth, label, np.ones(rows, np.float32)


def examples(rows, position, seed=0, gain=1.5):
    base, served, label, ones = stream(rows, seed, gain)
    times, whole = np.zeros(rows), np.ones(rows, np.int64)
    return Examples(
        columns={}, base=base, corrected=served, served=served, label=label, weight=ones, received=times, scored=times,
        importance=ones, taken_back=np.zeros(rows, np.float32), position=np.full(rows, position), source=whole,
        sent=ones, event=times * np.nan,
    )  # fmt: skip


@pytest.mark.parametrize(("gain", "covered"), [(0.0, 0.0), (1.5, None)])
def test_the_interval_covers_the_mean_gain_and_tells_a_gain_from_none(gain, covered):
    worth = Worth()
    worth.update(*stream(20_000, 1, gain))
    d = worth.report()["gain"]
    assert d["lower"] < d["mean"] < d["upper"]
    assert d["lower"] <= covered <= d["upper"] if covered is not None else d["lower"] > 0


def test_it_begins_again_where_other_tables_take_over_and_late_labels_of_the_former_do_not_count():
    worth = Worth()
    worth.observe(examples(2_000, position=10))
    assert worth.report()["labels"] == 2_000
    worth.begin(SINCE)
    worth.observe(examples(500, position=49, seed=1))
    report = worth.report()
    assert (report["labels"], report["gain"]["lower"], report["served"]["loss"]) == (0, None, None)
    worth.observe(examples(300, position=50, seed=2))
    only = Worth()
    only.observe(examples(300, position=50, seed=2))
    assert worth.report() == only.report() | {"since": SINCE}


def test_a_late_positive_of_former_tables_takes_nothing_back():
    late = replace(examples(4, position=10), taken_back=np.ones(4, np.float32), label=np.ones(4, np.float32))
    worth = Worth()
    worth.begin(SINCE)
    worth.observe(late)
    assert worth.report()["labels"] == 0
    worth.observe(replace(late, position=np.full(4, 60)))
    assert worth.report()["labels"] == 8


def test_in_shadow_mode_the_corrections_are_measured_though_the_base_is_served():
    given = examples(1_000, position=0)
    shadowed, served = Worth(shadow=True), Worth()
    shadowed.observe(replace(given, served=given.base))
    served.observe(given)
    assert shadowed.report() == served.report()


def test_it_goes_on_from_what_it_saved_and_begins_anew_where_that_is_nothing():
    worth, again = Worth(), Worth()
    worth.begin(SINCE)
    worth.observe(examples(700, position=70))
    again.load(worth.state())
    for each in (worth, again):
        each.observe(examples(300, position=80, seed=3))
    assert again.report() == worth.report()
    again.load({})
    assert again.report() == Worth().report()


@pytest.mark.parametrize("since", [[], 3, {}, {"position": "x"}])
def test_a_broken_one_is_refused(since):
    with pytest.raises(Corrupt):
        Worth().load(Worth().state() | {"since": of_json(since)})
