"""Texts of string ids: found once an hour, by what the request said, and never beyond the bound."""

import numpy as np
import pytest

from riverdelta.core.hashing import id64
from riverdelta.serving.texts import LONGEST, NOTED_SECONDS, Texts

USERS = {"user": np.array([id64("ann"), 7])}


@pytest.mark.parametrize("given", [["ann", 7], ("ann", 7), np.array(["ann", 7], object), np.array([b"ann", b"7"]), [b"ann", 7]])
def test_a_text_is_found_in_whatever_form_it_comes(given):
    assert Texts(["user"], 10, lambda: 0.0).new({"user": given}, USERS)[id64("ann")] == "ann"


def test_a_text_is_found_again_after_an_hour_so_that_it_outlives_no_row():
    now = [0.0]
    texts = Texts(["user"], 10, lambda: now[0])
    found = [texts.new({"user": ["ann", 7]}, USERS) for now[0] in (0.0, NOTED_SECONDS, NOTED_SECONDS + 1.0)]
    assert found == [{id64("ann"): "ann"}, {}, {id64("ann"): "ann"}]


@pytest.mark.parametrize("long", ["x" * (LONGEST + 1), b"\xff"])
def test_what_is_too_long_or_no_text_is_left_out(long):
    assert Texts(["user"], 10, lambda: 0.0).new({"user": [long]}, {"user": np.array([5])}) == {}


def test_integers_other_columns_and_a_bound_of_0_give_nothing():
    texts = Texts(["user"], 10, lambda: 0.0)
    assert texts.new({"user": [7, 8], "x": ["a", "b"]}, {"user": np.array([7, 8]), "x": np.array([1, 2])}) == {}
    assert Texts(["user"], 0, lambda: 0.0).new({"user": ["ann", 7]}, USERS) == {}
