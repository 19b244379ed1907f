"""Slots agree between Python integers, the kernel and the graph, and spread evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.checks.law import run
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.nodes import Nodes
from riverdelta.corrections.hashing import Hash, P

EDGES = [0, 1, -1, P, P - 1, -P, 2**32 - 1, 2**32, -(2**32), 2**32 + 1, 2**63 - 1, -(2**63), -(2**63) + 1]
INT64 = st.one_of(st.sampled_from(EDGES), st.integers(-(2**63), 2**63 - 1))


def by_hand(h, *ids):
    total = h.c
    for a, b, x in zip(h.a, h.b, ids, strict=True):
        lo = x % 2**32
        hi = (x - lo) // 2**32
        total += (a * (lo % P)) % P + (b * (hi % P)) % P
    return total % P % h.slots


def in_graph(h, *columns):
    nodes = Nodes(17)
    names = [f"x{i}" for i in range(len(columns))]
    out = h.export(nodes, *names)
    return run(nodes, out, dict(zip(names, columns, strict=True)))


@settings(max_examples=40)
@given(st.lists(st.tuples(INT64, INT64), min_size=1, max_size=30), st.integers(1, 2**24), st.text(max_size=5))
def test_slots_are_those_of_python_integers_in_kernel_and_graph(pairs, slots, name):
    pairs = pairs + [(a, b) for a, b in zip(EDGES, reversed(EDGES), strict=True)]
    one, two = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    single, cross = Hash.draw(name, 1, slots), Hash.draw(name, 2, slots)
    expected = [by_hand(single, x) for x in one.tolist()]
    assert single(one).tolist() == expected == in_graph(single, one).tolist()
    expected = [by_hand(cross, x, y) for x, y in pairs]
    assert cross(one, two).tolist() == expected == in_graph(cross, one, two).tolist()


@pytest.mark.parametrize(
    "ids",
    [
        np.arange(20_000),
        -np.arange(20_000),
        *(np.arange(20_000) << k for k in (1, 5, 16, 31, 32, 33, 40)),
        np.arange(20_000) * (2**32 + 1),
    ],
    ids=["sequential", "negative", *(f"stride 2^{k}" for k in (1, 5, 16, 31, 32, 33, 40)), "both halves"],
)
def test_patterned_ids_spread_over_the_slots(ids):
    slots = 1024
    for name in ("user_id", "item_id", "x"):
        counts = np.bincount(Hash.draw(name, 1, slots)(ids), minlength=slots)
        # A multiply-mod-prime hash maps a line of ids more evenly than chance, or near it: never far worse.
        assert ((counts - counts.mean()) ** 2).sum() / counts.mean() < 2 * slots
        assert counts.max() < 4 * counts.mean()


def test_drawn_coefficients_are_the_same_on_every_machine():
    h = Hash.draw("user_id", 1, 8)
    assert (h.a, h.b, h.c) == (
        (Hash.draw("user_id", 1, 99).a),
        (Hash.draw("user_id", 1, 99).b),
        Hash.draw("user_id", 1, 99).c,
    )
    assert h.a != Hash.draw("item_id", 1, 8).a


@pytest.mark.parametrize("slots", [0, -1, 2**24 + 1])
def test_slots_out_of_range_are_refused_by_value(slots):
    with pytest.raises(ConfigurationError, match=str(slots)):
        Hash.draw("x", 1, slots)
