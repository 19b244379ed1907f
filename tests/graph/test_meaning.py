"""What an output means: proved by the graph, shown by probed rows, asked for, and never guessed."""

import onnx
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from onnx import helper
from tests.graph.scores import HIDDEN, MORE, RAW, SIGMOIDS, TAILS, model
from tests.graph.trees import ensemble

from riverdelta.core.errors import ModelError
from riverdelta.graph.signature import Signature

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


@pytest.mark.parametrize("way", RAW)
def test_a_logit_needs_no_word(place, way):
    path = place(model(RAW[way], more=f", {MORE}"))
    assert not Signature.read(path).predicts
    assert not Signature.read(path, logit="y").predicts


NARROW = {
    "s = Sigmoid(z) y = Add(s, s)": "from 0 to 2",
    "s = Sigmoid(z) t = Mul(s, five) y = Sub(t, shift)": "from -2.5 to 2.5",
    "y = Tanh(z)": "from -1 to 1",
    "s = Sigmoid(z) y = Log(s)": "at most 0",
    "y = Exp(z)": "at least 0",
}
OPEN = NARROW | {
    "s = Sigmoid(z) y = Sub(s, half)": "from -0.5 to 0.5",
    "t = Mul(z, low) u = Tanh(t) v = Mul(u, up) y = Add(v, up)": "from 0 to 30",
    "y = Sub(z, z)": "is 0 on 105 probed values",
    "t = Abs(z) r = Relu(t) n = Neg(r) e = Exp(n) y = Add(e, one)": "from 1 to 2",
}


@pytest.mark.parametrize("body", OPEN)
def test_what_neither_graph_nor_rows_decide_is_asked_for_with_the_line_to_write(place, body):
    with pytest.raises(ModelError, match=r"base\.onnx: .*write logit='y'( or probability='y')?$") as asked:
        Signature.read(place(model(body, more=f", {MORE}")))
    assert OPEN[body] in str(asked.value)


@pytest.mark.parametrize("body", NARROW)
def test_a_narrow_or_one_sided_range_is_no_logit_without_one_more_word(place, body):
    path = place(model(body, more=f", {MORE}"))
    with pytest.raises(ModelError, match=r"logit='y' is always .*, too narrow for a logit; .*link='identity'$"):
        Signature.read(path, logit="y")
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


LEAVES = [-2.0, 1.0, -1.0, 2.5]


@pytest.mark.parametrize(
    ("made", "predicts"),
    [
        (ensemble(LEAVES, "LOGISTIC", trees=2), True),
        (ensemble(LEAVES, trees=2), False),
        (ensemble([0.1, 0.4, 0.2, 0.5], trees=2), True),
    ],
    ids=["boosted", "boosted, raw", "forest"],
)
def test_a_classifier_is_read_by_its_transform_and_its_leaves(place, made, predicts):
    assert Signature.read(place(made)).predicts == predicts


@pytest.mark.parametrize(
    ("leaves", "more", "predicts"),
    [
        ([0.2, 1.0, 0.0, 0.5], {"aggregate_function": "AVERAGE"}, True),
        (LEAVES, {}, False),
        (LEAVES, {"transform": "LOGISTIC"}, False),
    ],
    ids=["forest of 0 and 1", "margin", "a transform that the runtime leaves out"],
)
def test_other_ensembles_are_asked_for_and_the_wrong_word_is_refused(place, leaves, more, predicts):
    path, words = place(ensemble(leaves, trees=2, op="TreeEnsembleRegressor", **more)), ("probability", "logit")
    right, wrong = words if predicts else reversed(words)
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y')?$"):
        Signature.read(path)
    with pytest.raises(ModelError, match=f"write {right}='y'"):
        Signature.read(path, **{wrong: "y"})
    assert Signature.read(path, **{right: "y"}).predicts == predicts


def test_the_confidence_in_whichever_class_is_the_most_probable_is_asked_for(place):
    text = "g (float[N, 3] x) => (float[N, 1] y) { p = Softmax(x) y = ReduceMax<axes = [1]>(p) }"
    path = place(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}'))
    with pytest.raises(ModelError, match=r"is the largest of several, whichever class that is; .* write probability='y'$"):
        Signature.read(path)
    assert Signature.read(path, probability="y").predicts
    with pytest.raises(ModelError, match="write probability='y'"):
        Signature.read(path, logit="y")


@pytest.mark.parametrize("named", [{}, {"logit": "y"}])
def test_a_regressor_of_prices_is_asked_for(place, named):
    with pytest.raises(ModelError, match=r"write logit='y'( or probability='y'|, link='identity')?$"):
        Signature.read(place(ensemble([120.0, 180.0, 90.0, 200.0], trees=2, op="TreeEnsembleRegressor")), **named)


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


def test_ids_beyond_a_table_and_a_model_that_cannot_be_run_do_not_break_the_probe(place):
    path = place(onnx.parser.parse_model(TABLE.format("-1, 2, -3, 4").replace("'", '"')))
    assert not Signature.read(path).predicts
    unknown = model("y = com.nobody.Score(z)")
    unknown.opset_import.append(helper.make_opsetid("com.nobody", 1))
    assert not Signature.read(place(unknown), logit="y").predicts
    with pytest.raises(ModelError, match="write logit='y'"):
        Signature.read(place(unknown))
