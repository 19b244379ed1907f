"""Inner tensors as features, and the schema that corrections are bound to."""

import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import LOG_LOSS
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import Tensor, full_schema, list_tensors, outputs, tap_columns

BASE = """
ranker (int64[N] user, float[N, 2] x) => (float[N, 1] y, float[N, 1] z)
<float[2, 3] embedding = {1, 2, 3, 4, 5, 6}, float[2, 1] w = {0.5, -1.5}>
{
  user_vec = Gather(embedding, user)
  shape = Shape(x)
  y = MatMul(x, w)
  z = Neg(y)
  one = Constant <value = int64[1] {1}> ()
  deep = Unsqueeze(user_vec, one)
}
"""


@pytest.fixture
def signature(write):
    return Signature.read(write(BASE), logit="y")


def test_every_tensor_is_listed_with_type_and_producer_even_where_no_output_was_chosen(write):
    listed = list_tensors(write(BASE))
    assert [t.name for t in listed] == ["user", "x", "user_vec", "shape", "y", "z", "one", "deep"]
    by_name = {t.name: t for t in listed}
    assert by_name["user"] == Tensor("user", "int64[N]", "input", True, False)
    assert by_name["user_vec"] == Tensor("user_vec", "float32[N, 3]", "Gather", True, False)
    assert by_name["shape"] == Tensor("shape", "int64[2]", "Shape", False, False)
    assert not by_name["deep"].tappable
    assert [t.name for t in listed if t.output] == ["y", "z"]


def test_a_tap_is_a_column_of_the_tensors_type(signature):
    columns = tap_columns(signature, {"vec": "user_vec", "raw": "y"})
    assert {name: str(c) for name, c in columns.items()} == {"vec": "float32[N, 3]", "raw": "float32[N, 1]"}


def test_a_tap_that_does_not_exist_is_answered_with_near_names(signature):
    with pytest.raises(ConfigurationError, match=r"tap 'vec' names tensor 'users_vec'.*did you mean user_vec"):
        tap_columns(signature, {"vec": "users_vec"})


@pytest.mark.parametrize(
    ("tensor", "kind"), [("shape", r"int64\[2\]"), ("deep", r"float32\[N, 1, 3\]"), ("one", r"int64\[1\]")]
)
def test_a_tap_that_is_no_column_is_refused_with_its_type(signature, tensor, kind):
    with pytest.raises(ConfigurationError, match=f"{kind}; expected float32"):
        tap_columns(signature, {"t": tensor})


def test_the_schema_holds_inputs_taps_and_declared_columns(signature):
    schema = full_schema(signature, {"vec": "user_vec"}, Schema.of({"hour": "float32"}))
    assert list(schema) == ["user", "x", "vec", "hour"]


@pytest.mark.parametrize(
    ("taps", "declared"),
    [({"x": "user_vec"}, {}), ({}, {"user": "int64"}), ({"vec": "user_vec"}, {"vec": "float32[3]"})],
)
def test_a_name_that_is_taken_is_refused(signature, taps, declared):
    with pytest.raises(ConfigurationError, match="choose another name"):
        full_schema(signature, taps, Schema.of(declared))


@pytest.mark.parametrize("name", [*outputs(LOG_LOSS), "riverdelta/gate/weight"])
def test_a_name_that_the_merged_model_needs_is_refused(signature, name):
    for taps, declared in (({name: "user_vec"}, {}), ({}, {name: "float32"})):
        with pytest.raises(ConfigurationError, match=f"'{name}' has a name reserved for the merged model"):
            full_schema(signature, taps, Schema.of(declared))
