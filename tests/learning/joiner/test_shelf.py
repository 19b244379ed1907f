"""A shelf finds and gathers rows however they came and went."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt
from riverdelta.learning.joiner.shelf import Shelf


def rows(keys, sequence):
    keys = np.array(keys, np.int64)
    return {"key": keys, "sequence": np.full(len(keys), sequence), "double": np.stack([keys, keys * 2.0], axis=1)}


@settings()
@given(st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1)), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_it_holds_what_was_added_and_not_removed(steps, seed):
    shelf, rng, kept, end = Shelf(), np.random.default_rng(seed), set(), 0
    for sequence, (count, removed) in enumerate(steps):
        keys = end + 1 + np.cumsum(rng.integers(1, 3, count))
        end = int(keys[-1])
        shelf.add(rows(keys, sequence))
        kept |= set(keys.tolist())
        gone = rng.permutation(sorted(kept))[: int(removed * len(kept))]
        at, found = shelf.find(gone)
        assert found.all()
        shelf.remove(at)
        kept -= set(gone.tolist())
        asked = np.arange(end + 3)
        at, found = shelf.find(asked)
        assert set(asked[found].tolist()) == kept
        assert shelf["double"][at[found]].tolist() == [[key, key * 2.0] for key in sorted(kept)]
        assert (shelf.rows, shelf["key"][shelf.all()].tolist()) == (len(kept), sorted(kept))


def test_the_oldest_rows_are_those_of_one_record_that_are_still_there():
    shelf = Shelf()
    shelf.add(rows([1, 2, 3], 7))
    shelf.add(rows([5, 6], 9))
    shelf.remove(np.array([0]))
    assert shelf["key"][shelf.oldest()].tolist() == [2, 3]
    shelf.remove(shelf.oldest())
    assert shelf["key"][shelf.oldest()].tolist() == [5, 6]


def test_an_empty_shelf_finds_nothing():
    assert Shelf().find(np.array([1, 2]))[1].tolist() == [False, False]
    shelf = Shelf()
    shelf.add(rows([], 1))
    shelf.add(rows([4], 1))
    shelf.remove(np.array([0]))
    assert shelf.find(np.array([4]))[1].tolist() == [False]


@pytest.mark.parametrize("keys", [[3], [2], [5, 4], [6, 6]])
def test_keys_that_do_not_ascend_are_refused(keys):
    shelf = Shelf()
    shelf.add(rows([1, 3], 1))
    with pytest.raises(Corrupt, match="do not ascend"):
        shelf.add(rows(keys, 2))
