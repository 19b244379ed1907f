"""Several classes, values and counts, as each library writes them."""

import catboost
import lightgbm
import numpy as np
import onnx
import onnxmltools
import pytest
import torch
import xgboost
from harness import Export, check
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier

from riverdelta.core.errors import ModelError
from riverdelta.core.losses import loss_of
from riverdelta.graph.signature import Signature

TYPES = [("input", FloatTensorType([None, 4]))]
TREES = {"n_estimators": 5, "random_state": 0}
CATBOOST = {"iterations": 5, "depth": 3, "verbose": False, "allow_writing_files": False, "random_seed": 0}
NUMBERS, NAMES = ("0", "1", "2"), ("bird", "cat", "dog")
pytestmark = pytest.mark.filterwarnings("ignore")


def sklearn(folder, model, data, **options):
    (folder / "model.onnx").write_bytes(to_onnx(model, data.X[:1], **options).SerializeToString())
    return folder / "model.onnx", {"X": data.rows}


def save(folder, made):
    onnxmltools.utils.save_model(made, str(folder / "model.onnx"))
    return folder / "model.onnx"


CLASSIFIERS = {
    "logistic": LogisticRegression(),
    "forest": RandomForestClassifier(max_depth=3, **TREES),
    "boosting": GradientBoostingClassifier(max_depth=2, **TREES),
    "network": MLPClassifier((8,), max_iter=30, random_state=0),
    "one against the rest": OneVsRestClassifier(LogisticRegression()),
}
#: These have scores of which the probabilities are the softmax.
CUT = {"logistic", "boosting", "network"}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_of_scikit_learn_with_class_names(data, tmp_path, kind):
    model = CLASSIFIERS[kind].fit(data.X, data.name)
    path, columns = sklearn(tmp_path, model, data)
    check(Export(path, columns, model.predict_proba(data.rows), task="multiclass", classes=NAMES), tmp_path)
    assert Signature.read(path, loss=loss_of("multiclass")).margin == (kind in CUT)


@pytest.mark.parametrize("zipmap", [False, "columns"], ids=str)
def test_a_matrix_and_an_output_for_each_class_are_the_same_base(data, tmp_path, zipmap):
    model = LogisticRegression().fit(data.X, data.kind)
    path, columns = sklearn(tmp_path, model, data, options={id(model): {"zipmap": zipmap}})
    check(Export(path, columns, model.predict_proba(data.rows), task="multiclass", classes=NUMBERS), tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_of_lightgbm(data, tmp_path, classes):
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(data.X, np.minimum(data.kind, classes - 1))
    path = save(tmp_path, onnxmltools.convert_lightgbm(model, initial_types=TYPES))
    raw = model.predict(data.rows, raw_score=True)
    raw = np.stack([np.zeros(len(raw)), raw], 1) if classes == 2 else raw
    made = Export(path, {"input": data.rows}, model.predict_proba(data.rows), raw, task="multiclass", classes=NUMBERS[:classes])
    check(made, tmp_path)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_of_xgboost(data, tmp_path, classes):
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(data.X, np.minimum(data.kind, classes - 1))
    path = save(tmp_path, onnxmltools.convert_xgboost(model, initial_types=TYPES))
    made = Export(path, {"input": data.rows}, model.predict_proba(data.rows), task="multiclass", classes=NUMBERS[:classes])
    check(made, tmp_path)
    assert Signature.read(path, loss=loss_of("multiclass")).margin


def test_a_classifier_of_catboost(data, tmp_path):
    model = catboost.CatBoostClassifier(**CATBOOST).fit(data.X, data.name)
    model.save_model(str(tmp_path / "model.onnx"), format="onnx")
    raw = model.predict(data.rows, prediction_type="RawFormulaVal")
    path, columns = tmp_path / "model.onnx", {"features": data.rows}
    check(Export(path, columns, model.predict_proba(data.rows), raw, task="multiclass", classes=NAMES), tmp_path)


class Net(torch.nn.Module):
    def __init__(self, outputs, last):
        super().__init__()
        torch.manual_seed(0)
        self.out, self.last = torch.nn.Linear(4, outputs), last

    def forward(self, x):
        return self.last(self.out(x))


LAST = {
    "logits": (3, torch.nn.Identity(), "multiclass", {"logit": "y"}),
    "probabilities": (3, torch.nn.Softmax(dim=1), "multiclass", {}),
    "a value": (1, torch.nn.Identity(), "regression", {}),
    "a flat value": (1, torch.nn.Flatten(0), "regression", {}),
    "a rate": (1, torch.exp, "count", {}),
    "a log rate": (1, torch.nn.Identity(), "count", {"output": "y", "link": "identity"}),
}


@pytest.mark.parametrize("of", LAST)
def test_a_network_of_pytorch(data, tmp_path, of):
    outputs, last, task, line = LAST[of]
    net, path = Net(outputs, last).eval(), tmp_path / "model.onnx"
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}}
    torch.onnx.export(net, (torch.zeros(2, 4),), str(path), dynamo=False, **names)
    with torch.no_grad():
        raw, made = net.out(torch.tensor(data.rows)), net(torch.tensor(data.rows))
    prediction = torch.softmax(raw, 1) if outputs > 1 else torch.exp(raw) if task == "count" else made
    classes, exact = (NUMBERS if outputs > 1 else None), None if task == "count" or of == "probabilities" else "y"
    check(Export(path, {"x": data.rows}, prediction.numpy(), raw.numpy(), exact, line, task=task, classes=classes), tmp_path)


def test_a_head_of_hugging_face_has_the_names_of_its_configuration(data, tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 3] logits)'
        " <float[4, 3] w = {1, -2, 0.5, 1, 3, -1, 0, 1, 2, -1, 0, 1}> { logits = MatMul(x, w) }"
    )
    onnx.helper.set_model_props(model, {"id2label": '{"0": "bird", "1": "cat", "2": "dog"}'})
    onnx.save(model, path)
    raw = data.rows @ onnx.numpy_helper.to_array(model.graph.initializer[0])
    probability = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    line = {"logit": "logits"}
    check(Export(path, {"x": data.rows}, probability, raw, "logits", line, task="multiclass", classes=NAMES), tmp_path)


REGRESSORS = {"ridge": Ridge(), "forest": RandomForestRegressor(max_depth=3, **TREES)}


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor_of_scikit_learn(data, tmp_path, kind):
    model = REGRESSORS[kind].fit(data.X, data.value)
    path, columns = sklearn(tmp_path, model, data)
    check(Export(path, columns, model.predict(data.rows), exact="variable", task="regression"), tmp_path)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_a_regressor_of_lightgbm_in_any_unit(data, tmp_path, unit):
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(data.X, data.value * unit)
    path = save(tmp_path, onnxmltools.convert_lightgbm(model, initial_types=TYPES))
    signature = Signature.read(path, loss=loss_of("regression"))
    assert (signature.output, signature.predicts) == ("variable", False)


def test_a_regressor_of_xgboost_and_of_catboost(data, tmp_path):
    model = xgboost.XGBRegressor(n_estimators=5).fit(data.X, data.value)
    path = save(tmp_path, onnxmltools.convert_xgboost(model, initial_types=TYPES))
    check(Export(path, {"input": data.rows}, model.predict(data.rows), exact="variable", task="regression"), tmp_path)
    model = catboost.CatBoostRegressor(**CATBOOST).fit(data.X, data.value)
    model.save_model(str(tmp_path / "model.onnx"), format="onnx")
    made = Export(tmp_path / "model.onnx", {"features": data.rows}, model.predict(data.rows), task="regression")
    check(made, tmp_path / "catboost")


def test_a_rate_is_cut_at_its_exponential(data, tmp_path):
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, objective="poisson").fit(data.X, data.count)
    path = save(tmp_path, onnxmltools.convert_lightgbm(model, initial_types=TYPES))
    raw = model.predict(data.rows, raw_score=True)
    check(Export(path, {"input": data.rows}, model.predict(data.rows), raw, task="count"), tmp_path)
    model = PoissonRegressor().fit(data.X, data.count)
    path, columns = sklearn(tmp_path, model, data)
    check(Export(path, columns, model.predict(data.rows), task="count"), tmp_path / "sklearn")
    assert Signature.read(path, loss=loss_of("count")).margin


def test_a_rate_times_a_constant_is_a_rate(data, tmp_path):
    model = xgboost.XGBRegressor(n_estimators=5, max_depth=3, objective="count:poisson").fit(data.X, data.count)
    path = save(tmp_path, onnxmltools.convert_xgboost(model, initial_types=TYPES))
    check(Export(path, {"input": data.rows}, model.predict(data.rows), task="count"), tmp_path)


def test_trees_that_do_not_show_whether_they_make_a_rate_or_its_logarithm_are_asked_for(data, tmp_path):
    model = catboost.CatBoostRegressor(loss_function="Poisson", **CATBOOST).fit(data.X, data.count)
    model.save_model(str(tmp_path / "model.onnx"), format="onnx")
    path, columns = tmp_path / "model.onnx", {"features": data.rows}
    with pytest.raises(ModelError, match=r"write output='predictions', link='identity' or output='predictions', link='log'$"):
        Signature.read(path, loss=loss_of("count"))
    raw, line = model.predict(data.rows, prediction_type="RawFormulaVal"), {"output": "predictions", "link": "identity"}
    check(Export(path, columns, model.predict(data.rows, prediction_type="Exponent"), raw, line=line, task="count"), tmp_path)


def test_a_classifier_is_refused_as_a_number_with_the_task_to_write(data, tmp_path):
    model = LogisticRegression().fit(data.X, data.name)
    path, _ = sklearn(tmp_path, model, data)
    for task in ("regression", "count"):
        with pytest.raises(
            ModelError, match=rf"3 classes \(bird, cat, dog\), and the task {task} .*; write task=\"multiclass\"$"
        ):
            Signature.read(path, loss=loss_of(task))
