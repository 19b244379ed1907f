"""A delta reads back as it was written, or is refused."""

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt
from riverdelta.storage.registry import Delta, State

DELTA = Delta(
    State(3, 8, 90),
    State(3, 7, 80),
    {
        "riverdelta/entity/mean": (np.array([1, 5]), np.arange(6, dtype=np.float32).reshape(2, 3)),
        "riverdelta/linear/w": (np.empty(0, np.int64), np.empty((0, 1), np.float32)),
    },
    np.array([1.5, 2.5]),
    3.5,
)


def test_a_delta_reads_back_as_it_was_written():
    read = Delta.decode(DELTA.encode(), "it")
    assert (read.state, read.base, read.published) == (DELTA.state, DELTA.base, 3.5)
    assert read.received.tolist() == [1.5, 2.5]
    assert read.tables.keys() == DELTA.tables.keys()
    for name, (rows, values) in DELTA.tables.items():
        assert np.array_equal(read.tables[name][0], rows)
        assert read.tables[name][1].dtype == np.float32
        assert np.array_equal(read.tables[name][1], values)


def test_a_whole_has_no_base_and_no_rows():
    read = Delta.decode(Delta(State(0, 1, 0), None, {"t": (None, np.ones((2, 1), np.float32))}).encode(), "it")
    assert read.base is None
    assert read.tables["t"][0] is None


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_flipped_bit_is_refused_by_name(place):
    data = bytearray(DELTA.encode())
    data[place] ^= 1
    with pytest.raises(Corrupt, match=r"live state 8 cannot be used: its .* bytes do not match the digest"):
        Delta.decode(bytes(data), "live state 8")


@pytest.mark.parametrize("data", [b"", b"short", bytes(64)])
def test_anything_else_is_refused(data):
    with pytest.raises(Corrupt, match=r"it cannot be used: its .* do not match"):
        Delta.decode(data, "it")
