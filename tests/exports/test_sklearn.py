"""What skl2onnx writes of scikit-learn's classifiers, with its default options and others."""

import numpy as np
import pytest
from harness import Export, check
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from riverdelta.core.errors import ModelError
from riverdelta.graph.signature import Signature

SMALL = {"n_estimators": 5, "random_state": 0}
CLASSIFIERS = {
    "logistic": LogisticRegression(),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": RandomForestClassifier(max_depth=3, **SMALL),
    "extra trees": ExtraTreesClassifier(max_depth=3, **SMALL),
    "boosting": GradientBoostingClassifier(max_depth=2, **SMALL),
    "ada": AdaBoostClassifier(**SMALL),
    "tree": DecisionTreeClassifier(max_depth=3, random_state=0),
    "network": MLPClassifier((8,), max_iter=50, random_state=0),
    "bayes": GaussianNB(),
    "neighbours": KNeighborsClassifier(5),
    "descent": SGDClassifier(loss="log_loss", random_state=0),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
    "voting": VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft", flatten_transform=False),
    "stacking": StackingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2))], cv=2),
}
#: Its graph shows numbers from 0 to 1 and does not prove that there are no others.
ASKED = {"probability": "output_probability[1]"}
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:sklearn.*", "ignore::FutureWarning:sklearn.*", "ignore::sklearn.exceptions.ConvergenceWarning"
)


def written(folder, model, sample, **options):
    path = folder / "model.onnx"
    path.write_bytes(to_onnx(model, sample, **options).SerializeToString())
    return path


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_with_the_default_zipmap_is_a_base(data, tmp_path, kind):
    model = CLASSIFIERS[kind].fit(data.X, data.y)
    path = written(tmp_path, model, data.X[:1])
    line = ASKED if kind == "ada" else {}
    check(Export(path, {"X": data.rows}, model.predict_proba(data.rows)[:, 1], line=line), tmp_path)


OPTIONS = {
    "a matrix": ({"zipmap": False}, 17),
    "columns": ({"zipmap": "columns"}, 15),
    "no class labels": ({"nocl": True, "zipmap": False}, 18),
    "the oldest opset": ({}, {"": 9, "ai.onnx.ml": 1}),
    "opset 12": ({"zipmap": False}, 12),
    "the newest trees": ({"zipmap": False}, {"": 21, "ai.onnx.ml": 3}),
}


@pytest.mark.parametrize(
    ("kind", "of"), [*(("logistic", of) for of in OPTIONS), ("boosting", "the oldest opset"), ("forest", "a matrix")]
)
def test_a_classifier_with_other_options_is_a_base(data, tmp_path, kind, of):
    options, opset = OPTIONS[of]
    model = CLASSIFIERS[kind].fit(data.X, data.y)
    path = written(tmp_path, model, data.X[:1], options={id(model): options}, target_opset=opset)
    line = {"output": "i1"} if of == "columns" else {}
    check(Export(path, {"X": data.rows}, model.predict_proba(data.rows)[:, 1], line=line), tmp_path)


@pytest.mark.parametrize("kind", ["logistic", "boosting", "descent"])
def test_raw_scores_are_corrected_as_they_are(data, tmp_path, kind):
    model = CLASSIFIERS[kind].fit(data.X, data.y)
    path = written(tmp_path, model, data.X[:1], options={id(model): {"raw_scores": True, "zipmap": False}})
    line = {"output": "probabilities", "link": "identity"}
    raw = model.decision_function(data.rows)
    if kind != "boosting":  # scikit-learn's export of a linear model has the scores of both classes, -raw and raw
        line["output"] = "probabilities[1]"
    check(Export(path, {"X": data.rows}, model.predict_proba(data.rows)[:, 1], raw=raw, line=line), tmp_path)


@pytest.mark.parametrize("labels", [["no", "yes"], [-1, 1], [False, True], [1, 2]], ids=str)
def test_the_positive_class_is_1_or_true_or_named(data, tmp_path, labels):
    model = LogisticRegression().fit(data.X, np.array(labels)[data.y])
    path = written(tmp_path, model, data.X[:1])
    output = f"output_probability[{str(labels[1])!r}]"
    line = {} if labels in ([-1, 1], [False, True]) else {"output": output}
    check(Export(path, {"X": data.rows}, model.predict_proba(data.rows)[:, 1], line=line), tmp_path)


@pytest.mark.parametrize("labels", [["no", "yes"], [1, 2], [0, 1]], ids=str)
def test_the_only_column_of_a_decision_function_is_of_a_class_that_is_1_or_named(data, tmp_path, labels):
    model = RidgeClassifier().fit(data.X, np.array(labels)[data.y])
    path = written(tmp_path, model, data.X[:1])
    raw = model.decision_function(data.rows)
    if labels == [0, 1]:
        assert Signature.read(path).output == "probabilities"
        return
    with pytest.raises(ModelError, match=r"is the score of '(yes|2)' of the classes") as refused:
        Signature.read(path)
    for label, sign in zip(labels, (-1, 1), strict=True):
        output = f"raw_scores_tensor[{str(label)!r}]"
        assert f'output="{output}"' in str(refused.value)
        home = tmp_path / str(label)
        home.mkdir()
        check(Export(path, {"X": data.rows}, 1 / (1 + np.exp(-sign * raw)), raw=sign * raw, line={"output": output}), home)


@pytest.mark.parametrize(
    "model",
    [KNeighborsRegressor(5), MLPRegressor(hidden_layer_sizes=[4], max_iter=20), PCA(1)],
    ids=lambda one: type(one).__name__,
)
def test_a_number_that_is_of_no_classifier_is_never_taken_for_a_logit(data, tmp_path, model):
    path = written(tmp_path, model.fit(data.X, data.X[:, 0]), data.X[:1])
    with pytest.raises(
        ModelError, match=r"task regression.*; for that task write task='regression', else (if it is, )?write logit='variable'"
    ):
        Signature.read(path)


@pytest.mark.parametrize("model", [KMeans(3), PCA(3)], ids=lambda one: type(one).__name__)
def test_one_of_several_numbers_is_never_offered_as_a_logit(data, tmp_path, model):
    path = written(tmp_path, model.fit(data.X), data.X[:1])
    for at in range(3):
        with pytest.raises(ModelError, match=r"^(?!.*logit=)"):
            Signature.read(path, output=f"{'scores' if isinstance(model, KMeans) else 'variable'}[{at}]")


def test_a_support_vector_machine_is_a_base(data, tmp_path):
    model = CalibratedClassifierCV(SVC(), cv=2, ensemble=False).fit(data.X, data.y)
    path = written(tmp_path, model, data.X[:1])
    check(Export(path, {"X": data.rows}, model.predict_proba(data.rows)[:, 1]), tmp_path)


def test_numbers_in_double_precision_are_a_base(data, tmp_path):
    model = LogisticRegression().fit(data.X, data.y)
    path = written(tmp_path, model, None, initial_types=[("X", DoubleTensorType([None, 4]))])
    check(Export(path, {"X": data.rows.astype(np.float64)}, model.predict_proba(data.rows)[:, 1], line=ASKED), tmp_path)


def test_named_parts_of_a_matrix_are_features(data, tmp_path):
    from riverdelta import Linear

    model = CLASSIFIERS["boosting"].fit(data.X, data.y)
    path = written(tmp_path, model, data.X[:1])
    names = ["age", "income", "visits", "hour"]
    line, reads = {"names": {"X": names}}, [Linear("user", "hour", slots=64)]
    probability = model.predict_proba(data.rows)[:, 1]
    check(Export(path, dict(zip(names, data.rows.T, strict=True)), probability, line=line, corrections=reads), tmp_path)


def test_a_pipeline_that_takes_text_is_a_base(data, tmp_path):
    import pandas as pd

    from riverdelta import Linear

    frame = pd.DataFrame({"city": data.city, "age": data.X[:, 0]})
    steps = ColumnTransformer([("city", OneHotEncoder(), ["city"]), ("rest", "passthrough", ["age"])])
    model = make_pipeline(steps, LogisticRegression()).fit(frame, data.y)
    types = [("city", StringTensorType([None, 1])), ("age", FloatTensorType([None, 1]))]
    path = written(tmp_path, model, None, initial_types=types)
    probability = model.predict_proba(pd.DataFrame({"city": data.cities, "age": data.rows[:, 0]}))[:, 1]
    sent = {"city": data.cities, "age": data.rows[:, 0]}
    check(Export(path, sent, probability, corrections=[Linear("city", slots=64)]), tmp_path)
