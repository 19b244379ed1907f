"""Graphs as tools rewrite them: quantized, optimized, of any opset, with weights and control flow wherever they may be."""

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import ROWS, Export, check, said
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from riverdelta import Calibration, Entity, Linear
from riverdelta.core.errors import ModelError, Unsupported
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import export, save
from riverdelta.graph.merge import merge
from riverdelta.graph.runtime import SMALLEST
from riverdelta.graph.signature import Signature
from riverdelta.graph.weights import weights_name

LINE = {"logit": "y", "link": "identity"}
HEADER = '<ir_version: {ir}, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
LARGE = ", ".join(f"{i % 13 - 6}.0" for i in range(1200))
PARTS = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
g (float[N, 2] a, double[N, 2] b, string[N, 2] s) => (float[N] y) <int64[1] one = {1}>
{
  known = ai.onnx.ml.LabelEncoder<keys_strings = ["ann", "bob"], values_floats = [1.0, 2.0], default_float = 0.0>(s)
  c = Cast<to = 1>(b)  t = Sum(a, c, known)  y = ReduceSum<keepdims = 0>(t, one)
}"""
#: The newest opset that the installed ONNX Runtime takes.
NEWEST = 26


def served(path, x, folder):
    """Check a model of one output y and one input x against its own answer."""
    own = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
    probability = 1 / (1 + np.exp(-own.astype(np.float64)))
    check(Export(path, {"x": x}, probability, exact="y", line=LINE), folder)


def from_text(text, path, opset=17, ir=8):
    model = onnx.parser.parse_model(text if text.startswith("<") else HEADER.format(ir=ir, opset=opset) + text)
    onnx.save(model, path)
    return model


@pytest.fixture
def network(tmp_path):
    """Two layers, on disk."""
    rng = np.random.default_rng(0)
    stored = {"a": rng.normal(size=(4, 64)), "b": rng.normal(size=64), "c": rng.normal(size=(64, 1)) / 8}
    body = "g (float[N, 4] x) => (float[N, 1] y) { h = Gemm(x, a, b) r = Relu(h) y = MatMul(r, c) }"
    model = from_text(body, tmp_path / "model.onnx")
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items())
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.blocks = iter([{"x": x}])

    def get_next(self):
        return next(self.blocks, None)


@pytest.mark.parametrize("kind", [QuantType.QInt8, QuantType.QUInt8], ids=str)
def test_dynamic_int8(network, data, tmp_path, kind):
    quantize_dynamic(network, tmp_path / "q.onnx", weight_type=kind, per_channel=True)
    served(tmp_path / "q.onnx", data.rows, tmp_path)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
def test_static_int8(network, data, tmp_path, form):
    quantize_static(network, tmp_path / "q.onnx", Reader(data.rows), quant_format=form, activation_type=QuantType.QUInt8)
    served(tmp_path / "q.onnx", data.rows, tmp_path)


@pytest.mark.parametrize("keeps", [True, False], ids=["inner tensors", "every tensor"])
def test_a_conversion_to_half_precision_whose_nodes_are_out_of_order(network, data, tmp_path, keeps):
    onnx.save(convert_float_to_float16(onnx.load(network), keep_io_types=keeps), tmp_path / "half.onnx")
    served(tmp_path / "half.onnx", data.rows if keeps else data.rows.astype(np.float16), tmp_path)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_file_that_onnx_runtime_optimized(network, data, tmp_path, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    served(tmp_path / "optimized.onnx", data.rows, tmp_path)


@pytest.mark.parametrize("one", [True, False], ids=["one file", "a file for each tensor"])
def test_external_data(network, data, tmp_path, one):
    (tmp_path / "external").mkdir()
    path = tmp_path / "external" / "model.onnx"
    onnx.save(onnx.load(network), path, save_as_external_data=True, all_tensors_to_one_file=one, size_threshold=0)
    served(path, data.rows, tmp_path)


OPERATORS = {
    "a fused product": "g (float[N, 4] x) => (float[N, 1] y) <float[4, 1] w = {1, -2, 3, -4}>"
    " { a = com.microsoft.Gelu(x) y = com.microsoft.FusedMatMul<alpha = 0.5>(a, w) }",
    "attention": "g (float[N, 4] x) => (float[N, 1] y) <float[4, 12] w = {"
    + ", ".join(f"{i % 7 - 3}" for i in range(48))
    + "}, float[12] b = {"
    + ", ".join(["0.1"] * 12)
    + "}, int64[3] sequence = {-1, 1, 4}, int64[1] last = {2}>"
    " { s = Reshape(x, sequence) a = com.microsoft.Attention<num_heads = 2>(s, w, b)"
    " n = com.microsoft.SkipLayerNormalization(a, s, k, k)"
    " q = com.microsoft.QuickGelu(n) y = ReduceSum<keepdims = 0>(q, last) }",
    "a branch in a loop that reads outer names": "g (float[N, 4] x) => (float[N, 1] y)"
    " <float[4, 1] w = {1, -2, 3, -4}, int64 n = {2}, bool yes = {1}, float unused = {3}> {"
    " score = MatMul(x, w) vec = Neg(score) y = Loop(n, yes, score) <body = b (int64 i, bool go, float[N, 1] h)"
    " => (bool on, float[N, 1] out) { on = Identity(go) logit = If(go) <then_branch = t () => (float[N, 1] r)"
    " <float dead = {7}> { base_logit = Add(h, vec) r = Add(base_logit, score) },"
    " else_branch = e () => (float[N, 1] r2) { r2 = Identity(vec) }> out = Sub(logit, h) }> }",
    "a scan": "g (float[N, 4] x) => (float[N] y) <int64[1] one = {1}> { t = Transpose<perm = [1, 0]>(x)"
    " start = ReduceSum<keepdims = 0>(x, one) y, all = Scan<num_scan_inputs = 1, body = b (float[N] s, float[N] v)"
    " => (float[N] s2, float[N] o) { s2 = Sub(s, v) score = Mul(s2, start) o = Neg(score) }>(start, t) }",
    "constants of every kind": "g (float[N, 4] x) => (float[N, 1] y) { a = Constant<value_float = 0.5>()"
    " b = Constant<value_ints = [1]>() c = Constant<value_floats = [2.0]>() d = Constant<value_int = 3>()"
    " e = Cast<to = 1>(d) p = Mul(x, a) q = Mul(p, c) r = Sub(q, e) y = ReduceSum<keepdims = 1>(r, b) }",
    "random numbers that no output needs": "g (float[N, 4] x) => (float[N, 1] y) <float[4, 1] w = {1, -2, 3, -4}>"
    " { noise = RandomNormalLike(x) y = MatMul(x, w) }",
    "a function": '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[N, 4] x) => (float[N, 1] y)'
    " <float[4, 1] w = {1, -2, 3, -4}> { y = mine.linear(x, w) }"
    ' <domain: "mine", opset_import: ["" : 17]> linear (a, b) => (logit) { score = MatMul(a, b) logit = Neg(score) }',
}
OPERATORS["attention"] = OPERATORS["attention"].replace("int64[1] last", "float[4] k = {1, 1, 1, 1}, int64[1] last")


@pytest.mark.parametrize("of", OPERATORS)
def test_operators_of_onnx_runtime_control_flow_and_functions(data, tmp_path, of):
    from_text(OPERATORS[of], tmp_path / "model.onnx")
    served(tmp_path / "model.onnx", data.rows, tmp_path)


def of_opset(opset, path):
    """Write a model of operators that changed between opsets 8 and 18."""
    cut = "Slice<axes = [1], starts = [0], ends = [4]>(c)" if opset < 10 else "Slice(c, from, to, axis)"
    sizes = "" if opset < 10 else ", int64[1] from = {0}, int64[1] to = {4}, int64[1] axis = {1}"
    reduced = "ReduceSum<axes = [1], keepdims = 1>(p)" if opset < 13 else "ReduceSum<keepdims = 1>(p, one)"
    text = (
        f"g (float[N, 4] x) => (float[N, 1] y) <float[4] w = {{1, -2, 3, -4}}, int64[1] one = {{1}}{sizes}>"
        f" {{ s = Softmax<axis = 1>(x) d = Dropout(x) c = Concat<axis = 1>(d, s) k = {cut} p = Mul(k, w) y = {reduced} }}"
    )
    from_text(text, path, opset, 4 if opset < 20 else 10)


@pytest.mark.parametrize("opset", [8, 11, 13, NEWEST])
def test_the_oldest_and_the_newest_opsets(data, tmp_path, opset):
    of_opset(opset, tmp_path / "model.onnx")
    served(tmp_path / "model.onnx", data.rows, tmp_path)


def test_every_opset_from_8_on_is_merged_bit_for_bit(data, tmp_path):
    for opset in range(8, NEWEST + 1):
        of_opset(opset, path := tmp_path / f"{opset}.onnx")
        signature = Signature.read(path, **LINE)
        (stack := Stack([Calibration(), Entity("x_of", slots=8)])).bind(Schema.of({"x": "float32[4]", "x_of": "int64"}))
        merged = save(merge(signature, stack, {}, Schema.of({"x_of": "int64"})), signature, tmp_path / "releases" / path.name)
        feeds = {"x": data.rows, "x_of": np.arange(len(data.rows))}
        (own,), (ours,) = (
            onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run([name], given)
            for file, name, given in ((path, "y", {"x": data.rows}), (merged, "logit", feeds))
        )
        assert own.tobytes() == ours.tobytes()


def test_an_opset_newer_than_the_runtime_is_refused(tmp_path):
    from_text("g (float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }", tmp_path / "model.onnx", NEWEST + 1, 10)
    with pytest.raises(ModelError, match=f"has opset {NEWEST + 1} of ai.onnx; .* up to {NEWEST}: export it again with ops"):
        Signature.read(tmp_path / "model.onnx")


def test_sparse_weights(data, tmp_path):
    values = helper.make_tensor("score", TensorProto.FLOAT, [2], [1, -2])
    weights = helper.make_sparse_tensor(values, helper.make_tensor("at", TensorProto.INT64, [2], [0, 3]), [4, 1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n]) for name, n in (("x", 4), ("y", 1)))
    stored = helper.make_graph([helper.make_node("MatMul", ["x", "score"], ["y"])], "g", [x], [y], sparse_initializer=[weights])
    inside = [helper.make_node("Constant", [], ["w"], sparse_value=weights), helper.make_node("MatMul", ["x", "w"], ["y"])]
    for at, graph in enumerate((stored, helper.make_graph(inside, "g", [x], [y]))):
        path = tmp_path / f"sparse-{at}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        served(path, data.rows, tmp_path / str(at))


def test_external_data_in_branches_and_constants(data, tmp_path):
    text = (
        "g (float[N, 4] x) => (float[N, 1] y) <bool yes = {1}> { w = Constant<value = float[4, 300] {%s}>()"
        " h = MatMul(x, w) y = If(yes) <then_branch = t () => (float[N, 1] r) <float[300, 1] v = {%s}> { r = MatMul(h, v) },"
        " else_branch = e () => (float[N, 1] r2) { r2 = ReduceSum<keepdims = 1>(h) }> }"
    )
    model = from_text(text % (LARGE, ", ".join(LARGE.split(", ")[:300])), tmp_path / "inline.onnx")
    for attribute in (a for node in model.graph.node for a in node.attribute):
        for tensor in [attribute.t] if attribute.HasField("t") else attribute.g.initializer:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, convert_attribute=True, size_threshold=0)
    assert path.stat().st_size < 1500
    served(path, data.rows / 100, tmp_path)


def test_beyond_2_gib_a_base_is_merged_and_its_weights_are_a_second_file(data, tmp_path, monkeypatch):
    path, rows = tmp_path / "vast.onnx", (2**31 + 2**20) // 4
    model = from_text("g (int64[N] i) => (float[N] y) { y = Gather(w, i) }", path)
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[rows])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "vast.bin", "offset": 0, "length": 4 * rows}.items():
        tensor.external_data.add(key=key, value=str(value))
    onnx.save(model, path)
    with (tmp_path / "vast.bin").open("wb") as file:  # a hole, except for the last value
        file.seek(4 * rows - 4)
        file.write(np.float32(2.5).tobytes())
    signature = Signature.read(path, **LINE)
    signature.__dict__["digest"] = "0" * 32  # that of so many bytes takes seconds
    merged = merge(signature, Stack([]), {}, Schema())
    (release := tmp_path / "release.onnx").write_bytes(merged.SerializeToString())
    (tmp_path / weights_name(signature)).symlink_to(tmp_path / "vast.bin")
    with pytest.raises(Unsupported, match="one ONNX file holds at most 2147483647: `riverdelta export` writes two"):
        export(release, tmp_path / "out" / "merged.onnx", alone=True)


def test_two_matrices_and_strings_have_named_parts(tmp_path):
    rng, words = np.random.default_rng(3), np.array(["ann", "bob", "eve"], object)
    names = {"a": ["age", "income"], "b": ["debt", "region"], "s": ["city", "tier"]}
    a, b, s = np.float32(rng.normal(size=(ROWS, 2))), rng.integers(-3, 3, (ROWS, 2)) / 1.0, words[rng.integers(0, 3, (ROWS, 2))]
    from_text(PARTS, tmp_path / "parts.onnx")
    raw = (a + b + (s == "ann") + 2 * (s == "bob")).sum(axis=1)
    columns = {
        one: matrix[:, at] for matrix, listed in zip((a, b, s), names.values(), strict=True) for at, one in enumerate(listed)
    }
    made = Export(tmp_path / "parts.onnx", columns, 1 / (1 + np.exp(-raw)), raw, line=LINE | {"names": names})
    made.reads["region"] = "int64"
    made.corrections += [Linear("age", "debt", ("city", "region"), slots=64), Entity("tier", on=["income"], slots=64)]
    check(made, tmp_path)


def test_an_exported_entity_has_tables_of_fixed_shapes_and_no_further_input(network, tmp_path):
    signature = Signature.read(network, **LINE)
    stack, declared = Stack([Entity("user", slots=64)]), Schema.of({"user": "int64"})
    stack.bind(Schema(signature.inputs | declared))
    users = {"user": np.array([5, 6, 5])}
    stack.learn(users, np.zeros((3, 1), np.float32), np.float32([1, 0, 1]), np.ones(3, np.float32))
    release = save(merge(signature, stack, {}, declared), signature, tmp_path / "releases" / "0.onnx")
    (alone,) = export(release, tmp_path / "out" / "merged.onnx")
    graph = onnx.load(alone).graph
    assert [value.name for value in graph.input] == ["x", "user"]
    tables = {name: table.values for name, table in stack.tables().items()}
    assert {t.name: list(t.dims) for t in graph.initializer if t.name in tables} == {
        name: list(values.shape) for name, values in tables.items()
    }
    (tmp_path / "smallest.onnx").write_bytes(SMALLEST)
    assert said(alone) == said(tmp_path / "smallest.onnx")


def test_an_exported_model_loads_without_a_word(network, tmp_path):
    model = onnx.load(network)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [64]))
    onnx.save(model, network)
    signature = Signature.read(network, **LINE)
    stack = Stack([Calibration()])
    stack.bind(Schema(signature.inputs))
    release = save(merge(signature, stack, {}, Schema()), signature, tmp_path / "releases" / "0.onnx")
    (tmp_path / "smallest.onnx").write_bytes(SMALLEST)
    (alone,) = export(release, tmp_path / "out" / "merged.onnx")
    assert "riverdelta/calibration/line" in said(release)
    assert said(alone) == said(tmp_path / "smallest.onnx")
    assert [value.name for value in onnx.load(alone).graph.input] == ["x"]
