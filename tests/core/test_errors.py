"""Errors: what a client sent is shown in few characters, and compared with nothing if it is long."""

import numpy as np
import pytest

from riverdelta.core import errors
from riverdelta.core.errors import near, short


class Unsorted(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __lt__(self, other):
        raise AssertionError("sorted")


@pytest.mark.parametrize(
    "value",
    [
        "a" * 1_000_000, b"a" * 1_000_000, ["a" * 10_000] * 10_000, {Unsorted(i): [1] * 1_000 for i in range(1_000)},
        [[[[[[[[[1]]]]]]]]] * 100, [float("nan")] * 100, np.zeros(10_000), "\x00\ud800" * 10_000,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_is_shown_in_few_characters(value):
    assert 2 < len(short(value)) < 1_500


def test_a_short_value_is_shown_in_full():
    assert [short(value) for value in ("user", b"x", 1.5, [1, 2], {"a": None})] == [
        "'user'",
        "b'x'",
        "1.5",
        "[1, 2]",
        "{'a': None}",
    ]


@pytest.mark.parametrize("length", [101, 1_000_000])
def test_a_long_name_is_not_compared(monkeypatch, length):
    monkeypatch.setattr(errors, "get_close_matches", None)
    assert near("a" * length, ["b", "a"]) == "there are: a, b"
