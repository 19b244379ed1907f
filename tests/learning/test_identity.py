"""What a home stores of its definition: every option by name and value, and today's defaults give way to the stored ones."""

import json
import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pickle import dumps, loads

import numpy as np
import onnx
import onnx.parser
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from river import linear_model, optim, preprocessing
from riverdelta import Calibration, Entity, Linear, Lookup, River, Schema
from riverdelta.core.errors import ConfigurationError, Corrupt
from riverdelta.corrections.base import Correction
from riverdelta.learning.definition import Definition
from riverdelta.learning.differences import differences
from riverdelta.learning.identity import describe, read, settle
from riverdelta.learning.options import default, value

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""
OPTIONS = ("on", "intercept", "variance", "forget", "slots", "offset", "clip", "radius")
NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@pytest.fixture
def define(tmp_path):
    """define(*corrections): a definition of them, with a declared column and a tap."""
    path = tmp_path / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(RANKER), path)

    def make(*corrections, **more):
        given = {"taps": {"half_x": "logit"}, "columns": Schema.of({"hour": "float32"}), **more}
        return Definition("ranker", path, "logit", corrections=corrections, **given)

    return make


def pipeline(rate=0.1, l2=0.0):
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(rate), l2=l2)


@given(NUMBERS | st.lists(NUMBERS).map(tuple))
def test_a_default_comes_back_from_what_is_stored_of_it(option):
    assert default(value(option)) == option


def test_every_kind_of_correction_is_read_back_as_it_was_described(define):
    likes = Lookup("likes", key="user", table={1: [1.0, 0.0]})
    stack = (
        Calibration(radius=math.inf).named("slow"),
        Linear("user", ("user", "user"), slots=8),
        Entity("user", on=["half_x", likes], slots=8),
        River(pipeline(), features=("hour",)),
    )
    described = describe(define(*stack))
    assert read(described.model_dump_json().encode()) == described
    slow, _, entity, river = described.corrections
    assert (slow.name, slow.parameters["radius"]) == ("slow", {"float": "inf"})
    assert entity.reads == ["user", "half_x"]
    assert entity.parameters["on"][1]["parameters"] == likes.identity()
    step = river.parameters["pipeline"]["parameters"]["steps"]["LogisticRegression"]["parameters"]
    assert step["optimizer"]["parameters"]["lr"]["parameters"] == {"learning_rate": 0.1}
    assert described.taps["half_x"].model_dump() == {"tensor": "logit", "type": "float32[N]"}


def test_what_is_described_does_not_depend_on_the_process_or_on_what_was_learned(define):
    model = pipeline()
    before = describe(define(River(model, features=("hour",))))
    model.learn_one({"hour": 1.0}, True)
    assert describe(define(River(model, features=("hour",)))) == before
    assert " at 0x" not in before.model_dump_json()


def test_damage_is_named_by_where_it_is(define):
    described = describe(define(Calibration())).model_dump()
    described["corrections"][0]["reads"] = 7
    with pytest.raises(Corrupt, match=r"^it: corrections\[0\]\.reads is .*; expected a list"):
        read(json.dumps(described).encode())


class Shrunk(Entity):
    """A user's own class, which names one option of Entity's."""

    def __init__(self, key, slots=64, offset="offset"):
        super().__init__(key, slots=slots, offset=offset)


def test_an_option_that_a_class_leaves_to_the_one_it_is_made_from_is_stored_too(define):
    (described,) = describe(define(Shrunk("user"))).corrections
    assert described.parameters["variance"] == 0.5
    assert described.module == __name__


@pytest.mark.parametrize("name", ["variance", "slots", "clip"])
def test_an_option_that_was_left_to_its_default_keeps_the_stored_value(define, monkeypatch, name):
    stored = describe(define(Entity("user", slots=8) if name != "slots" else Entity("user")))
    monkeypatch.setitem(defaults := dict(zip(OPTIONS, Entity.__init__.__defaults__, strict=True)), name, 16)
    monkeypatch.setattr(Entity.__init__, "__defaults__", tuple(defaults.values()))
    mine = define(Entity("user", slots=8) if name != "slots" else Entity("user"))
    assert len(differences(stored, describe(mine))) == 1
    settled, (words,) = settle(mine, stored)
    assert describe(settled).corrections[0].parameters == stored.corrections[0].parameters
    assert not differences(stored, describe(settled))
    assert f"Entity 'entity_user': {name} stays " in words
    # It is the same whoever asks, and a clone knows what was named.
    assert settle(settled, stored) == (settled, [])
    assert settled.new_stack().corrections[0].given == settled.corrections[0].given


def test_an_option_that_is_named_is_kept_also_where_it_is_todays_default(define):
    stored, mine = describe(define(Entity("user", slots=8, variance=0.1))), define(Entity("user", slots=8, variance=0.5))
    assert settle(mine, stored) == (mine, [])
    positional = define(Entity("user", (), True, 0.5, slots=8))
    assert settle(positional, stored) == (positional, [])


def test_wrong_arguments_are_refused_by_the_constructor_as_ever():
    with pytest.raises(TypeError, match="unexpected keyword argument 'slot'"):
        Entity("user", slot=8)
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'key'"):
        Entity()


def test_a_copy_knows_what_was_named():
    entity = Entity("user", slots=8)
    copies: list[Correction] = [deepcopy(entity), loads(dumps(entity)), entity.clone()]
    assert {copy.given for copy in copies} == {frozenset({"self", "key", "slots"})}


@dataclass
class Field:
    left: int = 1
    made: int = field(default=2, init=False)


class Private:
    def __init__(self, boost):
        self._boost = boost


def test_what_cannot_be_told_from_another_is_refused_with_what_to_write():
    with pytest.raises(ConfigurationError, match="an option is a Private, whose argument 'boost' cannot be read, so"):
        value(Private(1))
    with pytest.raises(ConfigurationError, match="an option is a DataFrame, whose argument 'data' cannot be read"):
        value(pandas.DataFrame({"a": range(5000)}))
    with pytest.raises(ConfigurationError, match="an option is a lambda"):
        value(lambda weight: weight)


def test_arrays_of_objects_are_described_by_their_contents():
    first, same, other = (np.array([1, name], object) for name in ("a", "".join(["a"]), "b"))
    assert value(first) == value(same) != value(other)


def test_a_field_that_a_dataclass_makes_itself_counts():
    other = Field()
    other.made = 9
    assert value(Field()) != value(other)


def test_a_probability_is_read_as_its_home_has_learned_it(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] p) { p = Sigmoid(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "base.onnx")
    mine = Definition("ranker", tmp_path / "base.onnx", probability="p", corrections=[Calibration()])
    stored = describe(mine)
    assert (stored.output.margin, settle(mine, stored)) == (True, (mine, []))
    # As written before there was a choice.
    del (written := json.loads(stored.model_dump_json()))["output"]["margin"]
    before = read(json.dumps(written).encode())
    settled, (words,) = settle(mine, before)
    assert not settled.signature.margin
    assert "stays the logit of a probability" in words
    assert not differences(before, describe(settled))
    assert settle(mine, describe(settled)) == (settled, [])
    assert [words for words in differences(before, stored) if "at its raw margin" in words]


def test_a_home_that_read_a_number_n_1_as_a_vector_of_one_keeps_it_so(tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 1] x) => (float[N, 1] logit) { logit = Neg(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "base.onnx")
    definition = Definition("ranker", tmp_path / "base.onnx", "logit", corrections=[Linear("x")])
    assert str(definition.schema["x"]) == "float32[N]"
    older = describe(replace(definition, columns=Schema.of({"x": "float32[1]"}))).model_copy(update={"columns": {}})
    settled, said = settle(definition, older)
    assert str(settled.schema["x"]) == "float32[N, 1]"
    assert "'x' stays a vector of 1" in said[0]
    assert settle(definition, describe(definition)) == (definition, [])
