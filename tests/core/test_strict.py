"""What is wrong with a value is said by where it is, what it is and what was expected; nothing is converted."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from riverdelta.core.errors import InvalidInput
from riverdelta.core.strict import Strict, validated


class Part(Strict):
    name: str
    sizes: dict[str, int] = {}
    label: float | bool | None = None
    more: dict[str, Any] = {}


class Order(Strict):
    parts: Annotated[list[Part], Field(min_length=1, examples=[[{"name": "a"}]])]
    number: Annotated[int, Field(gt=0, le=9)] | None = None
    first: Part | None = None

    @model_validator(mode="after")
    def _counts(self):
        if self.number == 7:
            raise ValueError("a number that is not 7")
        return self


PART = {"name": "a"}
REFUSED = {
    "no object": ([], "it is a list; expected an object with parts, number, first"),
    "a key missing": ({}, "it has no 'parts'; expected an object with parts, number, first, as in "),
    "an unknown key": (
        {"parts": [PART], "nubmer": 1},
        'it has \'nubmer\': did you mean number? Allowed: parts, number, first, as in {"parts":[{"name":"a"}]}',
    ),
    "a required key by a wrong name": ({"part": [PART]}, "it has 'part': did you mean parts?"),
    "an unknown key inside": ({"parts": [PART, {**PART, "x": 1}]}, "it (parts[1]) has 'x'; allowed: name, sizes, label, more"),
    "a key missing inside": ({"parts": [{}]}, "it (parts[0]) has no 'name'; expected an object with name"),
    "a list that is empty": ({"parts": []}, "it: parts is []; expected a list of at least 1, as in"),
    "an item of another kind": ({"parts": [5]}, "it: parts[0] is 5; expected an object with name"),
    "text for a number": ({"parts": [PART], "number": "1"}, "it: number is '1'; expected an integer above 0 and at most 9"),
    "a bool for a number": ({"parts": [PART], "number": True}, "it: number is True; expected an integer above 0"),
    "a value of a mapping": ({"parts": [{**PART, "sizes": {"x": 1.5}}]}, "it: parts[0].sizes.x is 1.5; expected an integer"),
    "none of two types": ({"parts": [{**PART, "label": "1"}]}, "it: parts[0].label is '1'; expected a number"),
    "inside an optional model": ({"parts": [PART], "first": {"name": 1}}, "it: first.name is 1; expected text"),
    "a rule of the model": ({"parts": [PART], "number": 7}, "it is a dict; expected a number that is not 7"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named_by_its_place_with_what_was_expected(name):
    given, said = REFUSED[name]
    with pytest.raises(InvalidInput) as refused:
        validated(Order, given, "it")
    assert str(refused.value).startswith(said)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["parts", "number", "first", "name", "sizes", "label", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON | st.fixed_dictionaries({"parts": JSON | st.lists(JSON, max_size=3)}, optional={"number": JSON, "first": JSON}))
def test_any_value_is_a_model_or_an_error_of_few_words(value):
    said = ""
    try:
        validated(Order, value, "it")
    except InvalidInput as error:
        said = str(error)
    assert len(said) < 1_000


class Shelf(Strict):
    """A model with a list, whose first invalid element is enough."""

    books: list[Part] = Field(fail_fast=True)
    name: str = ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({str(i): i for i in range(10_000)} | {"name": 1}, "has '0'"),
        ({"books": [], "name": "a"} | {str(i): i for i in range(10_000)}, "has '0'"),
        ({"books": [{}] * 10_000}, "has no 'name'"),
        ({"books": [{"name": "a"} | {str(i): i for i in range(10_000)}]}, "has '0'"),
    ],
)
def test_few_errors_are_made_of_many_mistakes(given, said):
    with pytest.raises(ValidationError) as found:
        Shelf.model_validate(given)
    assert found.value.error_count() < 6
    with pytest.raises(InvalidInput, match=said):
        validated(Shelf, given, "the body")
