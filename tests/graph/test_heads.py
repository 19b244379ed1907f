"""Which number of each row is corrected: named as a tensor, a column or a class, and asked for where it is not clear."""

import numpy as np
import onnx
import pytest

from riverdelta.core.errors import ModelError, Unsupported
from riverdelta.corrections.calibration import Calibration
from riverdelta.graph.heads import Outputs
from riverdelta.graph.signature import Signature

HEADER = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>\n'
W = "float[2, 2] w = {1, -2, 0.5, 1}, float[2, 3] w3 = {1, -2, 0.5, 1, 3, -1}"
TORCH = f"g (float[N, 2] x) => (float[N, 2] logits) <{W}> {{ logits = MatMul(x, w) }}"
SOFTMAX = f"g (float[N, 2] x) => (float[N, 2] p) <{W}> {{ z = MatMul(x, w) p = Softmax<axis = -1>(z) }}"
MULTILABEL = f"g (float[N, 2] x) => (float[N, 2] p) <{W}> {{ z = MatMul(x, w) p = Sigmoid(z) }}"
THREE = f"g (float[N, 2] x) => (float[N, 3] p) <{W}> {{ z = MatMul(x, w3) p = Softmax<axis = -1>(z) }}"
LINEAR = (
    "label, p = ai.onnx.ml.LinearClassifier<coefficients = [-0.5, 1.5, 0.5, -1.5], intercepts = [-0.1, 0.1], "
    'post_transform = "LOGISTIC", {}>(x)'
)


def classifier(labels, kind="int64", outputs="float[N, 2] p", more=""):
    """A logistic regression of two classes, with the label and the probabilities."""
    made = LINEAR.format(labels)
    return f"{HEADER} g (float[N, 2] x) => ({kind}[N] label, {outputs}) {{ {made} {more} }}"


def values(plain, merged, rng, rows=50):
    x = rng.normal(0, 3, (rows, 2)).astype(np.float32)
    return x, plain(merged.path, {"x": x})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("logit", ("logit", None)),
        ("p[1]", ("p", 1)),
        ("p[-1]", ("p", -1)),
        ("p['fraud']", ("p", "fraud")),
        ('p["it\'s"]', ("p", "it's")),
        ("p['a[1]']", ("p", "a[1]")),
        ("dense/BiasAdd:0[1]", ("dense/BiasAdd:0", 1)),
        ("p[x]", ("p[x]", None)),
        ("p[]", ("p[]", None)),
        ("[1]", ("[1]", None)),
    ],
)
def test_a_name_is_a_tensor_a_column_or_a_quoted_class(written, meant):
    assert Outputs.split(written) == meant


def test_a_tensor_whose_own_name_ends_in_a_number_in_brackets_is_meant_by_it(write):
    made = write("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    model = onnx.load(made)
    model.graph.node[0].output[0] = model.graph.output[0].name = "y[1]"
    made.write_bytes(model.SerializeToString())
    assert Signature.read(made, logit="y[1]").output == "y[1]"


def test_two_columns_of_scores_are_corrected_by_their_difference(write, combine, plain, rng):
    for column, sign in ((1, 1), (0, -1)):
        merged = combine(write(TORCH), [Calibration()], output=f"logits[{column}]", link="identity")
        x, found = values(plain, merged, rng)
        z = plain(write(TORCH), {"x": x})["logits"]
        np.testing.assert_array_equal(found["base_logit"], sign * (z[:, 1] - z[:, 0]))
        np.testing.assert_array_equal(found["logit"], found["base_logit"])


def test_two_columns_without_labels_are_asked_for_by_their_lines(write):
    for text, name in ((TORCH, "logits"), (SOFTMAX, "p"), (MULTILABEL, "p")):
        with pytest.raises(ModelError, match=rf"write output='{name}\[0\]' or output='{name}\[1\]'$"):
            Signature.read(write(text))


@pytest.mark.parametrize("text", [SOFTMAX, MULTILABEL, THREE])
@pytest.mark.parametrize("column", [0, 1])
def test_a_column_of_probabilities_is_read_at_its_raw_number(write, combine, plain, rng, text, column):
    merged = combine(write(text), [Calibration()], output=f"p[{column}]")
    assert merged.signature.margin
    x, found = values(plain, merged, rng)
    p = plain(write(text), {"x": x})["p"][:, column]
    np.testing.assert_allclose(found["score"], p, rtol=0, atol=1e-6)
    inside = np.abs(found["logit"]) < 5
    np.testing.assert_allclose(found["logit"][inside], np.log(p[inside] / (1 - p[inside])), atol=1e-3)
    assert "Softmax" not in [node.op_type for node in merged.model.graph.node]


def test_the_class_1_is_the_positive_one_where_the_other_is_0_or_minus_1(write):
    for labels in ("0, 1", "1, 0", "-1, 1"):
        found = Signature.read(write(classifier(f"classlabels_ints = [{labels}]")))
        assert found.output == f"p[{labels.split(', ').index('1')}]"
        assert (found.predicts, found.margin) == (True, True)


@pytest.mark.parametrize(
    ("labels", "kind", "lines"),
    [
        ("classlabels_ints = [1, 2]", "int64", r"""output="p\['1'\]" or output="p\['2'\]"$"""),
        ('classlabels_strings = ["no", "yes"]', "string", r"""output="p\['no'\]" or output="p\['yes'\]"$"""),
        ('classlabels_strings = ["0", "1"]', "string", r"""output="p\['0'\]" or output="p\['1'\]"$"""),
        ('classlabels_strings = ["False", "True"]', "string", r"""output="p\['False'\]" or output="p\['True'\]"$"""),
    ],
)
def test_the_positive_class_is_asked_for_where_the_labels_do_not_say_it(write, labels, kind, lines):
    with pytest.raises(ModelError, match=f"which is the positive one; write {lines}"):
        Signature.read(write(classifier(labels, kind)))


def test_a_class_is_its_column(write, combine, plain, rng):
    path = write(classifier('classlabels_strings = ["no", "yes"]', "string"))
    names = ("no", "yes")
    merged = {name: combine(path, [Calibration()], number=at, probability=f"p['{name}']") for at, name in enumerate(names)}
    assert {name: one.signature.output for name, one in merged.items()} == {"no": "p[0]", "yes": "p[1]"}
    for column, one in enumerate(merged.values()):
        x, found = values(plain, one, rng)
        np.testing.assert_allclose(found["score"], plain(path, {"x": x})["p"][:, column], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("p['maybe']", r"no class 'maybe', but no, yes; write output=\"p\['no'\]\" or"),
        ("p[2]", r"no column 2, but 0 to 1; write output=\"p\['no'\]\" or"),
        ("p[-1]", r"no column -1, but 0 to 1; write"),
        ("q[1]", r"no output 'q'"),
        ("label", r"output 'label' is string\[N\]; .*: write output='p'$"),
        ("x", r"output 'x'|two columns"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_there_is(write, name, words):
    with pytest.raises(ModelError, match=words):
        Signature.read(write(classifier('classlabels_strings = ["no", "yes"]', "string")), output=name)


def test_a_map_of_classes_is_read_before_it_is_made_and_cut_off(write, combine, plain, rng):
    zipped = classifier(
        "classlabels_ints = [0, 1]",
        outputs="seq(map(int64, float)) z",
        more="z = ai.onnx.ml.ZipMap<classlabels_int64s = [0, 1]>(p)",
    )
    merged = combine(write(zipped), [Calibration()])
    assert (merged.signature.output, merged.signature.margin) == ("z[1]", True)
    x, found = values(plain, merged, rng)
    expected = [row[1] for row in plain(write(zipped), {"x": x})["z"]]
    np.testing.assert_allclose(found["score"], expected, rtol=0, atol=1e-6)
    assert "ZipMap" not in [node.op_type for node in merged.model.graph.node]


def test_an_output_for_each_class_is_one_of_two_columns(write):
    slices = (
        "i0 = Constant<value_ints = [0]>() i1 = Constant<value_ints = [1]>() i2 = Constant<value_ints = [2]>()"
        " c = Slice(p, i0, i1, i1) d = Slice(p, i1, i2, i1) flat = Constant<value_ints = [-1]>()"
        " no = Reshape(c, flat) yes = Reshape(d, flat)"
    )
    made = classifier("classlabels_ints = [0, 1]", outputs="float[N] no, float[N] yes", more=slices)
    assert Signature.read(write(made)).output == "yes"
    assert Signature.read(write(made), output="no").margin
    with pytest.raises(ModelError, match=r"write output='no' or output='yes'$"):
        Signature.read(write(made.replace("[0, 1], inter", "[3, 4], inter").replace("ints = [0, 1]>(x)", "ints = [3, 4]>(x)")))


def test_more_than_two_columns_are_another_task_and_one_of_them_can_be_named(write):
    with pytest.raises(ModelError, match=r"3 classes; write task=\"multiclass\"; or .* write output='p\[0\]' or"):
        Signature.read(write(THREE))
    with pytest.raises(ModelError, match='3 columns; write task="multiclass", or for one number of them task="regression"'):
        Signature.read(write(THREE.replace("p = Softmax<axis = -1>(z)", "p = Neg(z)")))
    assert Signature.read(write(THREE), probability="p[2]").predicts
    with pytest.raises(Unsupported, match=r"one of 3 raw outputs.*write probability='p\[2\]'$"):
        Signature.read(write(THREE.replace("p = Softmax<axis = -1>(z)", "p = Neg(z)")), logit="p[2]")


def test_an_inner_tensor_can_be_named(write, combine, plain, rng):
    merged = combine(write(SOFTMAX), [Calibration()], output="z[1]", link="identity")
    x, found = values(plain, merged, rng)
    z = x @ np.array([[1, -2], [0.5, 1]], np.float32)
    np.testing.assert_allclose(found["logit"], z[:, 1] - z[:, 0], rtol=1e-5, atol=1e-5)


def test_two_words_for_the_output_are_refused_with_one_line(write):
    with pytest.raises(ModelError, match=r"name one output: write output='p\[1\]'$"):
        Signature.read(write(SOFTMAX), output="p[1]", logit="p[1]")


@pytest.mark.parametrize("pair", ["n = Neg(s) y = Concat<axis = 1>(n, s)", "n = Mul(s, m) y = Concat<axis = 1>(n, s)"])
def test_a_decision_function_of_two_mirrored_columns_is_one_score(write, combine, plain, rng, pair):
    text = (
        "g (float[N, 2] x) => (float[N, 2] y) <float[2, 1] w = {0.5, -1.5}, float m = {-1}> { s = MatMul(x, w) " + pair + " }"
    )
    for column in (0, 1):
        merged = combine(write(text), [Calibration()], logit=f"y[{column}]")
        x, found = values(plain, merged, rng)
        np.testing.assert_array_equal(found["logit"], plain(write(text), {"x": x})["y"][:, column])


@pytest.mark.parametrize("written", ["paid", "p[paid]"])
def test_a_class_that_is_named_without_its_tensor_or_quotes_is_answered_with_the_line(write, written):
    path = write(classifier('classlabels_strings = ["paid", "unpaid"]', kind="string"))
    with pytest.raises(ModelError, match=r"""has no output .*: write output="p\['paid'\]"$"""):
        Signature.read(path, output=written)


@pytest.mark.parametrize(
    ("declared", "made", "found", "width"),
    [
        ("float[N, 2]", "ai.onnx.ml.ArrayFeatureExtractor(s, second)", "p", 1),
        ("float[1]", "ai.onnx.ml.ArrayFeatureExtractor(s, second)", "p", 1),
        ("float[N, 1]", "Identity(s)", "p[1]", 2),
    ],
)
def test_a_classifier_that_declares_other_columns_than_it_makes_is_read_as_it_is(write, declared, made, found, width):
    body = LINEAR.format("classlabels_ints = [0, 1]").replace("label, p", "label, s").replace("LOGISTIC", "NONE")
    path = write(f"{HEADER} g (float[N, 2] x) => ({declared} p) <int64 second = {{1}}> {{ {body} p = {made} }}")
    signature = Signature.read(path)
    assert (signature.output, signature.head.width) == (found, width)


def test_a_tensor_with_other_numbers_a_row_than_the_file_declares_is_refused_with_what_to_write(write, monkeypatch):
    path = write(TORCH.replace("float[N, 2] logits", "float[N, 1] logits"))
    with pytest.raises(ModelError, match=r"'logits' has 2 numbers a row, .*; write model = ") as refused:
        Signature.read(path)
    monkeypatch.chdir(path.parent)
    exec(str(refused.value).partition("write ")[2], {"onnx": onnx})
    assert Signature.read(path, output="logits[1]").head.rest


def test_two_columns_of_one_score_are_that_score_whichever_factor_comes_first(write):
    for product in ("Mul(s, turn)", "Mul(turn, s)", "Neg(s)", "Sub(one, s)"):
        text = "g (float[N, 2] x) => (float[N, 2] y) <float[2, 1] w = {1, -2}, float turn = {-1}, float one = {1}>"
        path = write(text + f" {{ s = MatMul(x, w) t = {product} y = Concat<axis = 1>(t, s) }}")
        head = Signature.read(path, output="y[1]", link="identity").head
        assert (head.column, head.rest, head.negative) == (1, False, False)


def test_labels_of_several_axes_are_no_matter_of_the_batch_axis(write):
    with pytest.raises(
        Unsupported, match=r"is float\[3, N, 2\]; the task binary takes \[N\], \[N, 1\] or \[N, K\] with a column"
    ):
        Signature.read(write("g (float[N, 2] x) => (float[3, N, 2] y) <int64[3] k = {3, 1, 1}> { y = Expand(x, k) }"))


def test_one_of_several_raw_outputs_that_is_never_negative_is_not_said_to_be_a_logit(write):
    path = write(f"g (float[N, 2] x) => (float[N, 3] y) <{W}> {{ z = MatMul(x, w3) y = Exp(z) }}")
    with pytest.raises(ModelError, match=r"one of 3 raw outputs alone is no logit: export .* and write probability='y\[0\]'"):
        Signature.read(path, output="y[0]")
