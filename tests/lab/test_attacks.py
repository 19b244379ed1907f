"""Attacks: each does what it says to the rows that it says, and to no other, and tells what is true of every row."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Schema, Stack
from riverdelta.cli.replay import replay as replay_command
from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.settings import Settings
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.attacks import KINDS, attack
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.simulator import Simulation
from riverdelta.lab.stream import Stream
from riverdelta.lab.workshop import open_workshop
from riverdelta.learning.admission import Admission
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

STREAM = Simulation(rows=600, users=20, items=30, seed=2).generate().stream
ROWS = len(STREAM)
LAW = settings(max_examples=40)
PLACE = {"seed": st.integers(0, 99), "begin": st.floats(0, 0.9), "length": st.floats(0.02, 1)}


def bits(done):
    columns = {k: v.tobytes() for k, v in done.stream.columns.items()}
    arrays = (done.stream.label, done.stream.time, done.truth, done.honest, done.source)
    return columns, [a.tobytes() for a in arrays], done.begin, done.end


def same_rows(stream, other, rows=slice(None)):
    return all(np.array_equal(column[rows], other.columns[k]) for k, column in stream.columns.items())


def stretch(begin, length):
    first = int(begin * ROWS)
    return slice(first, min(first + int(length * ROWS), ROWS))


@LAW
@given(**PLACE)
@pytest.mark.parametrize(("kind", "becomes"), [("flip", lambda y: 1 - y), ("stale", lambda y: 0 * y)])
def test_flip_and_stale_change_the_labels_of_their_stretch_and_nothing_else(kind, becomes, seed, begin, length):
    done, inside = attack(STREAM, kind, seed, begin, length), stretch(begin, length)
    expected = STREAM.label.copy()
    expected[inside] = becomes(expected[inside])
    assert np.array_equal(done.stream.label, expected)
    assert (done.begin, done.end) == (inside.start, inside.stop)
    assert np.array_equal(done.truth, STREAM.label)
    assert np.array_equal(done.honest, expected == STREAM.label)
    assert same_rows(STREAM, done.stream)
    assert np.array_equal(done.stream.time, STREAM.time)


@LAW
@given(**PLACE, rate=st.floats(0.05, 8), targets=st.integers(1, 9), sources=st.integers(1, 9))
def test_a_flood_inserts_positives_of_few_rows_from_one_source_more(seed, begin, length, rate, targets, sources):
    done = attack(STREAM, "flood", seed, begin, length, rate, targets, sources)
    inside, extra = stretch(begin, length), ~done.honest
    assert extra.sum() == max(round(rate * (inside.stop - inside.start)), 1)
    assert (done.begin, done.end) == (inside.start, inside.stop + extra.sum())
    assert not extra[: done.begin].any()
    assert not extra[done.end :].any()
    assert (done.stream.label[extra] == 1).all()
    assert (done.source[extra] == sources + 1).all()
    # The public's rows are those of the stream, in their order and with their labels, times and sources.
    assert same_rows(done.stream, STREAM, done.honest)
    for told in (done.stream.label, done.truth):
        assert np.array_equal(told[done.honest], STREAM.label)
    assert np.array_equal(done.stream.time[done.honest], STREAM.time)
    assert np.array_equal(done.source[done.honest], np.arange(ROWS) % sources + 1)
    # The flood's are copies of rows of the stretch, few of them, with the truth of those.
    copied = {(*(c[i].item() for c in done.stream.columns.values()), float(done.truth[i])) for i in np.flatnonzero(extra)}
    real = {(*(c[i].item() for c in STREAM.columns.values()), float(STREAM.label[i])) for i in range(*inside.indices(ROWS))}
    assert len(copied) <= targets
    assert copied <= real


@LAW
@given(seed=PLACE["seed"], begin=PLACE["begin"], length=PLACE["length"])
def test_drift_turns_half_of_the_items_for_good_and_is_the_truth(seed, begin, length):
    done, first = attack(STREAM, "drift", seed, begin, length), int(begin * ROWS)
    assert (done.begin, done.end) == (first, ROWS)
    assert np.array_equal(done.stream.label[:first], STREAM.label[:first])
    turned = done.stream.label != STREAM.label
    items = STREAM.columns["item_id"]
    for item in np.unique(items[first:]):
        assert len(np.unique(turned[first:][items[first:] == item])) == 1
    assert np.array_equal(done.truth, done.stream.label)
    assert done.honest.all()
    assert same_rows(STREAM, done.stream)
    assert bits(done) == bits(attack(STREAM, "drift", seed, begin, 0.0))


def test_drift_turns_half_of_the_ids_of_the_second_id_column_or_of_the_only_one():
    label, at = np.zeros(1_000, np.float32), np.arange(1_000.0)
    ids = {"position": np.zeros(1_000, np.float32), "user_id": np.arange(1_000) % 40, "item_id": np.arange(1_000) // 25}
    for columns, turned in ((ids, "item_id"), ({k: ids[k] for k in ("position", "user_id")}, "user_id")):
        done = attack(Stream("plain", columns, label, at), "drift", begin=0.0)
        assert len(np.unique(columns[turned][done.stream.label == 1])) == 20
        assert len(np.unique(columns[turned][done.stream.label == 0])) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_stream_and_the_given_one_is_left_alone(kind):
    before = STREAM.label.copy()
    assert bits(attack(STREAM, kind, seed=4)) == bits(attack(STREAM, kind, seed=4))
    assert np.array_equal(STREAM.label, before)
    # What is not drawn does not depend on the seed.
    assert (bits(attack(STREAM, kind, seed=4)) == bits(attack(STREAM, kind, seed=5))) == (kind in ("flip", "stale"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_in_turn_sends_a_label(kind):
    done = attack(STREAM, kind, sources=3)
    assert np.array_equal(done.source[done.honest & (done.source <= 3)], done.source[done.honest])
    assert np.array_equal(done.source[: done.begin], np.arange(done.begin) % 3 + 1)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"length": 0.0}, "the attack on rows 300 to 300 of 600 is empty; lower begin, or raise length=0.0"),
        ({"begin": 1.0}, "the attack on rows 600 to 600 of 600 is empty"),
        ({"kind": "drift", "begin": 1.0}, "the attack on rows 600 to 600 of 600 is empty"),
    ],
    ids=lambda given: " ".join(f"{k} {v}" for k, v in given.items()) if isinstance(given, dict) else "",
)
def test_an_empty_stretch_is_refused(terms, said):
    with pytest.raises(InvalidInput) as refused:
        attack(STREAM, **({"kind": "flip"} | terms))
    assert said in str(refused.value)


def test_drift_without_an_id_column_is_refused_and_the_rest_do_without():
    bare = Stream("bare", {"hour": np.zeros(50, np.float32)}, np.resize(np.float32([0, 1]), 50), np.arange(50.0))
    with pytest.raises(InvalidInput, match="bare has no id column"):
        attack(bare, "drift")
    for kind in ("flip", "flood", "stale"):
        assert not attack(bare, kind).honest.all()


#: Nats a row that rounding served logits to float32 may cost beyond the worst case.
ROUNDING = 1e-6
LAGS = [{}, {"lag_rows": 8}, {"lag_rows": 100}, {"lag_seconds": 86_400.0}]


@pytest.fixture(scope="module")
def weeks():
    """Ten days of clicks, a row every five minutes, and what a base that knows nobody's tastes says of them."""
    log = Simulation(rows=2_880, users=60, items=40, user=1.5, item=1.5, seed=6).generate()
    columns = {name: log.stream.columns[name] for name in ("user_id", "item_id")}
    stream = Stream("weeks", columns, log.stream.label, 300.0 * np.arange(len(log.stream)))
    return stream, np.full(len(stream), LOG_LOSS.link(log.truth.mean())[0, 0], np.float32)


@pytest.mark.parametrize("lag", LAGS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_under_every_attack_the_excess_over_the_better_expert_is_below_the_bound_however_late_labels_are(weeks, kind, lag):
    stream, base = weeks
    row = {"row": np.arange(len(stream), dtype=np.float32)}
    done = attack(Stream("rows", {**stream.columns, **row}, stream.label, stream.time), kind)
    stack = Stack([Calibration(), Entity("item_id"), Entity("user_id", forget=0.98)])
    stack.bind(Schema.of({"user_id": "int64", "item_id": "int64"}))
    learner = Learner(stack, Joiner(), Prequential(), admission=Admission.of(["user_id", "item_id"], Settings()))
    columns, label, time = done.stream.columns, done.stream.label, done.stream.time
    late = {"label_time": time + lag["lag_seconds"]} if "lag_seconds" in lag else {"refresh_rows": lag.get("lag_rows", 1)}
    run = replay(learner, columns, base[columns["row"].astype(np.int64)], label, time, **late, source=done.source)
    losses = [float(LOG_LOSS.value(z, done.stream.label).sum()) for z in (run.served, run.base, run.corrected)]
    report = learner.gate.report()
    assert report["examples"] == len(done.stream)
    assert losses[0] - min(losses[1:]) <= report["bound"] <= report["worst_case"] + ROUNDING * len(stream)
    assert report["excess"] == pytest.approx(losses[0] - min(losses[1:]), abs=0.05)
    # Had nothing of the corrections been served there would be no excess to speak of.
    assert np.abs(run.served - run.base).max() > 0.5


@pytest.fixture(scope="module")
def ratings(tmp_path_factory):
    """A folder as MovieLens publishes it, with few ratings."""
    folder = tmp_path_factory.mktemp("ratings")
    columns, label = STREAM.columns, STREAM.label
    rows = zip(columns["user_id"] + 1, columns["item_id"] + 1, 3 + 2 * label, 3_600 * np.arange(ROWS), strict=True)
    rated = "".join(f"{user},{item},{rating},{time}\n" for user, item, rating, time in rows)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rated)
    films = "".join(f"{item},Film {item},Drama|War\n" for item in range(1, 31))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + films)
    return folder


@pytest.fixture(scope="module")
def trained(ratings, tmp_path_factory):
    """The base and the corrections that the command makes of the folder, made once."""
    return open_workshop(load_movielens(ratings), tmp_path_factory.mktemp("workshop"), options=DeepFMOptions(epochs=2))


@pytest.mark.parametrize(("kind", "lag"), [*zip(KINDS, LAGS, strict=True)], ids=str)
def test_the_command_writes_bound_and_excess_in_nats_over_the_stream(ratings, trained, kind, lag, monkeypatch):
    monkeypatch.setattr("riverdelta.lab.workshop.open_workshop", lambda *_: trained)
    late = [part for name, value in lag.items() for part in (f"--{name.replace('_', '-').removesuffix('-rows')}", str(value))]
    shown = CliRunner().invoke(replay_command, [str(ratings), "--attack", kind, *late, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["attack"] == kind
    assert found["events"] >= ROWS // 2
    assert found["excess_over_better_expert"] <= found["bound"] <= found["bound_worst_case"] + ROUNDING * found["events"]
    # Over the stream, not by row.
    assert found["bound"] >= math.log(2) + math.log(found["events"] + 1) - 1e-9
    over = found["events"] * (found["log_loss_served"] - found["log_loss_base"])
    assert found["excess_over_better_expert"] >= over - 0.05
