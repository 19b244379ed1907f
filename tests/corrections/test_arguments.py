"""Arguments of corrections: each is checked when the correction is made; the error has its name, its value and an example."""

import numpy as np
import pytest
from river.linear_model import LogisticRegression

from riverdelta import Calibration, Entity, Linear, Lookup, Schema, Stack
from riverdelta.core.errors import ConfigurationError
from riverdelta.river import River

MAKERS = {
    "calibration": Calibration,
    "linear": lambda **given: Linear("u", **given),
    "ftrl": lambda **given: Linear("u", method="ftrl", **given),
    "entity": lambda **given: Entity("u", **given),
    "river": lambda **given: River(LogisticRegression(), ("u",), **given),
}
NUMBERS = ["1", None, True, -1, float("nan"), -float("inf"), 1j]
BAD = {
    "variance": [*NUMBERS, 0, float("inf"), 1e-320],
    "rate": [*NUMBERS, 0, float("inf")],
    "clip": [*NUMBERS, 0],
    "radius": [*NUMBERS, 0],
    "forget": [*NUMBERS, 0, 1.1],
    "beta": [*NUMBERS, float("inf")],
    "l1": [*NUMBERS, float("inf")],
    "l2": [*NUMBERS, float("inf")],
    "slots": [0, -1, True, 8.0, "8", None, 2**24 + 1, 2**40],
    "intercept": [1, 0, None, "yes"],
    "offset": ["", 3, ["offset"], "a\0b"],
}
TAKEN = {
    "calibration": ["variance", "forget", "clip", "radius", "offset"],
    "linear": ["rate", "beta", "l2", "slots", "intercept", "offset", "clip", "radius"],
    "ftrl": ["rate", "beta", "l1", "l2", "slots", "intercept", "offset", "clip", "radius"],
    "entity": ["variance", "forget", "slots", "offset", "clip", "radius", "intercept"],
    "river": ["slots", "offset"],
}
CASES = [(maker, name, value) for maker, names in TAKEN.items() for name in names for value in BAD[name]]


@pytest.mark.parametrize(("maker", "name", "value"), CASES, ids=str)
def test_an_argument_that_is_not_allowed_is_refused_by_name_and_value(maker, name, value):
    with pytest.raises(ConfigurationError) as refused:
        MAKERS[maker](**{name: value})
    assert str(refused.value).startswith(f"{name} is {value!r}; expected ")


def test_numbers_of_numpys_are_taken_as_pythons():
    assert repr(Entity("u", slots=np.int64(8))) == repr(Entity("u", slots=8))
    assert repr(Entity("u", variance=np.float32(0.25), radius=np.int64(4))) == repr(Entity("u", variance=0.25, radius=4))


@pytest.mark.parametrize("key", ["", None, 3, (), ("u", ""), ("u", 3), [], {"u"}, "a\0b"], ids=str)
def test_a_key_that_is_not_a_column_is_refused(key):
    with pytest.raises(ConfigurationError, match=r"name an id column|key is .*; expected the name of a column"):
        Entity(key)


def test_one_feature_alone_is_that_feature():
    vector = Lookup("vector", "u", {1: [1.0, 2.0]})
    assert Entity("u", on="vec").on == ["vec"]
    assert Entity("u", on="vec").reads == ("u", "vec")
    assert Entity("u", on=vector).on == [vector]


@pytest.mark.parametrize("on", [3, None, [3], [""], ["h", "h"], [("h", "g")], [None]], ids=str)
def test_features_of_an_entity_that_are_not_columns_or_come_twice_are_refused(on):
    with pytest.raises(ConfigurationError, match=r"a feature of on is .*on=\[|has the feature 'h' twice"):
        Entity("u", on=on)


def test_a_list_of_features_is_refused_with_both_lines_that_it_may_mean():
    message = r"Linear\('a', 'b'\) for a feature of each column, or Linear\(\('a', 'b'\)\) for their cross"
    with pytest.raises(ConfigurationError, match=message):
        Linear(["a", "b"])
    assert Linear(("a", "b")).keys == ("a", "b")


@pytest.mark.parametrize("features", [("a", "a"), (("a", "b"), ("a", "b")), (3,), ("",), ((),), (None,), (("a", 3),)], ids=str)
def test_features_that_are_not_columns_or_come_twice_are_refused(features):
    with pytest.raises(ConfigurationError, match=r"twice|a feature of Linear is"):
        Linear(*features)


@pytest.mark.parametrize("name", ["", "a/b", "a\0b", "..", "-a", "gate", "tap", "a" * 65, None, 3, "é"], ids=repr)
def test_a_name_that_a_table_cannot_have_is_refused_with_what_it_may_be(name):
    with pytest.raises(ConfigurationError, match=r"name is .*; expected 1 to 64 letters"):
        Calibration().named(name)


@pytest.mark.parametrize("corrections", [3, "calibration", None, {"a": Calibration()}, [3], [[Calibration()]]], ids=str)
def test_what_is_not_a_list_of_corrections_is_refused(corrections):
    with pytest.raises(ConfigurationError, match=r"expected (a list of )?corrections"):
        Stack(corrections)


def test_one_correction_alone_is_a_stack_of_one():
    assert Stack(Calibration()).names == ("calibration",)


@pytest.mark.parametrize("use", ["predict", "learn", "tables", "state", "digest"])
@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_used_before_it_is_bound_says_so_with_the_line_to_write(maker, use):
    stack, one = Stack(MAKERS[maker]()), np.zeros((1, 1), np.float32)
    given = {"predict": ({}, one), "learn": ({}, one, one[0], one[0])}.get(use, ())
    with pytest.raises(ConfigurationError, match=r"not bound to columns; bind it first, with .*stack\.bind"):
        getattr(stack, use)(*given)
    with pytest.raises(AttributeError, match="has no attribute 'slotz'") as plain:
        _ = stack.corrections[0].slotz
    assert not isinstance(plain.value, ConfigurationError)
    stack.bind(Schema.of({"u": "float32" if maker == "river" else "int64"}))
    with pytest.raises(AttributeError, match="has no attribute 'never_heard_of'"):
        _ = stack.corrections[0].never_heard_of
