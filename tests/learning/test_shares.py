"""Shares: everyday operations are learned in full, and a flood from one sender, or from many new ones, is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.checks import Part, check
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.hashing import id64
from riverdelta.learning.shares import RECENT, WARM_UP, Shares

RNG = np.random.default_rng(0)


class Service:
    """Weights of a stream of labels, ten seconds apart."""

    def __init__(self, burst=4.0):
        self.shares, self.now = Shares(burst), 0.0

    def send(self, source, weight=None, seconds=10.0):
        source = np.asarray(source, np.int64)
        weight = np.ones(len(source), np.float32) if weight is None else np.asarray(weight, np.float32)
        times = self.now + seconds * np.arange(1, len(source) + 1)
        self.now = float(times[-1])
        return self.shares.admit(source, weight, times)


def mixed(rows, *shares):
    """Senders 1, 2, … in these proportions."""
    return RNG.choice(np.arange(1, len(shares) + 1), rows, p=np.array(shares) / sum(shares))


EVERYDAY = {
    "one sender": [mixed(20_000, 1)],
    "eight senders": [mixed(20_000, *[1] * 8)],
    "senders in turn": [np.arange(20_000) % 8 + 1],
    "a dominant sender whose other pauses": [mixed(20_000, 95, 5), mixed(3_000, 1), mixed(10_000, 95, 5)],
    "a dominant sender with a rare one": [mixed(50_000, 99.9, 0.1)],
    "two that are merged": [mixed(20_000, 1, 1), mixed(20_000, 1)],
    "three of which two pause": [mixed(20_000, 6, 3, 1), mixed(300, 0, 0, 1), mixed(10_000, 6, 3, 1)],
    "one that doubles": [mixed(20_000, 7, 1), mixed(10_000, 7, 2)],
    "a hundred senders": [RNG.integers(1, 101, 30_000)],
    "every label from an address of its own": [np.arange(1, 30_001)],
    "two that begin at once": [mixed(30_000, 1, 1)],
    "one that begins in the first examples": [mixed(1_000, 1), mixed(30_000, 1, 1)],
    "negatives by silence": [mixed(10_000, 1, 1), np.zeros(50_000), mixed(10_000, 1, 1)],
}


@pytest.mark.parametrize("name", EVERYDAY)
def test_everyday_operations_cost_no_weight(name):
    service = Service()
    assert all((service.send(block) == 1).all() for block in EVERYDAY[name])
    assert service.shares.report({})["capped"] == 0


def test_a_new_sender_begins_small_and_is_learned_in_full_in_the_end():
    service = Service()
    service.send(mixed(20_000, 1))
    kept = []
    for _ in range(12):
        source = mixed(10_000, 1, 1)
        kept.append(float(service.send(source)[source == 2].mean()))
    assert 0.1 < kept[0] < 0.5
    assert kept[-4:] == [1.0] * 4


def test_a_sender_that_takes_the_place_of_another_is_learned_in_full_within_an_hour():
    service = Service()
    service.send(mixed(20_000, 1))
    learned = service.send(np.full(20_000, 2))
    assert (learned[361:] == 1).all()
    # It is the usual one from then on, whoever comes later.
    later = mixed(20_000, 0, 99, 1)
    assert (service.send(later)[later == 2] == 1).all()


def test_the_nightly_batch_of_a_second_system_is_thinned():
    service = Service()
    for _ in range(3):
        service.send(mixed(20_000, 1))
        night = mixed(4_000, 3, 7)
        learned = service.send(night)
        assert (learned[night == 1] == 1).all()
        assert 0.05 < learned[night == 2].mean() < 1


@pytest.mark.parametrize("times", [1, 10, 100])
def test_a_flood_of_any_size_is_learned_as_a_few_of_the_others_examples(times):
    service = Service()
    service.send(mixed(20_000, *[1] * 8))
    source = mixed(1_000 * (1 + times), *[1 / 8] * 8, times)
    learned = service.send(source, seconds=0.1)
    assert (learned[source < 9] == 1).all()
    assert learned[source == 9].sum() < 2 * RECENT * 0.04 / 0.96 * (1 + np.log(times * 1_000 / (RECENT * 0.04)))


@pytest.mark.parametrize("pattern", ["at random", "in turn", "in blocks"])
def test_a_hundred_thousand_new_senders_are_learned_as_one(pattern):
    service = Service()
    service.send(mixed(20_000, *[1] * 8))
    number = {
        "at random": RNG.integers(10**6, 10**6 + 100_000, 100_000),
        "in turn": np.arange(100_000) + 10**6,
        "in blocks": np.repeat(np.arange(1_000), 100) + 10**6,
    }[pattern]
    source = np.where(RNG.random(100_000) < 0.9, number, mixed(100_000, *[1] * 8))
    learned = service.send(source)
    one, alike = Service(), np.minimum(source, 99)
    one.send(mixed(20_000, *[1] * 8))
    assert learned[source >= 10**6].sum() < 1.5 * one.send(alike)[alike == 99].sum() < 0.6 * (source < 9).sum()
    # Some share the account of an established sender by its hash, which is then learned less for a while.
    assert learned[source < 9].mean() > 0.75


def test_one_request_of_many_rows_lets_no_time_pass_for_its_sender():
    service = Service()
    service.send(mixed(20_000, *[1] * 8))
    learned = service.send(np.full(16_384, 99), seconds=0.0)
    assert learned.sum() < 1_200
    assert learned[:1_000].sum() > learned[-8_000:].sum() > 0


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5),
            st.sampled_from([0.0, 1.0, 1e-30, 1e30, np.inf, -1.0, np.nan]) | st.floats(0, 100, width=32),
            st.sampled_from([0.0, 1.0, 1e12, -1e12, np.inf, np.nan]) | st.floats(0, 1e6),
        ),
        max_size=60,
    )
)
def test_what_counts_for_nobody_is_admitted_and_the_account_stays_finite_whatever_comes(rows):
    service = Service()
    service.send(mixed(6_000, 1, 2, 3))
    source, weight, received = (np.array([row[at] for row in rows], kind) for at, kind in enumerate("qfd"))
    learned = service.shares.admit(source, weight, received)
    same = ~(weight > 0) | (source == 0)
    assert learned[same].all()
    state = service.shares.state()
    assert np.isfinite(state["accounts"][:, :5]).all()
    assert np.isfinite(state["whole"][0])
    after = service.send(mixed(2_000, 1, 2, 3), seconds=0.0)
    assert after.any()


def test_a_few_examples_of_huge_weight_do_not_push_the_others_out():
    service = Service()
    service.send(mixed(20_000, *[1] * 8))
    service.send(np.full(20, 99), np.full(20, np.inf))
    assert service.send(mixed(10_000, *[1] * 8)).mean() > 0.9


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9_000), max_size=5))
def test_blocks_may_be_cut_anywhere(cuts):
    source = np.concatenate([mixed(5_000, 1, 1, 1), mixed(4_000, 1, 1, 1, 20)])
    weight, received = RNG.uniform(0, 3, 9_000).astype(np.float32), np.arange(9_000.0)
    whole, cut, parts = Shares(), Shares(), []
    expected = whole.admit(source, weight, received)
    edges = sorted({0, *cuts, 9_000})
    for start, stop in zip(edges, edges[1:], strict=False):
        parts.append(cut.admit(source[start:stop], weight[start:stop], received[start:stop]))
    assert np.concatenate(parts).tobytes() == expected.tobytes()
    assert {n: a.tobytes() for n, a in whole.state().items()} == {n: a.tobytes() for n, a in cut.state().items()}


def test_it_goes_on_from_its_state():
    source = np.concatenate([mixed(5_000, 1, 1, 1), mixed(1_000, 1, 1, 1, 20)])

    def feed(shares, start, stop):
        shares.admit(source[start:stop], np.ones(stop - start, np.float32), np.arange(start, stop) * 1.0)

    check(Part(Shares, feed, 6_000, cuts=5))


def test_the_report_names_senders_and_a_burst_below_the_usual_share_is_refused():
    service = Service()
    service.send(np.where(RNG.random(int(WARM_UP) * 2) < 0.5, id64("shop"), id64("app")))
    usual = service.shares.report({id64("shop"): "shop", id64("gone"): "gone"})["usual"]
    assert usual["shop"] == pytest.approx(0.5, abs=0.1)
    assert usual["gone"] == 0
    for burst in (0.5, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match=r"burst is .* expected a number of 1"):
            Shares(burst)
