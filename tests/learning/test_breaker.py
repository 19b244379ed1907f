"""Breaker: it opens soon after an abrupt change, wherever that begins, and never on streams whose users come in long runs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput
from riverdelta.lab.attacks import attack
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.simulator import Simulation
from riverdelta.learning.breaker import Breaker

KEYS = ("user_id", "item_id")
#: Nothing opens it before.
WARM_UP = 2_048
#: The share of the rows before which an attack begins after the warm-up and leaves 2,000 rows, of 12,000.
BEGINS = np.linspace(0.2, 0.83, 21)
FOLDER = Path(os.environ.get("RIVERDELTA_DATA", "/nonexistent")) / "ml-latest-small"


def sittings(rows, seed):
    """Each user judges many items at a sitting and leans one way: rows of one user are anything but independent."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.02, rows) * np.where(rng.random(rows) < 0.02, 10, 1), 600)
    user = np.repeat(rng.integers(0, 400, rows), lengths)[:rows]
    leaning = rng.beta(0.8, 0.8, 400)
    return {"user_id": user, "item_id": rng.integers(0, 5_000, rows)}, (rng.random(rows) < leaning[user]).astype(np.float32)


def coins(rows, rate, seed=0, users=2_000):
    rng = np.random.default_rng(seed)
    return {"user_id": rng.integers(0, users, rows)}, (rng.random(rows) < rate).astype(np.float32)


def dealt(rows, sources=8):
    return np.arange(rows, dtype=np.int64) % sources + 1


def fed(columns, label, source=None, scored=None, splits=(), breaker=None):
    """Feed a breaker, cut at `splits`, each block with the rows that were scored since the last; return what may be learned."""
    rows = len(label)
    breaker = Breaker(tuple(columns)) if breaker is None else breaker
    source = dealt(rows) if source is None else source
    scored = np.ones(rows, np.int64) if scored is None else scored
    out, edges = [], [0, *sorted(splits), rows]
    for a, b in zip(edges, edges[1:], strict=False):
        out.append(breaker.update({k: v[a:b] for k, v in columns.items()}, label[a:b], source[a:b], int(scored[a:b].sum())))
    return np.concatenate(out), breaker


def in_blocks(columns, label, source=None, scored=None, breaker=None, block=256):
    return fed(columns, label, source, scored, range(block, len(label), block), breaker)


def delays(stream, kind, keys=KEYS, begins=BEGINS, **terms):
    """How many examples after its begin each attack opens a breaker, and the reasons."""
    found, reasons = [], []
    for begin in begins:
        done = attack(stream, kind, seed=3, begin=float(begin), length=1.0 - float(begin), **terms)
        columns = {key: done.stream.columns[key] for key in keys}
        learned, breaker = in_blocks(columns, done.stream.label, done.source)
        assert learned[: done.begin].all(), "it opened before the attack"
        assert breaker.open or breaker.trips
        found.append(int(np.argmin(learned)) + 1 - done.begin)
        reasons.append(breaker.reason)
    return np.array(found), reasons


def bits(breaker):
    return {name: (a.dtype, a.tobytes()) for name, a in breaker.state().items()}


@pytest.fixture(scope="module")
def simulated():
    return Simulation(rows=12_000, seed=1).generate().stream


def eventful(rows=9_000):
    """A stream in which it opens and closes: a flood, a stretch without positives, and a new source."""
    columns, label = sittings(rows, 5)
    source = dealt(rows)
    source[3_000:4_200] = np.where(np.arange(1_200) % 3 > 0, 77, source[3_000:4_200])
    label[5_500:6_100] = 0.0
    return columns, label, source


@settings(max_examples=25)
@given(st.lists(st.integers(0, 9_000), max_size=12), st.integers(0, 9_000))
def test_blocks_and_a_save_leave_the_bits_of_one_block(splits, saved_at):
    columns, label, source = eventful()
    # Scored rows come in lumps, as records do, each before an example of its own.
    scored = np.where(np.arange(len(label)) % 97 == 0, 97, 0)
    whole, one = fed(columns, label, source, scored, range(97, len(label), 97), Breaker(KEYS, 500))
    splits = {*range(97, len(label), 97), *splits, saved_at}
    first, second = Breaker(KEYS, 500), Breaker(KEYS, 500)
    before, after = slice(0, saved_at), slice(saved_at, None)
    parts = []
    for rows, breaker in ((before, first), (after, second)):
        if breaker is second:
            second.load(first.state())
        offset = rows.start
        cuts = [c - offset for c in splits if offset < c < (rows.stop or len(label))]
        cut = {k: v[rows] for k, v in columns.items()}
        parts.append(fed(cut, label[rows], source[rows], scored[rows], cuts, breaker)[0])
    assert one.trips >= 2
    assert not one.open
    assert np.array_equal(np.concatenate(parts), whole)
    assert bits(second) == bits(one)
    assert second.reason == one.reason


def test_row_by_row_is_the_same_as_a_block():
    columns, label, source = eventful()
    whole, one = fed(columns, label, source, np.zeros(len(label), np.int64), breaker=Breaker(KEYS, 500))
    rows, many = fed(columns, label, source, np.zeros(len(label), np.int64), range(1, len(label)), Breaker(KEYS, 500))
    assert np.array_equal(rows, whole)
    assert bits(many) == bits(one)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="RIVERDELTA_DATA names no folder with ml-latest-small")
@pytest.mark.parametrize("clients", [1, 8, 64])
def test_it_never_opens_on_movielens(clients):
    stream = load_movielens(FOLDER)
    order = np.argsort(np.arange(len(stream)) + np.random.default_rng(0).uniform(0, clients, len(stream)), kind="stable")
    for rows in (order, order[len(order) // 2 :]):
        columns = {key: stream.columns[key][rows] for key in KEYS}
        assert in_blocks(columns, stream.label[rows])[1].trips == 0


@pytest.mark.skipif(not FOLDER.is_dir(), reason="RIVERDELTA_DATA names no folder with ml-latest-small")
@pytest.mark.parametrize(("kind", "terms"), [("stale", {}), ("flood", {"rate": 0.5}), ("flood", {"rate": 5.0})])
def test_on_movielens_it_opens_within_1000_examples_of_an_attack_wherever_that_begins(kind, terms):
    stream = load_movielens(FOLDER).halves()[1]
    # Among them the runs of the users who judge longest, 1,567 rows with 730 labels of 0 in a row.
    begins = [*np.linspace(0.05, 0.97, 24), *(np.array([40_546, 40_757, 40_758, 41_000, 41_489, 44_348]) / len(stream))]
    found, _ = delays(stream, kind, begins=begins, **terms)
    assert ((found > 0) & (found <= 1_000)).all()


@pytest.mark.parametrize("seed", range(6))
def test_it_never_opens_on_users_who_sit_long_and_lean_one_way(seed):
    columns, label = sittings(40_000, seed)
    assert in_blocks(columns, label)[1].trips == 0


@pytest.mark.parametrize("given", [{}, {"intercept": -4.0}, {"intercept": -6.0}, {"slate": 50}, {"users": 30, "items": 30}])
def test_it_never_opens_on_simulated_clicks(given):
    stream = Simulation(rows=40_000, seed=2, **given).generate().stream
    assert in_blocks({key: stream.columns[key] for key in KEYS}, stream.label)[1].trips == 0
    assert in_blocks({}, stream.label)[1].trips == 0


@pytest.mark.parametrize("keys", [KEYS, ("user_id",), ()])
def test_a_stream_without_positives_opens_it_within_1000_examples(simulated, keys):
    found, reasons = delays(simulated, "stale", keys)
    assert ((found > 0) & (found <= 1_000)).all()
    assert all(reason.startswith("labels have been 0 for ") for reason in reasons)


@pytest.mark.parametrize("rate", [0.5, 1.0, 5.0, 30.0])
def test_a_flood_from_one_source_opens_it_within_1000_examples_and_is_named(simulated, rate):
    found, reasons = delays(simulated, "flood", rate=rate)
    assert ((found > 0) & (found <= 1_000)).all()
    # The thickest floods drown all other labels before their share is measured.
    named = [reason.startswith("the share of labels that source 9 sends rose by ") for reason in reasons]
    drowned = [reason.startswith("labels have been 1 for ") for reason in reasons]
    assert all(named) if rate < 10 else np.logical_or(named, drowned).all()


@pytest.mark.parametrize("part", range(0, 64, 4))
def test_the_window_in_which_a_flood_begins_does_not_make_the_rest_of_it_usual(part):
    columns, label = coins(20_480, 0.4)
    source = dealt(20_480)
    begin = 15_360 - part
    for window, flooded in enumerate([part, 98, 73, 78, 83, 78]):
        end = 15_360 + 256 * window
        source[end - flooded : end] = 99
    learned, breaker = in_blocks(columns, label, source)
    assert 0 < int(np.argmin(learned)) + 1 - begin <= 1_000
    assert breaker.reason.startswith("the share of labels that source 99 sends rose by ")


def test_a_flood_from_a_source_that_is_known_opens_it(simulated):
    done = attack(simulated, "flood", begin=0.5, length=0.5)
    source = np.where(done.source == 9, 3, done.source)
    learned, breaker = in_blocks({key: done.stream.columns[key] for key in KEYS}, done.stream.label, source)
    assert 0 < int(np.argmin(learned)) + 1 - done.begin <= 1_000
    assert "source 3 " in breaker.reason


@pytest.mark.parametrize("everybody", [5, 0])
def test_a_flood_beside_an_only_backend_opens_it_though_the_backend_names_itself_or_not(simulated, everybody):
    done = attack(simulated, "flood", begin=0.8, length=0.2)
    source = np.where(done.source == 9, 9, everybody)
    learned, breaker = in_blocks({key: done.stream.columns[key] for key in KEYS}, done.stream.label, source)
    assert 0 < int(np.argmin(learned)) + 1 - done.begin <= 1_000
    # Where nobody else names itself there is no share to compare, and the flood's labels give it away.
    assert ("source 9 " if everybody else "of labels are positive") in breaker.reason


def sent(rows, kind):
    rng = np.random.default_rng(0)
    half = np.arange(rows) >= rows // 2 + 100
    return {
        "an only backend": np.full(rows, 5),
        "nobody says": np.zeros(rows, np.int64),
        "at random": rng.integers(1, 9, rows),
        "in requests of 64": rng.integers(1, 9, rows // 64 + 1)[np.arange(rows) // 64],
        "a new address": np.where(half, 6, 5),
        "one of two goes": np.where(half, 1, np.arange(rows) % 2 + 1),
        "one of eight is replaced": np.where(half & (np.arange(rows) % 8 == 0), 99, np.arange(rows) % 8 + 1),
        "each user for himself": np.arange(rows) % 700 + 1,
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "an only backend",
        "nobody says",
        "at random",
        "in requests of 64",
        "a new address",
        "one of two goes",
        "one of eight is replaced",
        "each user for himself",
    ],
)
def test_sources_that_come_and_go_as_backends_do_never_open_it(kind):
    columns, label = sittings(20_000, 7)
    assert in_blocks(columns, label, sent(len(label), kind))[1].trips == 0


@pytest.mark.parametrize(("usual", "then"), [(0.6, 0.3), (0.3, 0.7), (0.05, 0.4)])
def test_a_positive_rate_that_jumps_opens_it(usual, then):
    columns, label = coins(20_000, usual)
    label[10_000:] = coins(10_000, then, seed=1)[1]
    learned, breaker = in_blocks(columns, label)
    assert 0 < int(np.argmin(learned)) + 1 - 10_000 <= 1_000
    assert "of labels are positive, usually " in breaker.reason


def test_ids_that_nobody_knows_open_it_and_their_column_is_named():
    columns, label = coins(20_000, 0.4)
    columns |= {"item_id": np.arange(20_000) % 300}
    columns["item_id"][10_000:] = np.where(np.arange(10_000) % 2, np.arange(10_000, 20_000), columns["item_id"][10_000:])
    learned, breaker = in_blocks(columns, label)
    assert 0 < int(np.argmin(learned)) + 1 - 10_000 <= 1_000
    assert breaker.reason.startswith("50% of the ids of 'item_id' are unknown, usually ")


def test_more_ids_than_the_bits_hold_do_not_make_the_known_ones_unknown():
    rows = 1_600_000
    user = np.arange(rows, dtype=np.int64)
    user[1::2] = np.arange(rows // 2) % 1_000
    _, label = coins(rows, 0.4)
    learned, breaker = in_blocks({"user_id": user}, label, block=8_192)
    assert learned.all()
    user = np.arange(4_096) % 1_000
    assert in_blocks({"user_id": user}, label[:4_096], breaker=breaker)[0].all()
    # Ids of which none was ever seen are still told from those.
    learned, breaker = in_blocks({"user_id": -np.arange(1, 8_193)}, label[:8_192], breaker=breaker)
    assert not learned.all()
    assert "'user_id' are unknown" in breaker.reason


@pytest.mark.parametrize("factor", [8, 0.125])
def test_feedback_per_scored_row_that_jumps_opens_it(factor):
    columns, label = coins(40_000, 0.4)
    scored = np.full(40_000, 8)
    scored[20_000:] = int(8 / factor)
    learned, breaker = in_blocks(columns, label, scored=scored)
    assert 0 < int(np.argmin(learned)) + 1 - 20_000 <= 4_000
    assert "labels came for each scored row, usually 0.1" in breaker.reason


@pytest.mark.parametrize("each", [0, 1, 1_000])
def test_feedback_per_scored_row_that_stays_as_it_is_does_not(each):
    columns, label = coins(40_000, 0.4)
    assert in_blocks(columns, label, scored=np.full(40_000, each))[1].trips == 0


def test_scored_rows_that_come_in_lumps_do_not_open_it():
    columns, label = coins(60_000, 0.4)
    scored = np.where(np.arange(60_000) % 5_000 == 0, 16_384, 0)
    assert in_blocks(columns, label, scored=scored)[1].trips == 0


@pytest.mark.parametrize("tick", [50, 500, 5_000])
def test_negatives_of_silence_that_come_in_batches_do_not_open_it(tick):
    stream = Simulation(rows=100_000, seed=3, intercept=-3.0).generate().stream
    rng, at = np.random.default_rng(0), np.arange(100_000) / tick
    # A positive comes soon; all else becomes a negative at the first tick after a window of two.
    order = np.argsort(np.where(stream.label > 0, at + rng.exponential(0.2, 100_000), np.ceil(at + 2.0)), kind="stable")
    source = np.where(stream.label > 0, dealt(100_000), 0)
    columns = {key: stream.columns[key][order] for key in KEYS}
    learned, breaker = in_blocks(columns, stream.label[order], source[order], breaker=Breaker(KEYS, silence=True))
    assert breaker.trips == 0
    assert learned.all()


def test_labels_that_were_never_anything_but_positive_do_not_open_it():
    columns, _ = coins(50_000, 0.5)
    assert in_blocks(columns, np.ones(50_000, np.float32))[1].trips == 0


def opened(resume, rows=WARM_UP * 3):
    columns, label = coins(rows + 60, 0.4)
    label[rows:] = 0.0
    learned, breaker = in_blocks(columns, label, breaker=Breaker(("user_id",), resume))
    assert breaker.open
    return learned, breaker


def test_what_comes_before_it_opened_is_learned_and_what_comes_after_is_not():
    learned, breaker = opened(None)
    at = int(np.argmin(learned))
    assert not learned[at:].any()
    assert breaker.opened == at + 1
    assert breaker.trips == 1
    assert breaker.reason.endswith(f"; at example {at + 1:,}")


@pytest.mark.parametrize("resume", [1, 300, 2_000])
def test_it_closes_after_so_many_calm_examples_in_a_row(resume):
    _, breaker = opened(resume)
    columns, label = coins(3_000, 0.4, seed=9)
    label[0] = 1.0  # the run ends here; the row is calm
    learned, breaker = in_blocks(columns, label, breaker=breaker)
    assert int(np.argmax(learned)) + 1 == resume
    assert learned[resume:].all()
    assert (breaker.open, breaker.reason, breaker.opened, breaker.trips) == (False, None, None, 1)


def test_without_a_number_of_calm_examples_only_an_operator_closes_it():
    _, breaker = opened(None)
    columns, label = coins(100_000, 0.4, seed=9)
    assert not in_blocks(columns, label, breaker=breaker)[0].any()
    breaker.reset()
    assert not breaker.open
    assert in_blocks(columns, label, breaker=breaker)[0].all()


def test_what_an_operator_resumed_in_spite_of_is_usual_from_then_on():
    columns, label = coins(20_000, 0.3)
    label[10_000:] = coins(10_000, 0.7, seed=1)[1]
    learned, breaker = in_blocks(columns, label)
    at = 256 * (int(np.argmin(learned)) // 256 + 2)
    _, breaker = in_blocks({"user_id": columns["user_id"][:at]}, label[:at])
    assert breaker.open
    breaker.reset()
    assert in_blocks({"user_id": columns["user_id"][at:]}, label[at:], breaker=breaker)[0].all()
    assert breaker.trips == 1


@pytest.mark.parametrize("kind", ["stale", "flood", "rate"])
def test_a_change_that_lasts_becomes_usual_and_one_that_ends_does_not(kind):
    rows, begin = 80_000, 20_000
    columns, label = coins(rows, 0.3)
    source = dealt(rows)
    if kind == "stale":
        label[begin:] = 0.0
    elif kind == "rate":
        label[begin:] = coins(rows - begin, 0.8, seed=1)[1]
    else:
        source[begin:] = np.where(np.arange(begin, rows) % 2, 99, source[begin:])
    learned, breaker = in_blocks(columns, label, source, breaker=Breaker(("user_id",), 1_000))
    assert not learned[begin + 1_000 : begin + 5_000].any()
    assert learned[begin + 40_000 :].all()
    assert not breaker.open


@pytest.mark.parametrize("resume", [0, -1])
def test_a_number_of_calm_examples_that_is_none_is_refused(resume):
    with pytest.raises(ConfigurationError, match="resume_examples"):
        Breaker(KEYS, resume)


def test_columns_that_do_not_fit_are_refused_by_name():
    breaker, label, source = Breaker(KEYS), np.zeros(3, np.float32), np.zeros(3, np.int64)
    fit = {"user_id": np.arange(3), "item_id": np.arange(3)}
    before = bits(breaker)
    with pytest.raises(InvalidInput, match="'item_id' is missing"):
        breaker.update({"user_id": np.arange(3)}, label, source)
    with pytest.raises(InvalidInput, match=r"'user_id' has shape \[2\]"):
        breaker.update(fit | {"user_id": np.arange(2)}, label, source)
    with pytest.raises(InvalidInput, match="source has 2 rows"):
        breaker.update(fit, label, source[:2])
    with pytest.raises(InvalidInput, match="impressions is -1"):
        breaker.update(fit, label, source, -1)
    assert bits(breaker) == before


def test_edge_ids_labels_that_are_no_number_and_empty_blocks_are_taken():
    rows = 5_000
    ids = np.resize(np.array([0, -1, 2**63 - 1, -(2**63), 2**32]), rows)
    label = np.resize(np.float32([0, 1, np.nan, np.inf, -np.inf, 7]), rows)
    learned, breaker = in_blocks({"user_id": ids}, label, ids)
    assert learned.all()
    assert len(breaker.update({"user_id": ids[:0]}, label[:0], ids[:0], 7)) == 0
    assert all(np.isfinite(a).all() for a in breaker.state().values())


@pytest.mark.parametrize(
    "change",
    [
        {"series": None},
        {"tallies": np.zeros(3, np.int64)},
        {"levels": np.zeros(15, np.float32)},
        {"tallies": np.full(21, 10**9)},
        {"tallies": np.full(21, -(10**9))},
    ],
    ids=["missing", "short", "of another type", "too large", "negative"],
)
def test_a_saved_state_that_is_none_is_refused_and_changes_nothing(change):
    _, breaker = opened(None)
    before = bits(breaker)
    arrays = {name: array for name, array in (breaker.state() | change).items() if array is not None}
    with pytest.raises(Corrupt, match="the saved "):
        breaker.load(arrays)
    assert bits(breaker) == before


def test_a_state_of_other_keys_is_refused():
    with pytest.raises(Corrupt, match="the saved 'series' is float64"):
        Breaker(KEYS).load(Breaker(("user_id",)).state())
