"""Breaker: it trips on labels of a sender that the others' experience contradicts, on stale labels, and on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.core.examples import Examples
from riverdelta.core.losses import Count, Multiclass, Ranking, Regression
from riverdelta.learning.breaker import CHECK, Breaker

ROWS = 6_000


def rows(label, source=None, base=-0.8, corrected=None, weight=None):
    """Examples of a constant base; the corrected scores are the base's unless given."""
    count = len(label)
    made = Examples.unserved({}, np.full(count, base, np.float32), np.float32(label), np.zeros(count), source)
    given = {} if corrected is None else {"corrected": np.float32(corrected).reshape(-1, 1)}
    return replace(made, **given, **({} if weight is None else {"importance": np.float32(weight)}))


def coins(count, rate=0.3, seed=0):
    return (np.random.default_rng(seed).random(count) < rate).astype(np.float32)


def dealt(count, senders=8):
    return np.arange(count, dtype=np.int64) % senders + 1


def informed(count, wrong=(), seed=0, senders=8, since=0):
    """Examples whose corrected scores know the truth; some senders say the opposite from a row on."""
    rng, source = np.random.default_rng(seed), dealt(count, senders)
    z = rng.normal(0, 2, count)
    label = (rng.random(count) < 1 / (1 + np.exp(-z))).astype(np.float32)
    lies = np.isin(source, wrong) & (np.arange(count) >= since)
    return rows(np.where(lies, 1 - label, label), source, 0.0, z)


def eventful():
    """Examples at which it trips for both reasons, with resets between them."""
    a, b = informed(ROWS, wrong=[3], since=1_000), informed(ROWS, seed=1)
    b.label[1_000:3_000] = 0.0
    return [a, b]


def bits(breaker):
    return {name: (a.dtype, a.tobytes()) for name, a in breaker.state().items()}


@settings(max_examples=25)
@given(st.lists(st.integers(0, ROWS), max_size=12), st.integers(0, ROWS), st.booleans())
def test_blocks_and_a_save_leave_the_bits_of_one_block(splits, saved_at, learned):
    one, many = Breaker(), Breaker()
    for examples in eventful():
        admitted = np.arange(ROWS) % 5 > 0
        whole, parts = one.update(examples, admitted), []
        edges = sorted({0, *splits, saved_at, ROWS})
        for a, b in zip(edges, edges[1:], strict=False):
            if a == saved_at:
                saved = many.state()
                many = Breaker()
                many.load(saved)
            parts.append(many.update(examples[a:b], admitted[a:b]))
        assert np.array_equal(np.concatenate(parts), whole)
        assert bits(many) == bits(one)
        assert many.reason == one.reason is not None
        one.reset(learned)
        many.reset(learned)
        assert bits(many) == bits(one)
    assert one.trips == 2


def test_every_row_before_the_trip_is_learned_and_none_after_it():
    breaker = Breaker()
    learned = breaker.update(eventful()[0])
    at = int(np.argmin(learned))
    assert at % CHECK == 0
    assert (breaker.open, breaker.opened, breaker.trips) == (True, at, 1)
    assert not learned[at:].any()
    assert not breaker.update(informed(50_000, seed=3)).any(), "only an operator resets it"


@pytest.mark.parametrize("senders", [2, 8, 31])
@pytest.mark.parametrize("seed", range(3))
def test_a_sender_whose_labels_the_others_contradict_trips_it_and_is_named(senders, seed):
    breaker = Breaker()
    learned = breaker.update(informed(40_000, [2], seed, senders, since=10_000))
    # Benefit of 10,000 rows before does not make it slower.
    assert 0 < (int(np.argmin(learned)) - 10_000) / senders < 1_000
    assert (
        "labels of sender 2, and not by those of others: they contradict each other, and either may be wrong" in breaker.reason
    )
    assert "labels of sender shop, " in breaker.explain({2: "shop"})
    assert "`riverdelta resume --skip`" in breaker.reason


WRONG_BY_WEIGHT = {
    "all labels alike, of any weight": (1.0, 1.0, 1.0),
    "light labels that are all wrong": (1.0, 0.01, 0.01),
    "heavy labels that are all wrong": (1.0, 100.0, 100.0),
    "light right labels hide wrong ones": (0.1, 1.0, 0.001),
    "right labels hide heavy wrong ones": (0.1, 100.0, 1.0),
}


@pytest.mark.parametrize("kind", WRONG_BY_WEIGHT)
def test_a_sender_that_is_wrong_by_number_or_by_weight_is_named_whatever_the_weights(kind):
    part, wrong, right = WRONG_BY_WEIGHT[kind]
    lies, truth = informed(80_000, [2]), informed(80_000)
    lying = (lies.source == 2) & (np.random.default_rng(1).random(80_000) < part)
    sent = np.where(lies.source != 2, 1.0, np.where(lying, wrong, right)).astype(np.float32)
    examples = replace(truth, label=np.where(lying, lies.label, truth.label), sent=sent, importance=sent)
    breaker = Breaker()
    assert not breaker.update(examples).all()
    assert "nats a row to the base" in breaker.reason
    assert "labels of sender 2," in breaker.reason


def test_a_sender_of_heavy_labels_is_not_named_for_what_all_lose_alike():
    examples = informed(20_000)
    sent = np.where(examples.source == 2, 100, 1).astype(np.float32)
    examples = replace(examples, corrected=-examples.corrected / 8, sent=sent, importance=sent)
    assert Breaker().update(examples).all()


def test_labels_of_weight_0_leave_no_trace():
    breaker, still = Breaker(), Breaker()
    zero = np.zeros(3_000, np.float32)
    assert breaker.update(replace(informed(3_000, [2]), label=zero, sent=zero, importance=zero)).all()
    names = [name for name in bits(still) if name != "tally/examples"]
    assert [bits(breaker)[name] for name in names] == [bits(still)[name] for name in names]


def test_a_state_from_before_there_were_weights_goes_on_as_if_all_had_been_1():
    old, new = Breaker(), Breaker()
    first, rest = informed(4_000, [3]), informed(40_000, [3], seed=1)
    old.update(first)
    new.load({name: a for name, a in old.state().items() if not name.endswith(("/weighted", "/mass"))})
    assert np.array_equal(new.update(rest), old.update(rest))
    assert new.reason == old.reason is not None


def test_senders_beyond_those_judged_one_by_one_are_judged_together():
    breaker = Breaker()
    assert not breaker.update(informed(60_000, range(40, 60), senders=60)).all()
    assert "labels of the senders beyond the first 32" in breaker.reason


def test_corrections_that_harm_by_all_labels_alike_are_no_senders_fault():
    examples = informed(20_000)
    examples = replace(examples, corrected=-examples.corrected)
    assert Breaker().update(examples).all()


def test_without_others_of_the_same_label_a_sender_is_not_judged():
    examples = informed(20_000)
    by_label = replace(examples, corrected=examples.corrected - 3, source=1 + examples.label.astype(np.int64))
    assert Breaker().update(by_label).all()


def test_weights_count():
    flat = informed(30_000, [2])
    assert not Breaker().update(flat).all()
    assert Breaker().update(replace(flat, importance=np.where(flat.source == 2, np.float32(0.01), np.float32(1)))).all()


@pytest.mark.parametrize("seed", range(40))
def test_no_false_alarm_where_the_mean_loss_is_at_the_margin(seed):
    # Sender 1 loses the margin on average, however heavy its tails; the others lose nothing.
    rng = np.random.default_rng(seed)
    count, label = 50_000, coins(50_000, 0.5, seed)
    source = dealt(count, 2)
    lost = np.where(source == 1, np.where(rng.random(count) < 0.05, 1.0, 0.0), 0.0)
    # A loss of 1 nat more than ln 2 is a margin of ln(2e - 1) against the label.
    corrected = np.where(lost > 0, -np.log(2 * np.e - 1) * (2 * label - 1), 0.0)
    assert Breaker().update(rows(label, source, 0.0, corrected)).all()


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.05, 0.01])
@pytest.mark.parametrize("stuck", [0.0, 1.0])
def test_labels_that_are_all_the_same_trip_it_once_20_others_were_expected(rate, stuck):
    rate = 1 - rate if stuck else rate
    rare = min(rate, 1 - rate)
    found = []
    for seed in range(20):
        label = coins(80_000, rate, seed)
        begin = 60_000 + 40 * seed
        label[begin:] = stuck
        breaker = Breaker()
        learned = breaker.update(rows(label, dealt(80_000), base=float(np.log(rate / (1 - rate)))))
        assert learned[:begin].all()
        found.append(int(np.argmin(learned)) - begin)
        assert breaker.reason.startswith("the last ")
        assert f"labels of all senders are {stuck:.0f}, where " in breaker.reason
    # A run may have begun before, and the usual rate is an estimate.
    assert max(found) <= max(1_000, 20 / rare * 1.15) + CHECK


@pytest.mark.parametrize("base", [4.0, 0.0, -5.3, -9.0])
def test_labels_that_are_rarely_1_do_not_trip_it_whatever_the_base_says(base):
    for seed in range(10):
        assert Breaker().update(rows(coins(100_000, 0.005, seed), base=base)).all()


def test_labels_that_come_in_long_runs_do_not_trip_it():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        lengths = rng.geometric(1 / 700, 200)
        assert Breaker().update(rows(np.repeat(np.arange(200) % 2, lengths), base=0.0)).all()


def test_one_senders_labels_that_get_stuck_trip_it_though_the_others_go_on():
    label, source = coins(60_000), dealt(60_000, 4)
    label[(source == 3) & (np.arange(60_000) > 30_000)] = 0
    breaker = Breaker()
    assert not breaker.update(rows(label, source)).all()
    assert "labels of sender 3 are 0" in breaker.reason


def test_labels_that_were_never_anything_else_do_not_trip_it():
    for label in (np.zeros(50_000), np.ones(50_000), np.r_[np.ones(3_000), np.zeros(20_000)]):
        assert Breaker().update(rows(label)).all()


@pytest.mark.parametrize("learned", [True, False])
def test_after_a_reset_a_run_trips_it_only_when_four_times_as_long_if_what_came_is_learned(learned):
    examples, breaker, at = rows(np.r_[coins(4_000), np.zeros(36_000)]), Breaker(), [4_000]
    for first in range(0, 40_000, 100):
        breaker.update(examples[first : first + 100])
        if breaker.open and len(at) < 4:
            at.append(breaker.opened)
            breaker.reset(learned)
            assert (breaker.open, breaker.reason, breaker.opened) == (False, None, None)
    run, expected = (np.array(at[1:]) - 4_000, [1_000, 4_000, 16_000]) if learned else (np.diff(at), [1_000] * 3)
    assert ((run >= expected) & (run <= 1.3 * np.array(expected))).all()


@pytest.mark.parametrize("size", [3_000, 30_000])
@pytest.mark.parametrize("waits", [0, 200, 5_000])
def test_negatives_that_come_nightly_from_some_day_on_trip_it_three_times_at_most(size, waits):
    """Labels of 0 and 1 are sent apart from half of the time on; an operator resumes after so many examples."""
    label = coins(12 * size, 0.4)
    label[6 * size :] = np.sort(label[6 * size :].reshape(6, size)).ravel()
    breaker, at, open_for = Breaker(), 0, 0
    for at in range(0, len(label), 100):
        breaker.update(rows(label[at : at + 100], dealt(100)))
        open_for = open_for + 100 if breaker.open else 0
        if open_for > waits:
            breaker.reset()
    assert 1 <= breaker.trips <= 3


def test_what_the_limits_do_not_admit_is_no_evidence_of_harm_and_counts_in_runs():
    wrong, label = informed(30_000, [2]), np.r_[coins(5_000), np.zeros(5_000)]
    assert Breaker().update(wrong, wrong.source != 2).all()
    assert not Breaker().update(wrong).all()
    assert not Breaker().update(rows(label, dealt(10_000)), np.zeros(10_000, np.bool_)).all()


def test_a_run_that_the_corrected_scores_have_learned_to_expect_does_not_trip_it():
    label = coins(30_000)
    label[20_000:22_000] = 0
    learned = np.where(np.arange(30_000) // 1_000 == 20, -0.8 - np.arange(30_000) % 1_000 / 20, -0.8)
    learned[21_000:22_000] = -8.0
    assert Breaker().update(rows(label, dealt(30_000), corrected=learned)).all()
    assert not Breaker().update(rows(label, dealt(30_000), corrected=np.maximum(learned, -2.5))).all()


def test_after_a_reset_a_sender_starts_with_no_evidence():
    breaker, examples = Breaker(), informed(30_000, [2])
    breaker.update(examples)
    breaker.reset()
    learned = breaker.update(informed(30_000, [2], seed=1))
    assert int(np.argmin(learned)) > 500


@pytest.mark.parametrize("rate", [0.002, 0.005, 0.02])
def test_a_base_that_tells_rows_apart_expects_no_less_than_one_that_does_not(rate):
    rng, late = np.random.default_rng(0), []
    for _ in range(20):
        chance = rate * np.minimum(np.exp(rng.normal(0, 1.5, 80_000) - 1.125), 40)
        label = (rng.random(80_000) < chance).astype(np.float32)
        begin = int(rng.integers(50_000, 60_000))
        label[begin:] = 0
        examples = replace(rows(label, dealt(80_000)), base=np.float32(np.log(chance / (1 - chance))).reshape(-1, 1))
        learned = Breaker().update(examples)
        assert learned[:begin].all()
        late.append(int(np.argmin(learned)) > begin + max(1_000, np.searchsorted(np.cumsum(chance[begin:]), 20)) + CHECK)
    assert np.mean(late) <= 0.05


@pytest.mark.parametrize("learned", [True, False])
def test_one_upload_of_over_1000_negatives_trips_it_and_the_same_again_only_if_the_first_was_skipped(learned):
    label = coins(30_000)
    label[10_000:11_500] = label[20_000:21_500] = 0
    breaker = Breaker()
    assert not breaker.update(rows(label[:15_000], dealt(15_000))).all()
    breaker.reset(learned)
    assert breaker.update(rows(label[15_000:], dealt(15_000))).all() == learned


def test_edge_ids_labels_and_scores_that_are_no_numbers_and_empty_blocks_are_taken():
    odd = np.resize(np.float32([0, 1, np.nan, np.inf, -np.inf, 7, 1e38]), 5_000)
    source = np.resize(np.array([0, -1, 2**63 - 1, -(2**63), 2**32]), 5_000)
    breaker = Breaker()
    examples = rows(odd, source, corrected=odd[::-1].copy(), weight=np.resize(odd, 5_000))
    examples.base[::3, 0] = odd[::3]
    breaker.update(examples)
    assert len(breaker.update(examples[0:0])) == 0
    assert all(np.isfinite(a).all() for a in breaker.state().values())


@pytest.mark.parametrize(
    "change",
    [
        {"places/label": None},
        {"places/evidence": np.zeros(3)},
        {"places/label": np.full(34, 2)},
        {"places/evidence": np.full((34, 2), np.nan)},
        {"tally/senders": np.array([33])},
        {"tally/place": np.array([-1])},
        {"latest/count": np.array([-1, 0])},
    ],
)
def test_a_saved_state_that_is_none_is_refused_and_changes_nothing(change):
    breaker = Breaker()
    breaker.update(eventful()[0])
    before = bits(breaker)
    saved = {name: a for name, a in (breaker.state() | change).items() if a is not None}
    with pytest.raises(Corrupt, match=next(iter(change))):
        breaker.load(saved)
    assert bits(breaker) == before


def test_the_state_of_version_0_1_is_taken_and_it_starts_anew():
    breaker, tallies = Breaker(), np.zeros(21, np.int64)
    tallies[:4] = 9_000, 1, 8_000, 2
    breaker.load({"tallies": tallies, "levels": np.zeros(16), "series": np.zeros((3, 7))})
    assert (breaker.open, breaker.trips, breaker.reason) == (False, 2, None)
    assert breaker.update(informed(5_000)).all()


CLASSES = Multiclass(["cat", "dog", "owl"])


def classes(label, seed=0, confidence=1.0, source=None, informed=False):
    """Examples of 3 classes whose base knows little of the label; corrected outputs know it if `informed`."""
    rng, count = np.random.default_rng(seed), len(label)
    base = rng.normal(0, 0.3, (count, 3)).astype(np.float32)
    made = Examples.unserved({}, base, np.float32(label), np.zeros(count), source)
    truth = np.eye(3, dtype=np.float32)[np.asarray(label, int)] * np.float32(confidence)
    return replace(made, corrected=base + truth) if informed else made


@pytest.mark.parametrize("share", [(0.4, 0.3, 0.3), (0.9, 0.05, 0.05), (0.98, 0.01, 0.01)])
def test_labels_of_classes_that_stay_as_frequent_as_they_were_do_not_trip_it(share):
    for seed in range(8):
        label = np.random.default_rng(seed).choice(3, 20_000, p=share)
        assert Breaker(CLASSES).update(classes(label, seed)).all(), seed


def test_classes_that_truly_come_in_long_runs_do_not_trip_it():
    label = np.repeat(np.random.default_rng(0).permuted(np.tile(np.arange(3), (20, 1)), axis=1).ravel(), 1_500)
    assert Breaker(CLASSES).update(classes(label)).all()


@pytest.mark.parametrize("stuck", [0, 1, 2])
def test_one_class_that_does_not_end_trips_it_and_is_named(stuck):
    label = np.random.default_rng(stuck).integers(0, 3, 4_000)
    label[2_000:] = stuck
    breaker, parts = Breaker(CLASSES), Breaker(CLASSES)
    learned = breaker.update(classes(label))
    assert 3_000 <= int(np.argmin(learned)) < 3_200
    assert f"labels of all senders are {CLASSES.classes[stuck]!r}, where" in breaker.reason
    assert "of the others were expected" in breaker.reason
    edges, examples = [0, 700, 1_999, 3_050, 3_051, 4_000], classes(label)
    assert np.array_equal(
        np.concatenate([parts.update(examples[a:b]) for a, b in zip(edges, edges[1:], strict=False)]), learned
    )
    assert bits(parts) == bits(breaker)
    again = Breaker(CLASSES)
    again.load(breaker.state())
    assert (bits(again), again.reason) == (bits(breaker), breaker.reason)
    again.reset(learned=True)
    assert again.update(classes(np.full(3_000, stuck))).all()


def test_a_sender_of_wrong_classes_is_named_and_a_state_of_other_classes_is_refused():
    source, label = dealt(20_000), np.random.default_rng(1).integers(0, 3, 20_000)
    examples = classes(label, source=source, confidence=3.0, informed=True)
    lies = (source == 4) & (np.arange(20_000) >= 2_000)
    examples = replace(examples, label=np.float32(np.where(lies, (label + 1) % 3, label)))
    breaker = Breaker(CLASSES)
    assert not breaker.update(examples).all()
    assert "labels of sender 4" in breaker.reason
    with pytest.raises(Corrupt):
        Breaker(Multiclass(["cat", "dog"])).load(breaker.state())


def test_labels_and_outputs_of_classes_that_are_not_valid_are_not_observed():
    examples = classes(np.resize([0, 1, 2], 3_000))
    examples.label[::2] = np.resize(np.float32([np.nan, -1, 3, 0.5, np.inf]), 1_500)
    examples.base[::3, 1] = np.nan
    breaker = Breaker(CLASSES)
    assert breaker.update(examples).all()
    assert all(np.isfinite(a).all() for a in breaker.state().values())


@pytest.mark.parametrize("loss", [Regression(), Count(), Ranking()])
def test_it_is_off_for_labels_that_it_cannot_test(loss):
    assert not Breaker.watches(loss)
