"""The labels that a classifier gives rows, against the classes that its columns seem to have."""

import catboost
import numpy as np
import pytest

from riverdelta.core.errors import ModelError
from riverdelta.graph.signature import Signature

#: A converter that writes the labels of the rows from `labels`, and the classes of the columns from `classes`.
TEXT = (
    '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : {version}]> g (float[N, 2] x)'
    " => ({kind}[N] label, float[N, 2] p) {{ label, p = ai.onnx.ml.LinearClassifier<coefficients = [-0.5, 1.5, 0.5, -1.5], "
    'intercepts = [-0.1, 0.1], post_transform = "LOGISTIC", {labels}>(x) maps = ai.onnx.ml.ZipMap<{classes}>(p) }}'
)
#: scikit-learn's stacked classifiers: the last one has the classes 0 and 1, of which its largest column picks others.
STACKED = (
    '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]> g (float[N, 2] x) => ({kind}[N] label, float[N, 2] p)'
    " <{kind}[2] classes = {classes}> {{ inner, p = ai.onnx.ml.LinearClassifier<coefficients = [-0.5, 1.5, 0.5, -1.5], "
    'intercepts = [-0.1, 0.1], post_transform = "LOGISTIC", classlabels_ints = [0, 1]>(x) c = Cast<to = 1>(p) '
    "at = ArgMax<axis = 1, keepdims = 0>(c) {label} }}"
)
PICKED = "label = ai.onnx.ml.ArrayFeatureExtractor(classes, at)"
HIDDEN = "twice = Add(at, at) label = Gather(classes, twice)"


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("string", 'classlabels_strings = ["no", "yes"]', 'classlabels_strings = ["yes", "no"]'),
        ("int64", "classlabels_ints = [0, 1]", "classlabels_int64s = [1, 0]"),
        ("int64", "classlabels_ints = [0, 5]", "classlabels_int64s = [0, 1]"),
        ("string", 'classlabels_strings = ["no", "yes"]', "classlabels_int64s = [0, 1]"),
    ],
)
def test_classes_that_the_labels_contradict_are_asked_for_by_column(write, version, kind, labels, classes):
    path = write(TEXT.format(version=version, kind=kind, labels=labels, classes=classes))
    named = None if "int64s" in classes else "p['yes']"
    with pytest.raises(ModelError, match=r"labels 'label' .* do not agree; write output='p\[0\]' or output='p\[1\]'$"):
        Signature.read(path, output=named)
    assert Signature.read(path, output="p[0]").predicts


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("string", 'classlabels_strings = ["no", "yes"]', 'classlabels_strings = ["no", "yes"]'),
        ("int64", "classlabels_ints = [-1, 1]", "classlabels_int64s = [-1, 1]"),
    ],
)
def test_classes_that_the_labels_confirm_are_taken(write, kind, labels, classes):
    path = write(TEXT.format(version=1, kind=kind, labels=labels, classes=classes))
    assert Signature.read(path, output="p['yes']" if kind == "string" else None).output == "p[1]"


@pytest.mark.parametrize(("kind", "classes"), [("string", '{"no", "yes"}'), ("int64", "{1, 2}")])
def test_the_classes_are_those_that_the_largest_column_picks_not_those_of_a_classifier_inside(write, kind, classes):
    path = write(STACKED.format(kind=kind, classes=classes, label=PICKED))
    first, second = ("no", "yes") if kind == "string" else ("1", "2")
    with pytest.raises(ModelError, match=f"has the classes '{first}' and '{second}', and nothing says which"):
        Signature.read(path)
    assert Signature.read(path, output=f"p[{second!r}]").output == "p[1]"


def test_labels_made_in_a_way_that_is_not_followed_still_contradict(write):
    path = write(
        STACKED.format(kind="int64", classes="{0, 5}", label=HIDDEN).replace("[2] classes = {0, 5}", "[3] classes = {0, 5, 5}")
    )
    with pytest.raises(ModelError, match=r"do not agree; write output='p\[0\]' or output='p\[1\]'$"):
        Signature.read(path)


@pytest.mark.parametrize(("classes", "column"), [([-1, 1], 1), ([1, 0], 0)])
def test_labels_of_trees_which_onnx_runtime_numbers_by_itself_are_not_asked(tmp_path, plain, classes, column):
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    options = {"iterations": 5, "depth": 2, "verbose": False, "allow_writing_files": False, "class_names": classes}
    model = catboost.CatBoostClassifier(**options).fit(x, np.array(classes)[(x[:, 0] > 0).astype(int)])
    model.save_model(str(tmp_path / "base.onnx"), format="onnx")
    assert set(plain(tmp_path / "base.onnx", {"features": x})["label"]) == {0, 1}
    assert Signature.read(tmp_path / "base.onnx").output == f"probabilities[{column}]"


def test_a_constant_output_is_refused_as_one_number_for_all_rows(write):
    path = write("g (float[N, 2] x) => (float[N, 2] y, float c) { y = Neg(x) c = Constant<value_float = 1.0>() }")
    with pytest.raises(ModelError, match=r"output 'c' is float\[\], without a dynamic batch axis"):
        Signature.read(path, output="c")
