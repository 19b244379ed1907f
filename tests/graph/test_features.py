"""Features: what corrections read of each kind of column, the same in numpy and in the merged graph."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, from_dtype

from riverdelta import Entity, Linear, id64
from riverdelta.core.errors import ConfigurationError, InvalidInput, ParityError
from riverdelta.core.features import Column, Schema
from riverdelta.graph import parity
from riverdelta.graph.features import Features

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
FLOATS = ("float16", "float32", "float64")
ONNX = {"float16": "float16", "float32": "float", "float64": "double"}


def of(inputs, declared=(), names=()):
    columns = Schema({name: Column(name, dtype, shape) for name, (dtype, shape) in inputs.items()})
    return Features.of_parts(columns, Schema(), Schema.of(dict(declared)), dict(names))


def spec(features, name):
    return str(features.schema[name])


@pytest.mark.parametrize("shape", [(), (1,)])
def test_integers_and_strings_are_ids_and_floats_are_numbers_unless_declared(shape):
    for dtype in INTEGERS:
        assert spec(of({"x": (dtype, shape)}), "x") == "int64[N]"
        assert spec(of({"x": (dtype, shape)}, {"x": "float32"}), "x") == "float32[N]"
    for dtype in FLOATS:
        assert spec(of({"x": (dtype, shape)}), "x") == "float32[N]"
        assert spec(of({"x": (dtype, shape)}, {"x": "int64"}), "x") == "int64[N]"
    assert spec(of({"x": ("string", shape)}), "x") == "int64[N]"


def test_floats_of_a_row_are_a_vector_and_integers_of_a_row_are_one_where_declared():
    for dtype in FLOATS:
        assert spec(of({"v": (dtype, (3,))}), "v") == "float32[N, 3]"
    for dtype in INTEGERS:
        assert of({"v": (dtype, (3,))}).schema["v"].kind == "tensor"
        assert spec(of({"v": (dtype, (3,))}, {"v": "float32[3]"}), "v") == "float32[N, 3]"
    assert spec(of({"v": ("float32", (1,))}, {"v": "float32[1]"}), "v") == "float32[N, 1]"


@pytest.mark.parametrize(
    ("column", "declared", "line"),
    [
        (("int64", ()), "float32[2]", r"columns={'x': 'int64'} if it is an id or columns={'x': 'float32'} if it is a number"),
        (("string", ()), "float32", r"write columns={'x': 'int64'} if it is an id"),
        (("int64", (4,)), "float32", r"write columns={'x': 'float32\[4\]'}"),
        (("float32", (2, 3)), "float32", "leave it out of columns"),
    ],
)
def test_a_declaration_that_does_not_fit_ends_in_the_line_to_write(column, declared, line):
    with pytest.raises(ConfigurationError, match=line):
        of({"x": column}, {"x": declared})


@pytest.mark.parametrize(
    ("column", "correction", "line"),
    [
        (("float32", (1,)), Entity("x", slots=8), "columns={'x': 'int64'}"),
        (("float64", (2,)), Entity("x", slots=8), r"names={'x': \['x_1', 'x_2'\]}"),
        (("int32", ()), None, "columns={'x': 'float32'}"),
        (("int32", (2,)), None, r"columns={'x': 'float32\[2\]'}"),
    ],
)
def test_a_correction_that_reads_another_kind_is_answered_with_the_line_to_write(column, correction, line):
    schema = of({"x": column}).schema
    with pytest.raises(ConfigurationError, match=f"{line}$"):
        correction.bind(schema) if correction is not None else schema.need("x", "Mine", "scalar", "vector")


def test_names_are_features_of_their_part():
    features = of({"X": ("float64", (3,))}, {"region": "int64"}, {"X": ["age", "region", "income"]})
    assert {name: spec(features, name) for name in features} == {
        "X": "float32[N, 3]", "age": "float32[N]", "region": "int64[N]", "income": "float32[N]",
    }  # fmt: skip
    x = np.array([[0.5, 7, 1e6], [1.5, -2, 0.1]])
    assert features["region"].of(x).tolist() == [7, -2]
    assert features["income"].of(x).tolist() == [1e6, np.float32(0.1)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"X": ["a", "b"]}, r"names has 2 names for 'X', which is float32\[N, 3\]; expected 3"),
        ({"X": ["a", "b", "a"]}, "expected a list of different names"),
        ({"X": "abc"}, "expected a list of different names"),
        ({"X": []}, "expected a list of different names"),
        ({"Y": ["a"]}, "'Y', which is not an input of the base; it has X, user"),
        ({"user": ["a"]}, r"'user', which is int64\[N\]; only the parts of \[N, F\] have names"),
        ({"X": ["a", "user", "b"]}, "name 'user' has the name of an existing column"),
    ],
    ids=str,
)
def test_names_that_do_not_fit_are_refused(names, said):
    with pytest.raises(ConfigurationError, match=said):
        of({"X": ("float32", (3,)), "user": ("int64", ())}, (), names)


def test_an_input_of_any_width_has_as_many_parts_as_names():
    features = of({"X": ("float32", (None,))}, (), {"X": ["a", "b"]})
    assert str(features.request["X"]) == "float32[N, 2]"


def test_a_request_sends_an_input_or_all_of_its_parts():
    request = of({"X": ("float32", (2,)), "user": ("int64", ())}, (), {"X": ["a", "b"]}).request
    whole, _ = request.check({"X": [[1, 2], [3, 4]], "user": [1, 2]})
    parts, _ = request.check({"a": [1, 3], "b": [[2], [4]], "user": [1, 2]})
    assert whole["X"].tobytes() == parts["X"].tobytes()
    for columns, said in [
        (
            {"X": [[1, 2]], "a": [1], "user": [1]},
            "columns has 'X' and 'a', which is part of it; .* X, or a, b",
        ),
        ({"a": [1], "user": [1]}, "column 'b' is missing; expected float32"),
        ({"a": [1], "b": [1, 2], "user": [1]}, "'b' has 2 rows"),
        ({"a": [1], "b": ["x"], "user": [1]}, "row 0 has 'x' of type str for 'b'"),
        ({"a": [1], "b": [1], "bb": [1], "user": [1]}, "'bb' is not declared: did you mean b"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            request.check(columns)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_that_is_read_as_an_id_is_an_integer_that_the_type_holds_without_gaps(dtype):
    features, most = of({"x": (dtype, ())}, {"x": "int64"}), 2 ** (np.finfo(dtype).nmant + 1) - 1
    assert features["x"].of(np.array([most, -most, 0], dtype)).tolist() == [most, -most, 0]
    for odd in (0.5, most + 1):
        with pytest.raises(InvalidInput, match=f"'x' holds .* at row 8; corrections read it as int64.N., .* -{most} to {most}"):
            features["x"].of(np.array([1, odd], dtype), first=7)


def test_a_number_beyond_float32_is_refused_by_its_row():
    with pytest.raises(InvalidInput, match=r"'x' holds 1e.300 at row 1; corrections read it as float32"):
        of({"x": ("float64", ())})["x"].of(np.array([1, 1e300]))


def test_strings_are_hashed():
    features = of({"city": ("string", (1,))})
    assert features["city"].of(np.array([["ann"], [""]], object)).tolist() == [id64("ann"), id64("")]
    with pytest.raises(ConfigurationError, match="'city_id64' has the name that the merged model gives to the id of 'city'"):
        of({"city": ("string", ()), "city_id64": ("int64", ())})


BASE = """
g (%s[N, %s] x, float[N] z) => (float[N] logit) { same = Identity(x)  logit = Neg(z) }
"""


@pytest.fixture
def converting(write, combine, plain):
    """The feature `f` of an input of a dtype and width as the merged graph computes it, and as numpy does."""

    def converting(dtype, width, declared, names=None):
        path = write(BASE % (ONNX.get(dtype, dtype), width))
        name = next(iter(declared), "x")
        merged = combine(path, [Linear(name, slots=8)], None, declared, names=names, logit="logit")
        x = Schema({"x": Column("x", dtype, (width,)), "z": Column("z", "float32")})
        made = Features.of_parts(x, Schema(), Schema.of(declared), names or {})
        part = parity.conversions_of(merged.model, made, [name])
        run = lambda feeds: plain(part.SerializeToString(), feeds)  # noqa: E731
        parity.compare_conversions(run, made, [name])
        return made[name], run, f"riverdelta/{made[name].tensor}"

    return converting


def _rows(dtype, width):
    finite = from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return st.integers(1, 3).flatmap(lambda rows: arrays(dtype, (rows, width), elements=finite))


CASES = [(dtype, 1, {"x": "float32"}, None) for dtype in INTEGERS] + [(dtype, 1, {"x": "int64"}, None) for dtype in INTEGERS]
CASES += [(dtype, 1, {"x": "float32"}, None) for dtype in FLOATS] + [(dtype, 1, {"x": "int64"}, None) for dtype in FLOATS]
CASES += [(dtype, 2, {"x": "float32[2]"}, None) for dtype in ("int64", "bool", "uint8", "float16", "float64")]
PARTS = {"x": ["a", "b"]}
CASES += [(dtype, 2, {"b": kind}, PARTS) for dtype in ("int32", "float64", "float16") for kind in ("int64", "float32")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numpy_and_the_graph_convert_any_values_alike(converting, case):
    feature, run, output = converting(*case)
    dtype = feature.source.numpy

    @settings(max_examples=15, deadline=None)
    @given(_rows(dtype, case[1]))
    def alike(x):
        try:
            mine = feature.of(x)
        except InvalidInput:
            return
        theirs = run({"x": x})[output]
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())

    alike()


def test_a_graph_that_converts_in_another_way_is_refused_by_the_columns_name(write, combine, plain):
    merged = combine(write(BASE % ("int64", 1)), [Linear("x", slots=8)], None, {"x": "float32"}, logit="logit")
    features = of({"x": ("int64", (1,)), "z": ("float32", ())}, {"x": "float32"})
    part = parity.conversions_of(merged.model, features, ["x"])
    cast = next(node for node in part.graph.node if node.op_type == "Cast")
    cast.op_type, cast.input[:] = "Identity", cast.input
    del cast.attribute[:]
    half = onnx.helper.make_node("Cast", [cast.output[0] + "_h"], [cast.output[0]], to=1)
    cast.op_type, cast.output[0] = "Cast", cast.output[0] + "_h"
    cast.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT16))
    part.graph.node.insert(list(part.graph.node).index(cast) + 1, half)
    with pytest.raises(ParityError, match="the merged model and numpy convert the column 'x' differently"):
        parity.compare_conversions(lambda feeds: plain(part.SerializeToString(), feeds), features, ["x"])


def test_a_string_that_corrections_read_has_an_input_for_its_id(write, combine, plain):
    path = write("g (string[N] city, float[N] z) => (float[N] logit) { same = Identity(city)  logit = Neg(z) }")
    merged = combine(path, [Entity("city", slots=8)], logit="logit")
    inputs = {value.name: value.type.tensor_type.elem_type for value in merged.model.graph.input}
    assert (inputs["city"], inputs["city_id64"]) == (onnx.TensorProto.STRING, onnx.TensorProto.INT64)
    unread = combine(path, [Linear("z")], logit="logit")
    assert "city_id64" not in [value.name for value in unread.model.graph.input]


def test_a_tap_of_half_or_double_precision_is_read_as_float32(write, combine, plain):
    text = "g (float[N, 2] x) => (float[N] logit) <int64[1] one = {1}> "
    text += "{ h = Cast<to = 10>(x)  half = Neg(h)  d = Cast<to = 11>(x)  logit = ReduceSum<keepdims = 0>(x, one) }"
    merged = combine(write(text), [Linear("half", "d")], {"half": "half", "d": "d"}, logit="logit")
    x = np.float32([[0.1, 2], [3, 4]])
    out = plain(merged.model.SerializeToString(), {"x": x})
    assert out["half"].dtype == out["d"].dtype == np.float32
    assert np.allclose(out["half"], -x, rtol=1e-3)
