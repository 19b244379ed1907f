"""Drift: silent on what stays, soon on what changes and right about what it was, and the same however it is cut."""

import numpy as np
import pytest

from riverdelta import Schema
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.evaluation.drift import Drift

KINDS = {"user_id": "int64", "price": "float32", "vector": "float32[2]"}
SCHEMA = Schema.of(KINDS)
REFERENCE = 1_024


def stream(rows, seed=0, shift=0.0, harder=0.0, louder=0.0, users=500):
    """Rows whose price decides the label; `harder` blurs the labels, `louder` moves the scores off them."""
    rng = np.random.default_rng(seed)
    price = rng.normal(shift, 1.0, rows).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-price * (1 - harder)))).astype(np.float32)
    columns = {
        "user_id": rng.integers(0, users, rows),
        "price": price,
        "vector": rng.normal(0, 1, (rows, 2)).astype(np.float32),
    }
    return columns, price, price + np.float32(louder), label


def fed(drift, rows, block=777):
    columns, *rest = rows
    alarms = []
    for at in range(0, len(rest[0]), block):
        cut = slice(at, at + block)
        alarms += drift.update({name: column[cut] for name, column in columns.items()}, *(part[cut] for part in rest))
    return alarms


def bits(drift):
    return {name: array.tobytes() for name, array in drift.state().items()}


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_as_it_is_raises_no_alarm(seed):
    assert fed(Drift(SCHEMA, REFERENCE), stream(100_000, seed)) == []


@pytest.mark.parametrize(
    ("change", "quantities"),
    [
        ({"shift": 1.5}, {"price", "score"}),
        ({"harder": 0.9}, {"loss", "calibration"}),
        ({"louder": 1.5}, {"calibration", "loss"}),
        ({"louder": -1.5}, {"calibration", "loss"}),
    ],
    ids=["covariate", "concept", "scores too high", "scores too low"],
)
def test_a_change_raises_the_alarm_soon_and_is_named(change, quantities):
    drift = Drift(SCHEMA, REFERENCE)
    fed(drift, stream(20_000))
    alarms = fed(drift, stream(10_000, 1, **change))
    assert alarms[0] in quantities
    assert 20_000 < drift.last_alarm <= 30_000
    assert drift.alarms == sum(q["alarms"] for q in drift.report()["quantities"].values()) >= 1


def test_what_lasts_becomes_usual_after_an_alarm():
    drift = Drift(SCHEMA, REFERENCE)
    fed(drift, stream(20_000))
    assert len(fed(drift, stream(50_000, 1, shift=2.0))) == 1
    assert not drift.report()["alarmed"]


def test_a_drift_that_recurs_raises_it_each_time():
    drift = Drift(SCHEMA, REFERENCE)
    alarms = [fed(drift, stream(10_000, seed, shift=2.0 * (seed % 2))) for seed in range(6)]
    assert [len(a) for a in alarms] == [0, 1, 1, 1, 1, 1]


def test_a_number_that_only_increases_raises_it_again_and_again():
    drift = Drift(SCHEMA, REFERENCE)
    columns, *rest = stream(20_000)
    alarms = fed(drift, (columns | {"price": np.arange(20_000, dtype=np.float32)}, *rest))
    assert set(alarms) == {"price"}
    assert len(alarms) > 3


def test_distances_say_which_column_has_moved():
    drift = Drift(SCHEMA, REFERENCE, run_length=1e300)
    fed(drift, stream(10_000))
    still = drift.report()["columns"]
    assert max(c["psi"] for c in still.values()) < 0.1
    fed(drift, stream(2_000, 1, users=5))
    moved = drift.report()["columns"]
    assert moved["user_id"]["psi"] > 1.0 > 0.1 > moved["price"]["psi"]
    assert 0.0 <= moved["user_id"]["js"] <= 1.0


def test_ids_that_come_and_go_raise_no_alarm():
    drift = Drift(SCHEMA, REFERENCE)
    fed(drift, stream(10_000))
    assert fed(drift, stream(10_000, 1, users=3)) == []


def test_before_a_full_window_there_is_no_distance():
    drift = Drift(SCHEMA, REFERENCE)
    assert drift.report()["columns"]["price"] == {"psi": None, "js": None}
    fed(drift, stream(REFERENCE + 640))
    assert drift.report()["columns"]["price"]["psi"] is None
    assert drift.report()["reference"] == REFERENCE


def test_numbers_that_are_none_are_taken():
    columns, base, served, label = stream(8_000)
    columns["price"][::3], served[::5], label[::7] = np.nan, np.inf, np.nan
    columns["price"][1::9] = -np.inf
    drift = Drift(SCHEMA, REFERENCE)
    fed(drift, (columns, base, served, label))
    assert all(np.isfinite(a).all() for name, a in drift.state().items() if name not in ("kept", "edges"))


@pytest.mark.parametrize("given", [{"reference": 100}, {"reference": 960}])
def test_terms_that_mean_nothing_are_refused_by_name(given):
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        Drift(SCHEMA, **given)


def test_a_state_of_other_columns_is_refused_and_changes_nothing():
    drift = Drift(SCHEMA, REFERENCE)
    fed(drift, stream(3_000))
    before = bits(drift)
    with pytest.raises(Corrupt, match="saved 'kept'"):
        drift.load(Drift(Schema.of({"x": "float32"}), REFERENCE).state())
    with pytest.raises(Corrupt, match="saved drift's 'n'"):
        drift.load(drift.state() | {"n": np.array([5, REFERENCE + 1, 0, 0, 0, 0])})
    assert bits(drift) == before


def test_a_reference_is_taken_when_the_loss_has_stopped_falling():
    rng = np.random.default_rng(3)
    drift, blocks = Drift(Schema.of({"x": "float32"}), reference=REFERENCE, run_length=1e6), []
    for window in range(4):
        x = rng.normal(size=REFERENCE).astype(np.float32)
        y = (rng.random(REFERENCE) < 1 / (1 + np.exp(-3 * x))).astype(np.float32)
        # A learner that knows more of the slope the further it has come, and from the third window on all of it.
        known = np.minimum(np.linspace(window, window + 1, REFERENCE), 2.0) / 2.0
        drift.update({"x": x}, x, (3 * known * x).astype(np.float32), y)
        blocks.append(drift.report()["watching"])
    assert blocks == [False, False, True, True]


RARE = {
    "positive": lambda rng, hit: np.where(hit, rng.random(len(hit)) + 0.1, 0.0),
    "negative": lambda rng, hit: -np.where(hit, rng.random(len(hit)) + 0.1, 0.0),
    "both signs": lambda rng, hit: np.where(hit, rng.normal(size=len(hit)), 0.0),
    "flag": lambda rng, hit: hit,
    "flag that is mostly set": lambda rng, hit: ~hit,
    "length of a vector": lambda rng, hit: np.outer(hit, [3.0, 4.0]),
}


def rare_stream(rows, seed, kind, share):
    columns, *rest = stream(rows, seed)
    rng = np.random.default_rng([seed, 1])
    value = RARE[kind](rng, rng.random(rows) < share)
    return {**columns, "rare": value.astype(np.float32)}, *rest


def drift_of(kind, reference=8_192, **given):
    column = "float32[2]" if kind == "length of a vector" else "float32"
    return Drift(Schema.of(KINDS | {"rare": column}), reference, **given)


@pytest.mark.parametrize("kind", RARE)
def test_a_rare_value_that_becomes_three_times_as_frequent_raises_the_alarm(kind):
    drift = drift_of(kind)
    assert fed(drift, rare_stream(60_000, 0, kind, 0.01)) == []
    assert fed(drift, rare_stream(40_000, 1, kind, 0.03))[:1] == ["rare"]


def test_a_rare_value_that_becomes_more_frequent_than_in_a_given_reference_raises_the_alarm():
    columns, base, _, label = rare_stream(8_192, 0, "flag", 0.01)
    given = Drift.reference_of(Schema.of(KINDS | {"rare": "float32"}), columns, base, label)
    drift = drift_of("flag", given=given)
    assert fed(drift, rare_stream(60_000, 1, "flag", 0.01)) == []
    assert fed(drift, rare_stream(40_000, 2, "flag", 0.03))[:1] == ["rare"]
