"""What LightGBM, XGBoost and CatBoost write, by onnxmltools and by themselves."""

import catboost
import lightgbm
import numpy as np
import onnxmltools
import pytest
import xgboost
from harness import Export, check
from onnxmltools.convert.common.data_types import FloatTensorType

TYPES = [("input", FloatTensorType([None, 4]))]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:(sklearn|lightgbm|xgboost).*")


def written(folder, model):
    onnxmltools.utils.save_model(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


LIGHTGBM = {
    "by default": {},
    "dart": {"boosting_type": "dart"},
    "forest": {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
    "imbalanced": {"is_unbalance": True},
    "cross entropy": {"objective": "cross_entropy"},
    "steep": {"sigmoid": 2.0},
    "certain": {"learning_rate": 1.0, "n_estimators": 60, "min_child_samples": 1},
}


@pytest.mark.parametrize("zipmap", [True, False], ids=["zipmap", "matrix"])
@pytest.mark.parametrize("of", LIGHTGBM)
def test_lightgbm_is_a_base(data, tmp_path, of, zipmap):
    options = {"n_estimators": 5, "verbose": -1, **LIGHTGBM[of]}
    model = lightgbm.LGBMClassifier(**options).fit(data.X, data.y)
    path = written(tmp_path, onnxmltools.convert_lightgbm(model, initial_types=TYPES, zipmap=zipmap))
    raw, probability = model.predict(data.rows, raw_score=True), model.predict_proba(data.rows)[:, 1]
    plain = of not in ("forest", "cross entropy")
    check(Export(path, {"input": data.rows}, probability, raw=raw * options.get("sigmoid", 1) if plain else None), tmp_path)


@pytest.mark.parametrize("opset", [9, 13, 15])
def test_a_booster_of_lightgbm_is_a_base(data, tmp_path, opset):
    made = lightgbm.Dataset(data.X, data.y)
    model = lightgbm.train({"objective": "binary", "verbose": -1}, made, 5)
    path = written(tmp_path, onnxmltools.convert_lightgbm(model, initial_types=TYPES, target_opset=opset))
    raw = model.predict(data.rows, raw_score=True)
    check(Export(path, {"input": data.rows}, model.predict(data.rows), raw=raw), tmp_path)


XGBOOST = {
    "by default": {},
    "dart": {"booster": "dart"},
    "exact": {"tree_method": "exact"},
    "a prior": {"base_score": 0.3},
    "a weight": {"scale_pos_weight": 3.0},
    "certain": {"learning_rate": 1.0, "n_estimators": 60},
}


@pytest.mark.parametrize("of", XGBOOST)
def test_xgboost_is_a_base(data, tmp_path, of):
    model = xgboost.XGBClassifier(**{"n_estimators": 5, "max_depth": 3, **XGBOOST[of]}).fit(data.X, data.y)
    path = written(tmp_path, onnxmltools.convert_xgboost(model, initial_types=TYPES))
    raw, probability = model.predict(data.rows, output_margin=True), model.predict_proba(data.rows)[:, 1]
    check(Export(path, {"input": data.rows}, probability, raw=raw), tmp_path)


def test_a_booster_of_xgboost_that_gives_logits_is_a_base(data, tmp_path):
    model = xgboost.train({"objective": "binary:logitraw", "max_depth": 3}, xgboost.DMatrix(data.X, data.y), 5)
    path = written(tmp_path, onnxmltools.convert_xgboost(model, initial_types=TYPES))
    raw = model.predict(xgboost.DMatrix(data.rows))
    check(Export(path, {"input": data.rows}, 1 / (1 + np.exp(-raw)), raw=raw), tmp_path)


CATBOOST = {
    "by default": {},
    "cross entropy": {"loss_function": "CrossEntropy"},
    "deep": {"depth": 6, "iterations": 40, "learning_rate": 0.5},
    "lossguide": {"grow_policy": "Lossguide"},
}


@pytest.mark.parametrize("of", CATBOOST)
def test_catboost_is_a_base(data, tmp_path, of):
    options = {"iterations": 5, "depth": 3, "verbose": False, "allow_writing_files": False, "random_seed": 0, **CATBOOST[of]}
    model = catboost.CatBoostClassifier(**options).fit(data.X, data.y)
    model.save_model(str(tmp_path / "model.onnx"), format="onnx")
    raw, probability = model.predict(data.rows, prediction_type="RawFormulaVal"), model.predict_proba(data.rows)[:, 1]
    check(Export(tmp_path / "model.onnx", {"features": data.rows}, probability, raw=raw), tmp_path)


def test_catboost_with_text_classes_asks_for_the_class(data, tmp_path):
    options = {"iterations": 5, "depth": 3, "verbose": False, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(**options).fit(data.X, np.array(["no", "yes"])[data.y])
    model.save_model(str(tmp_path / "model.onnx"), format="onnx")
    line = {"output": "probabilities['yes']"}
    check(Export(tmp_path / "model.onnx", {"features": data.rows}, model.predict_proba(data.rows)[:, 1], line=line), tmp_path)
