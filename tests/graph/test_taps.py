"""Inner tensors as features, and the schema that corrections are bound to."""

import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import LOG_LOSS
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features, outputs, tap_columns

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
    with pytest.raises(
        ConfigurationError, match=f"{kind}; expected integers .N., or floats .N. or .N, D., with the batch axis N"
    ):
        tap_columns(signature, {"t": tensor})


def test_a_tap_whose_first_axis_is_a_sequence_is_refused(write):
    text = "g (float[N] x, float[N, seq] w) => (float[N] y, float[seq] s) { y = Neg(x) s = ReduceSum<keepdims = 0>(w, zero) }"
    path = write(text.replace("=> (", "=> (", 1).replace("{ y", "<int64[1] zero = {0}> { y"))
    with pytest.raises(ConfigurationError, match=r"tensor 's', which is .*with the batch axis N"):
        tap_columns(Signature.read(path, logit="y"), {"s": "s"})


def test_the_schema_holds_inputs_taps_and_declared_columns(signature):
    schema = all_features(signature, {"vec": "user_vec"}, Schema.of({"hour": "float32"}))
    assert list(schema) == ["user", "x", "vec", "hour"]


@pytest.mark.parametrize(
    ("taps", "declared"),
    [({"x": "user_vec"}, {}), ({"vec": "user_vec"}, {"vec": "float32[3]"})],
)
def test_a_name_that_is_taken_is_refused(signature, taps, declared):
    with pytest.raises(ConfigurationError, match="choose another name"):
        all_features(signature, taps, Schema.of(declared))


@pytest.mark.parametrize("name", [*outputs(LOG_LOSS), "riverdelta/gate/weight"])
def test_a_name_that_the_merged_model_needs_is_refused(signature, name):
    for taps, declared in (({name: "user_vec"}, {}), ({}, {name: "float32"})):
        with pytest.raises(ConfigurationError, match=f"'{name}' has a name reserved for the merged model"):
            all_features(signature, taps, Schema.of(declared))
