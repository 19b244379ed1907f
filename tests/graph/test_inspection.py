"""What inspect says of each tensor: its place, its use, the line to write, or the reason."""

import onnx
import pytest

from riverdelta.core.errors import ModelError
from riverdelta.graph.inspection import declaration, list_tensors
from riverdelta.graph.signature import Signature

BASE = """
g (int64[batch] user, float[batch, seq, 4] tokens, float[seq] positions, int32[batch] kind, complex64[N] city,
   float[8, 2] fixed, float[-1, 2] x)
  => (float[batch, 1] score, float[batch, 2] both, float[batch, 1] other, float[batch, 1] tanhed, int64[batch] label)
<float[2, 1] w = {0.5, -1.5}, float[2, 2] w2 = {1, 2, 3, 4}>
{
  z = MatMul(x, w)
  score = Sigmoid(z)
  both = MatMul(x, w2)
  other = Identity(z)
  tanhed = Tanh(other)
  turned = Neg(positions)
  label = ArgMax<axis = 1, keepdims = 0>(both)
  mean = ReduceMean<axes = [1]>(tokens)
  shape = Shape(x)
}
"""


@pytest.fixture
def found(write):
    return {tensor.name: tensor for tensor in list_tensors(write(BASE))}


def test_every_tensor_is_listed_once_with_its_place(found):
    places = {name: tensor.place for name, tensor in found.items()}
    assert [name for name, place in places.items() if place == "input"] == [
        "user", "tokens", "positions", "kind", "city", "fixed", "x",
    ]  # fmt: skip
    assert [name for name, place in places.items() if place == "output"] == ["score", "both", "other", "tanhed", "label"]
    assert {name for name, place in places.items() if place == "inner"} == {"z", "turned", "mean", "shape"}


@pytest.mark.parametrize(
    ("name", "kind", "use", "why"),
    [
        ("user", "int64[N]", "id column", None),
        ("x", "float32[N, 2]", "vector column", "with names, each part is a column"),
        ("tokens", "float32[N, seq, 4]", "base only", "corrections cannot read it"),
        ("positions", "float[seq]", "-", "'seq' is not the batch axis"),
        ("city", "complex64[N]", "-", "COMPLEX64; expected numbers or strings"),
        ("fixed", "float[8, 2]", "-", "dynamic_shapes"),
        ("z", "float32[N, 1]", "tap", None),
        ("turned", "float[seq]", "-", "its first axis is seq, not the batch axis"),
        ("mean", "float32[N, 1, 4]", "-", "3 axes"),
        ("shape", "int64[2]", "-", "no batch axis"),
        ("score", "float32[N, 1]", "probability", "proved: it is always from 0 to 1"),
        ("other", "float32[N, 1]", "logit or probability", "cannot be probed, so say which it is"),
        ("tanhed", "float32[N, 1]", "logit or probability", "is always from -1 to 1, so say which it is"),
        ("both", "float32[N, 2]", "tap", "two columns, and nothing says which is the positive one"),
        ("label", "int64[N]", "tap", "not floats, so not a score"),
    ],
)
def test_each_tensor_says_how_it_is_used_or_why_not(found, name, kind, use, why):
    tensor = found[name]
    assert (tensor.type, tensor.use) == (kind, use)
    assert tensor.why is None if why is None else why in tensor.why


def test_what_to_write_is_a_line_of_python(found):
    assert found["score"].write == "probability='score'"
    assert found["tanhed"].write == "logit='tanhed' or probability='tanhed'"
    assert found["z"].write == "taps={'z': 'z'}"


def test_a_printed_service_shows_how_the_columns_of_a_matrix_get_names(write):
    printed = declaration(
        write("g (float[N, 3] x) => (float[N, 1] y) <float[3, 1] w = {1, 2, 3}> { z = MatMul(x, w) y = Sigmoid(z) }")
    )
    assert '    # names={"x": ["age", ...]},  # name its 3 columns' in printed


def test_an_input_whose_first_axis_is_a_sequence_is_refused_by_name(write):
    path = write("g (float[N] x, float[N, seq] w, float[seq] p) => (float[N] y) { y = Neg(x) }")
    with pytest.raises(ModelError, match=r"input 'p' is float\[seq\], and 'seq' is not the batch axis"):
        Signature.read(path)


def test_no_service_is_printed_for_a_model_that_this_machine_cannot_open(write):
    path = write("g (float[N] x) => (float[N] y) { z = Identity(x) y = Sigmoid(z) }")
    model = onnx.load(path)
    model.graph.node[0].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="ONNX Runtime cannot open"):
        declaration(path)


@pytest.mark.parametrize(
    ("kind", "line"),
    [("int32[N, 1]", 'Linear("user")'), ("bool[N]", 'Linear("user", "x")'), ("float[N, 4]", 'Linear("user", "x")')],
)
def test_the_declaration_learns_by_the_first_integers_of_any_type_or_by_all_inputs(write, kind, line):
    base = f"g ({kind} user, float[N] x) => (float[N] logit) {{ y = Cast<to = 1>(user) logit = Add(x, x) }}"
    printed = declaration(write(base))
    assert f"corrections=[Calibration(), {line}]," in printed
    assert "columns=" not in printed


def test_the_declaration_of_a_base_of_which_corrections_can_read_nothing_calibrates(write):
    body = "y = Flatten<axis = 1>(x) ones = Constant<value = float[4, 1] {1, 1, 1, 1}>() logit = MatMul(y, ones)"
    printed = declaration(write(f"g (float[N, 2, 2] x) => (float[N, 1] logit) {{ {body} }}"))
    assert "corrections=[Calibration()]," in printed
    assert "import Calibration, online" in printed
