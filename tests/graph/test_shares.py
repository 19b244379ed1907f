"""Outputs of several classes, of values and of counts: what shows their meaning, and what is asked for."""

import numpy as np
import onnx
import pytest

from riverdelta.core.errors import ConfigurationError, ModelError, Unsupported
from riverdelta.core.losses import Count, Multiclass, Regression, loss_of
from riverdelta.corrections.stack import Stack
from riverdelta.graph.inspection import declarations
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature

HEADER = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>\n'
W = "<float[2, 3] w = {1, -2, 0.5, 1, 3, -1}, int64[1] one = {1}>"
KINDS = {
    "softmax": "p = Softmax<axis = -1>(z)",
    "softmax, written out": "e = Exp(z) s = ReduceSum(e, one) p = Div(e, s)",
    "exponential of a log-softmax": "l = LogSoftmax(z) p = Exp(l)",
    "logits": "p = Identity(z)",
    "log-softmax": "p = LogSoftmax(z)",
}
CLASSIFIER = (
    "label, p = ai.onnx.ml.LinearClassifier<coefficients = [2.0, 0.0, 0.0, 2.0, -2.0, -2.0], intercepts = [0.0, 0.0, 0.0], "
    'classlabels_strings = ["bird", "cat", "dog"], post_transform = "{}">(x)'
)


def kinds(body, outputs="float[N, 3] p"):
    return f"{HEADER} g (float[N, 2] x) => ({outputs}) {W} {{ z = MatMul(x, w) {body} }}"


def read(path, loss=None, **given):
    return Signature.read(path, loss=loss or loss_of("multiclass"), **given)


@pytest.mark.parametrize("way", KINDS)
def test_a_fresh_merge_of_several_classes_has_the_bits_of_their_scores(write, plain, rng, way):
    path, x = write(kinds(KINDS[way])), rng.normal(0, 3, (50, 2)).astype(np.float32)
    signature = read(path)
    merged = merge(signature, Stack([], signature.loss), {}, {})
    made = plain(merged.SerializeToString(), {"x": x})
    z = x @ np.array([[1, -2, 0.5], [1, 3, -1]], np.float32)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(made["score"], p / p.sum(axis=1, keepdims=True), atol=1e-6)
    assert made["logit"].tobytes() == made["base_logit"].tobytes()
    assert signature.predicts == (way not in ("logits", "log-softmax"))
    if way in ("softmax", "exponential of a log-softmax", "logits"):
        own = plain(write(kinds("p = Identity(z)")), {"x": x})["p"]
        assert made["base_logit"].tobytes() == own.tobytes()


def test_labels_that_do_not_exclude_each_other_are_not_shares_without_one_more_word(write):
    path = write(kinds("p = Sigmoid(z)"))
    with pytest.raises(ModelError, match=r"rows add up to .*task=\"binary\", output='p\[0\]' .*probability='p', link='logit'$"):
        read(path)
    with pytest.raises(ModelError, match="link='logit' if they are to add up to 1"):
        read(path, probability="p")
    assert read(path, probability="p", link="logit").predicts
    with pytest.raises(ModelError, match=r"is always from 0 to 1, a probability; write probability='p'$"):
        read(path, logit="p")


def test_one_column_or_one_number_is_refused_with_the_line(write):
    with pytest.raises(ModelError, match=r"'p\[1\]' is one column; write output='p'"):
        read(write(kinds("p = Softmax(z)")), output="p[1]")
    with pytest.raises(Unsupported, match='for one score of two outcomes write task="binary"'):
        read(write("g (float[N] x) => (float[N] y) { y = Neg(x) }"))


def test_the_classes_are_those_of_the_export_or_those_that_are_given(write):
    path = write(f"{HEADER} g (float[N, 2] x) => (string[N] label, float[N, 3] p) {{ {CLASSIFIER.format('SOFTMAX')} }}")
    assert read(path).loss.classes == ("bird", "cat", "dog")
    assert read(path, Multiclass(["a", "b", "c"])).loss.classes == ("a", "b", "c")
    assert read(write(kinds("p = Softmax(z)"))).loss.classes == ("0", "1", "2")
    with pytest.raises(ConfigurationError, match="the base has 3 classes"):
        read(path, Multiclass(["a", "b"]))


def test_columns_in_another_order_than_the_labels_of_the_model_are_refused(write):
    turned = CLASSIFIER.format("SOFTMAX").replace("label, p", "label, q") + " t = Neg(q) p = Softmax(t)"
    path = write(f"{HEADER} g (float[N, 2] x) => (string[N] label, float[N, 3] p) {{ {turned} }}")
    model = onnx.load(path)
    model.graph.node[1].op_type = "Identity"
    del model.graph.node[2]
    model.graph.node.append(onnx.helper.make_node("Gather", ["t", "turn"], ["p"], axis=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 0, 1]), "turn"))
    zipped = onnx.helper.make_node("ZipMap", ["p"], ["m"], domain="ai.onnx.ml", classlabels_strings=["bird", "cat", "dog"])
    model.graph.node.append(zipped)
    del model.graph.output[1:]
    kind = onnx.helper.make_map_type_proto(
        onnx.TensorProto.STRING, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    )
    model.graph.output.append(onnx.helper.make_value_info("m", onnx.helper.make_sequence_type_proto(kind)))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="do not agree; write task=Multiclass"):
        read(path)


@pytest.mark.parametrize("kind", ["float", "double", "int64", "int32"])
@pytest.mark.parametrize("shape", ["[N]", "[N, 1]"])
def test_a_value_is_a_number_of_any_type(write, plain, kind, shape):
    path = write(f"g ({kind}{shape} x) => ({kind}{shape} y) {{ y = Identity(x) }}")
    signature = read(path, Regression())
    made = plain(merge(signature, Stack([], signature.loss), {}, {}).SerializeToString(), {"x": _rows(kind, shape)})
    assert made["score"].tolist() == [3, -20_000, 0]


def _rows(kind, shape):
    rows = np.array([3, -20_000, 0], {"float": "float32", "double": "float64"}.get(kind, kind))
    return rows if shape == "[N]" else rows[:, None]


def test_a_column_of_several_values_is_named(write):
    path = write(kinds("p = Identity(z)"))
    with pytest.raises(
        ModelError, match=r"3 columns, and the task regression corrects one number a row; write output='p\[0\]'"
    ):
        read(path, Regression())
    head = read(path, Regression(), output="p[2]").head
    assert (head.column, head.rest) == (2, False)
    assert not read(write(kinds("p = Identity(z)", "float[N, 3] p")), Regression(), output="p[1]").predicts


def test_words_of_probabilities_do_not_fit_a_value(write):
    path = write("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    with pytest.raises(ModelError, match=r"logit='y', and the task regression corrects a value; write output='y'$"):
        read(path, Regression(), logit="y")
    with pytest.raises(ModelError, match="link is 'log'; an output is a value as it is: leave link out"):
        read(path, Regression(), link="log")


@pytest.mark.parametrize(
    ("body", "predicts", "margin"),
    [
        ("y = Exp(x)", True, True),
        ("y = Relu(x)", True, False),
        ("y = Softplus(x)", True, False),
        ("y = Neg(x)", False, False),
    ],
)
def test_a_rate_is_never_negative_and_a_log_rate_is(write, body, predicts, margin):
    signature = read(write(f"g (float[N] x) => (float[N] y) {{ {body} }}"), Count())
    assert (signature.predicts, signature.margin) == (predicts, margin)


def test_a_count_that_rows_do_not_decide_is_asked_for(write):
    path = write("g (float[N] x) => (float[N] y) { a = Mul(x, x) b = Sqrt(a) y = Add(b, b) }")
    with pytest.raises(ModelError, match=r"whether it is a log rate or a prediction; .*link='identity' or .*link='log'$"):
        read(path, Count())
    assert read(path, Count(), link="log").predicts
    assert not read(path, Count(), link="identity").predicts


def test_inspect_has_a_service_or_a_reason_for_each_task(write):
    made = declarations(write(kinds("p = Softmax(z)")))
    assert 'task="multiclass"' in made["multiclass"]
    assert {task for task, code in made.items() if isinstance(code, str)} == {"multiclass"}
    made = declarations(write("g (float[N] x) => (float[N] y) { y = Exp(x) }"))
    assert {task for task, code in made.items() if isinstance(code, str)} == {"regression", "count", "ranking"}
    assert "export RIVERDELTA_WINDOW_SECONDS=3600" in made["ranking"]
    assert "the task multiclass takes [N, K]" in str(made["multiclass"])
