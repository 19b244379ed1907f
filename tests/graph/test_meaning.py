"""What an output means: proved by the graph, shown by probed rows, asked for, and never guessed."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from onnx import TensorProto, helper

from riverdelta.core.errors import ModelError
from riverdelta.graph.ranges import ranges_of
from riverdelta.graph.signature import Signature

#: A probability of the score z, float[N, 1], in the ways that people write it; each ends in p.
SIGMOIDS = {
    "sigmoid": "p = Sigmoid(z)",
    "reciprocal": "n = Neg(z) e = Exp(n) d = Add(one, e) p = Reciprocal(d)",
    "division": "n = Neg(z) e = Exp(n) d = Add(e, one) p = Div(one, d)",
    "odds": "e = Exp(z) d = Add(one, e) p = Div(e, d)",
    "tanh": "h = Mul(z, half) t = Tanh(h) u = Mul(t, half) p = Add(u, half)",
    "complement": "n = Neg(z) s = Sigmoid(n) p = Sub(one, s)",
    "clipped": "s = Sigmoid(z) p = Clip(s, low, high)",
    "shrunk": "s = Sigmoid(z) u = Mul(s, high) p = Add(u, low)",
    "log sigmoid": "n = Neg(z) s = Softplus(n) m = Neg(s) p = Exp(m)",
    "hard": "p = HardSigmoid(z)",
    "softmax, sliced": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = Slice(s, i1, i2, i1)",
    "softmax, gathered": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = Gather<axis = 1>(s, i1)",
    "softmax, split": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) q, p = Split<axis = 1>(s)",
    "softmax, selected": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = Softmax(two) p = MatMul(s, second)",
    "softmax, written out": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) e = Exp(two) d = ReduceSum(e, i1) s = Div(e, d)"
    " p = Slice(s, i1, i2, i1)",
    "log-softmax": "zero = Sub(z, z) two = Concat<axis = 1>(zero, z) s = LogSoftmax(two) l = Slice(s, i1, i2, i1) p = Exp(l)",
    "a mean of two": "s = Sigmoid(z) n = HardSigmoid(z) p = Mean(s, n)",
    "either": "c = Greater(z, low) a = Sigmoid(z) b = HardSigmoid(z) p = Where(c, a, b)",
    "quantized": "s = Sigmoid(z) q = QuantizeLinear(s, step, none) p = DequantizeLinear(q, step, none)",
}
#: Probabilities of which the graph shows nothing: probed rows do.
HIDDEN = {
    "by a branch": "f = ReduceMax<keepdims = 0>(z) c = Greater(f, low) p = If(c) <then_branch = t () => (float[n, 1] a)"
    " { a = Sigmoid(z) }, else_branch = e () => (float[n, 1] b) { b = HardSigmoid(z) }>",
    "in a function": "p = local.squash(z)",
    "of parts of a score": "u = Relu(z) d = Sub(z, one) v = Relu(d) p = Sub(u, v)",
    "of a root": "q = Mul(z, z) d = Add(q, one) k = Sqrt(d) i = Reciprocal(k) t = Mul(z, i) u = Mul(t, half) p = Add(u, half)",
    "of a convolution": "s = Sigmoid(z) c = Unsqueeze(s, i2) d = Conv(c, kernel) p = Squeeze(d, i2)",
    "of a share times one": "e = Exp(z) d = Add(one, e) i = Reciprocal(d) p = Mul(e, i)",
}
TAILS = {
    "": "y = Identity(p)",
    "flat": "y = Reshape(p, column)",
    "cast": "wide = Cast<to = 11>(p) y = Cast<to = 1>(wide)",
    "dropout": "y = Dropout(p)",
    "squeezed": "r = Squeeze(p, i1) y = Unsqueeze(r, i1)",
}
CONSTANTS = (
    "float one = {1}, float half = {0.5}, float low = {0.001}, float high = {0.99}, int64[1] i1 = {1}, int64[1] i2 = {2},"
    " float[2, 1] second = {0, 1}, int64[2] column = {-1, 1}, float step = {0.00392156862}, uint8 none = {0}"
)
#: Scores that are raw, with nothing but a linear head that says so.
RAW = {
    "linear": "y = Identity(z)",
    "gemm": "y = Gemm(x, w, b)",
    "hidden relu": "h = Gemm(x, w2) r = Relu(h) y = Gemm(r, w, b)",
    "hidden sigmoid": "h = Gemm(x, w2) r = Sigmoid(h) y = Gemm(r, big, b)",
    "hidden tanh": "h = Gemm(x, w2) r = Tanh(h) y = MatMul(r, big)",
    "batch norm": "y = BatchNormalization(z, g, b, b, g)",
    "dropout": "y = Dropout(z)",
    "cast": "d = Cast<to = 11>(z) y = Cast<to = 1>(d)",
    "flat": "y = Flatten(z)",
    "clipped": "y = Clip(z, down, up)",
    "difference of logits": "h = Gemm(x, w2) a = Slice(h, i0, i1, i1) c = Slice(h, i1, i2, i1) y = Sub(a, c)",
    "logit of a probability": "s = Sigmoid(z) o = Sub(one, s) u = Div(s, o) y = Log(u)",
}
MORE = (
    "float[2, 2] w2 = {1, -2, 0.5, 1}, float[1] b = {0.1}, float[1] g = {1}, float[2, 1] big = {3, -4}, float down = {-15},"
    " float up = {15}, int64[1] i0 = {0}"
)


def model(body, weights=(0.5, -1.5), more="", opset=17, functions=""):
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]> ranker (float[N, 2] x) => (float[N, 1] y) '
        f"<float[2, 1] w = {{{weights[0]}, {weights[1]}}}, {CONSTANTS}{more}> {{ z = MatMul(x, w) {body} }} {functions}"
    )
    return onnx.parser.parse_model(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")

    def place(made):
        path = folder / "base.onnx"
        path.unlink(missing_ok=True)
        path.write_bytes(made.SerializeToString())
        return path

    return place


numbers = st.floats(-3, 3).map(lambda value: round(value, 3)).filter(lambda value: abs(value) > 0.01)


@given(st.sampled_from(sorted(SIGMOIDS)), st.sampled_from(sorted(TAILS)), st.tuples(numbers, numbers))
@examples(derandomize=True, max_examples=150)
def test_a_sigmoid_is_never_served_as_a_logit_however_it_is_written(place, way, tail, weights):
    path = place(model(f"{SIGMOIDS[way]} {TAILS[tail]}", weights))
    with pytest.raises(ModelError, match="probability='y'"):
        Signature.read(path, logit="y")
    assert Signature.read(path, probability="y").predicts
    assert Signature.read(path).predicts


@given(st.sampled_from(sorted(HIDDEN)), st.sampled_from(sorted(TAILS)), st.tuples(numbers, numbers))
@examples(derandomize=True, max_examples=50)
def test_a_probability_that_only_rows_show_is_asked_for_and_never_a_logit_without_one_more_word(place, way, tail, weights):
    functions = '<opset_import: ["" : 17], domain: "local"> squash (v) => (r) { r = Sigmoid(v) }'
    path = place(model(f"{HIDDEN[way]} {TAILS[tail]}", weights, ", float[1, 1, 1] kernel = {1}", functions=functions))
    with pytest.raises(ModelError, match="write probability='y', or if it is a logit write logit='y', link='identity'"):
        Signature.read(path, logit="y")
    with pytest.raises(ModelError, match="write logit='y'"):
        Signature.read(path)
    assert Signature.read(path, probability="y", link="logit").predicts


@pytest.mark.parametrize("way", SIGMOIDS)
def test_the_proof_is_true_of_what_the_graph_computes(place, plain, rng, way):
    made = model(f"{SIGMOIDS[way]} y = Identity(p)")
    low, high = ranges_of(made.graph, place(made).parent)["y"]
    values = plain(place(made), {"x": rng.normal(0, 30, (500, 2)).astype(np.float32)})["y"]
    step = 0.002 if way == "quantized" else 1e-5
    assert max(low, 0) - step <= np.nanmin(values) <= np.nanmax(values) <= min(high, 1) + step


@pytest.mark.parametrize("way", RAW)
def test_a_logit_needs_no_word(place, way):
    path = place(model(RAW[way], more=f", {MORE}"))
    assert not Signature.read(path).predicts
    assert not Signature.read(path, logit="y").predicts


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("s = Sigmoid(z) y = Add(s, s)", "from 0 to 2"),
        ("s = Sigmoid(z) y = Sub(s, half)", "from -0.5 to 0.5"),
        ("y = Tanh(z)", "from -1 to 1"),
        ("s = Sigmoid(z) y = Log(s)", "at most 0"),
        ("y = Exp(z)", "at least 0"),
        ("t = Mul(z, low) u = Tanh(t) v = Mul(u, up) y = Add(v, up)", "from 0 to 30"),
        ("y = Sub(z, z)", "is 0 on 105 probed values"),
        ("t = Abs(z) r = Relu(t) n = Neg(r) e = Exp(n) y = Add(e, one)", "from 1 to 2"),
    ],
)
def test_what_neither_graph_nor_rows_decide_is_asked_for_with_the_line_to_write(place, body, words):
    with pytest.raises(ModelError, match=r"base\.onnx: .*write logit='y'( or probability='y')?$") as asked:
        Signature.read(place(model(body, more=f", {MORE}")))
    assert words in str(asked.value)


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(z) t = Mul(s, five) y = Sub(t, shift)",
        "y = Tanh(z)",
        "s = Sigmoid(z) y = Log(s)",
        "s = Sigmoid(z) y = Add(s, s)",
        "y = Exp(z)",
    ],
)
def test_a_narrow_or_one_sided_range_is_no_logit_without_one_more_word(place, body):
    path = place(model(body, more=", float five = {5}, float shift = {2.5}"))
    with pytest.raises(ModelError, match=r"logit='y' is always .*, too narrow for a logit; .*link='identity'$"):
        Signature.read(path, logit="y")
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y')?$"):
        Signature.read(path)
    assert not Signature.read(path, logit="y", link="identity").predicts


@given(st.tuples(numbers, numbers), st.floats(-3, 3), st.booleans())
@examples(derandomize=True, max_examples=50)
def test_a_linear_score_of_numbers_is_never_refused_as_a_logit(place, weights, bias, hidden):
    head = "u = Relu(z) t = Mul(u, low) v = Add(t, bias) y = Sub(v, z)" if hidden else "t = Mul(z, low) y = Add(t, bias)"
    path = place(model(head, weights, f", float bias = {{{bias}}}"))
    assert not Signature.read(path, logit="y").predicts


def test_an_output_without_a_word_is_never_taken_for_a_logit_in_silence(place, caplog):
    assert not Signature.read(place(model("y = Identity(z)"))).predicts
    assert "taken for a logit; write logit='y' to say so" in caplog.text
    caplog.clear()
    Signature.read(place(model("y = Identity(z)")), logit="y")
    Signature.read(place(model("y = Sigmoid(z)")))
    assert caplog.text == ""


TABLE = "<ir_version: 8, opset_import: ['' : 17]> g (int64[N] id) => (float[N] y) <float[4] t = {{{}}}> {{ y = Gather(t, id) }}"


@pytest.mark.parametrize(
    ("values", "given", "insist"),
    [
        ("0.1, 0.2, 0.9, 0.4", {"logit": "y"}, "identity"),
        ("900, 800, 1200, 700", {"logit": "y"}, "identity"),
        ("0.1, 0.2, 1.5, 0.4", {"probability": "y"}, "logit"),
        ("0, 0, 0, 0", {"probability": "y"}, "logit"),
        ("1, 1, 1, 1", {"probability": "y"}, "logit"),
    ],
)
def test_rows_that_speak_against_the_users_word_ask_for_one_more(place, values, given, insist):
    path = place(onnx.parser.parse_model(TABLE.format(values).replace("'", '"')))
    with pytest.raises(ModelError, match=f"link='{insist}'$"):
        Signature.read(path, **given)
    assert Signature.read(path, **given, link=insist).predicts == ("probability" in given)


def test_one_more_word_does_not_count_against_a_proof(place):
    with pytest.raises(ModelError, match=r"is always from 0 to 1, a probability; write probability='y'$"):
        Signature.read(place(model("y = Sigmoid(z)")), logit="y", link="identity")
    with pytest.raises(ModelError, match=r"is always from 1.1 to 2.1, never a probability; write logit='y'$"):
        Signature.read(place(model("s = Sigmoid(z) y = Add(s, c)", more=", float c = {1.1}")), probability="y", link="logit")


def test_a_label_is_no_probability(place):
    path = place(model("c = Greater(z, low) y = Cast<to = 1>(c)"))
    for named in ({}, {"probability": "y"}):
        with pytest.raises(ModelError, match="from 0 to 1"):
            Signature.read(path, **named)
    assert Signature.read(path, probability="y", link="logit").predicts


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"logit": "y", "link": "logit"}, "write logit='y', link='identity'"),
        ({"probability": "y", "link": "identity"}, "write probability='y', link='logit'"),
        ({"link": "sigmoid"}, "write link='identity' if the output is a logit"),
    ],
)
def test_words_that_contradict_each_other_are_refused(place, given, line):
    with pytest.raises(ModelError) as refused:
        Signature.read(place(model("y = Identity(z)")), **given)
    assert line in str(refused.value)


def ensemble(kind, leaves, transform="NONE", **more):
    """Two stumps on x[0], with these weights of the leaves, as the converters of tree libraries write them."""
    regressor = kind == "TreeEnsembleRegressor"
    what = "target" if regressor else "class"
    nodes = {
        "nodes_treeids": [0, 0, 0, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2] * 2,
        "nodes_featureids": [0] * 6,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        "nodes_values": [0.0] * 6,
        "nodes_truenodeids": [1, 0, 0] * 2,
        "nodes_falsenodeids": [2, 0, 0] * 2,
    }
    weights = {
        f"{what}_treeids": [0, 0, 1, 1],
        f"{what}_nodeids": [1, 2, 1, 2],
        f"{what}_ids": [0] * 4,
        f"{what}_weights": leaves,
    }
    also = {"n_targets": 1} if regressor else {"classlabels_int64s": [0, 1]}
    outputs = ["p"] if regressor else ["label", "p"]
    made = [
        helper.make_node(
            kind, ["x"], outputs, domain="ai.onnx.ml", post_transform=transform, **nodes, **weights, **also, **more
        ),
        *([] if regressor else [helper.make_node("Slice", ["p", "one", "two", "one"], ["y"])]),
    ]
    if regressor:
        made[0].output[0] = "y"
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1]), helper.make_tensor("two", TensorProto.INT64, [1], [2])],
    )
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    )


@pytest.mark.parametrize(
    ("made", "predicts"),
    [
        (lambda: ensemble("TreeEnsembleClassifier", [-2.0, 1.0, -1.0, 2.5], "LOGISTIC"), True),
        (lambda: ensemble("TreeEnsembleClassifier", [-2.0, 1.0, -1.0, 2.5]), False),
        (lambda: ensemble("TreeEnsembleClassifier", [0.1, 0.4, 0.2, 0.5]), True),
    ],
    ids=["boosted", "boosted, raw", "forest"],
)
def test_a_classifier_is_read_by_its_transform_and_its_leaves(place, made, predicts):
    assert Signature.read(place(made())).predicts == predicts


@pytest.mark.parametrize(
    ("made", "predicts"),
    [
        (lambda: ensemble("TreeEnsembleRegressor", [0.2, 1.0, 0.0, 0.5], aggregate_function="AVERAGE"), True),
        (lambda: ensemble("TreeEnsembleRegressor", [-2.0, 1.0, -1.0, 2.5]), False),
        (lambda: ensemble("TreeEnsembleRegressor", [-2.0, 1.0, -1.0, 2.5], "LOGISTIC"), False),
    ],
    ids=["forest of 0 and 1", "margin", "a transform that the runtime leaves out"],
)
def test_other_ensembles_are_asked_for_and_the_wrong_word_is_refused(place, made, predicts):
    path, words = place(made()), ("probability", "logit")
    right, wrong = words if predicts else reversed(words)
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y')?$"):
        Signature.read(path)
    with pytest.raises(ModelError, match=f"write {right}='y'"):
        Signature.read(path, **{wrong: "y"})
    assert Signature.read(path, **{right: "y"}).predicts == predicts


@pytest.mark.parametrize("named", [{}, {"logit": "y"}])
def test_a_regressor_of_prices_is_asked_for(place, named):
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y'|, link='identity')?$"):
        Signature.read(place(ensemble("TreeEnsembleRegressor", [120.0, 180.0, 90.0, 200.0])), **named)


def linear(kind, transform="NONE"):
    made = model("y = Identity(z)")
    del made.graph.node[:]
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    attributes = {"coefficients": [0.5, -1.5], "intercepts": [0.1], "post_transform": transform}
    if kind == "LinearClassifier":
        attributes |= {"coefficients": [-0.5, 1.5, 0.5, -1.5], "intercepts": [-0.1, 0.1], "classlabels_ints": [0, 1]}
        made.graph.node.append(helper.make_node(kind, ["x"], ["label", "s"], domain="ai.onnx.ml", **attributes))
        made.graph.node.append(helper.make_node("Slice", ["s", "i1", "i2", "i1"], ["y"]))
    else:
        made.graph.node.append(helper.make_node(kind, ["x"], ["y"], domain="ai.onnx.ml", **attributes))
    return made


def test_a_linear_classifier_is_read_by_its_transform_and_a_linear_regressor_asked_for(place):
    assert Signature.read(place(linear("LinearClassifier", "LOGISTIC"))).predicts
    assert Signature.read(place(linear("LinearClassifier", "SOFTMAX"))).predicts
    assert not Signature.read(place(linear("LinearClassifier"))).predicts
    path = place(linear("LinearRegressor"))
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y')?"):
        Signature.read(path)
    assert not Signature.read(path, logit="y").predicts


def test_a_graph_of_any_depth_missing_producers_and_cycles_are_no_error(place):
    deep = model("y = Identity(z)")
    del deep.graph.node[1:]
    deep.graph.node.append(helper.make_node("Sigmoid", ["z"], ["t0"]))
    deep.graph.node.extend(helper.make_node("Identity", [f"t{i}"], [f"t{i + 1}"]) for i in range(30_000))
    assert ranges_of(deep.graph, place(deep).parent)["t30000"] == (0, 1)
    for source in ("nowhere", "y"):
        deep.graph.node[2].input[0] = source
        assert "t30000" not in ranges_of(deep.graph, place(deep).parent)


def test_ids_beyond_a_table_and_a_model_that_cannot_be_run_do_not_break_the_probe(place):
    path = place(onnx.parser.parse_model(TABLE.format("-1, 2, -3, 4").replace("'", '"')))
    assert not Signature.read(path).predicts
    unknown = model("y = com.nobody.Score(z)")
    unknown.opset_import.append(helper.make_opsetid("com.nobody", 1))
    assert not Signature.read(place(unknown), logit="y").predicts
    with pytest.raises(ModelError, match="write logit='y'"):
        Signature.read(place(unknown))
