"""The raw margin that is served is the library's own, and no probability is cut where that would change it."""

import warnings

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from catboost import CatBoostClassifier
from onnx import helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from tests.graph.trees import ensemble

from riverdelta.corrections.calibration import Calibration
from riverdelta.graph.signature import Signature

TYPES = [("input", FloatTensorType([None, 3]))]
ROWS = np.random.default_rng(5).normal(size=(300, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] + 0.3 * ROWS[:, 1] > 0.1).astype(np.int64)
STEEP = {"n_estimators": 40, "learning_rate": 0.9}


def boosted_by_lightgbm(folder, zipmap=True, **options):
    model = lightgbm.LGBMClassifier(**STEEP, num_leaves=6, min_child_samples=2, verbose=-1, **options).fit(ROWS, LABELS)
    return convert_lightgbm(model, initial_types=TYPES, zipmap=zipmap), model.predict(ROWS, raw_score=True)


def boosted_by_xgboost(folder, **options):
    model = xgboost.XGBClassifier(**STEEP, max_depth=3, min_child_weight=0, **options).fit(ROWS, LABELS)
    return convert_xgboost(model, initial_types=TYPES), model.predict(ROWS, output_margin=True)


def boosted_by_catboost(folder):
    model = CatBoostClassifier(iterations=40, learning_rate=0.9, depth=3, verbose=0, allow_writing_files=False)
    model.fit(ROWS, LABELS).save_model(str(folder / "cat.onnx"), format="onnx")
    return onnx.load(folder / "cat.onnx"), model.predict(ROWS, prediction_type="RawFormulaVal")


def of_scikit_learn(estimator, **options):
    def make(folder):
        model = estimator.fit(ROWS, LABELS)
        return to_onnx(model, ROWS[:1], options=options or None), model.decision_function(ROWS)

    return make


def of_float64(estimator):
    def make(folder):
        model = estimator.fit(ROWS.astype(np.float64), LABELS)
        return to_onnx(model, ROWS[:1].astype(np.float64)), model.decision_function(ROWS)

    return make


MADE = {
    "lightgbm": boosted_by_lightgbm,
    "lightgbm, an array": lambda folder: boosted_by_lightgbm(folder, zipmap=False),
    "lightgbm, dart": lambda folder: boosted_by_lightgbm(folder, boosting_type="dart"),
    "xgboost": boosted_by_xgboost,
    "xgboost, a base score": lambda folder: boosted_by_xgboost(folder, base_score=0.02),
    "catboost": boosted_by_catboost,
    "gradient boosting": of_scikit_learn(GradientBoostingClassifier(**STEEP)),
    "histograms": of_scikit_learn(HistGradientBoostingClassifier(max_iter=20, learning_rate=0.9), zipmap=False),
    "logistic regression": of_scikit_learn(LogisticRegression(C=100), zipmap="columns"),
    "logistic regression of float64": of_float64(LogisticRegression(C=100)),
    "a decision function of one score": of_scikit_learn(SGDClassifier(random_state=0), zipmap=False),
    "raw scores": of_scikit_learn(LogisticRegression(), zipmap=False, raw_scores=True),
    "a decision function": of_scikit_learn(SVC(), zipmap=False),
    "a decision function, raw": of_scikit_learn(SVC(), zipmap=False, raw_scores=True),
}


@pytest.mark.parametrize("name", MADE)
def test_a_fresh_merge_serves_the_raw_score_of_the_library(name, write, combine, plain, tmp_path):
    with warnings.catch_warnings(action="ignore"):  # of the libraries
        model, raw = MADE[name](tmp_path)
    path = tmp_path / "base.onnx"
    onnx.save(model, path)
    merged = combine(path, [Calibration()])
    given = model.graph.input[0]
    found = plain(merged.path, {given.name: ROWS.astype(helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type))})
    np.testing.assert_allclose(found["logit"], raw, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(found["logit"], found["base_logit"])
    assert merged.signature.margin == ("raw" not in name and "decision" not in name)
    if merged.signature.margin and "logistic" not in name:
        probability = (1 / (1 + np.exp(-raw))).astype(np.float32).clip(1e-7, 1 - 1e-7)
        assert np.abs(np.log(probability) - np.log1p(-probability) - raw).max() > 20 * np.abs(found["logit"] - raw).max()
        assert {node.op_type for node in merged.model.graph.node}.isdisjoint({"ZipMap", "ArgMax"})


def test_a_network_is_cut_before_its_sigmoid_and_a_forest_stays_a_probability(combine, plain, tmp_path):
    for number, (estimator, margin) in enumerate(
        ((MLPClassifier((3,), max_iter=30), True), (RandomForestClassifier(3), False))
    ):
        path = tmp_path / f"{number}.onnx"
        with warnings.catch_warnings(action="ignore"):
            onnx.save(to_onnx(estimator.fit(ROWS, LABELS), ROWS[:1]), path)
        merged = combine(path, [Calibration()], number=number)
        assert (merged.signature.predicts, merged.signature.margin) == (True, margin)
        found = plain(merged.path, {"X": ROWS})["score"]
        np.testing.assert_allclose(found, [row[1] for row in plain(path, {"X": ROWS})["output_probability"]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize(
    ("leaves", "ids", "base"),
    [
        ([-1.5, 2.0], (0, 0), None),
        ([0.5, 2.0], (0, 0), None),
        ([0.5, 2.0], (1, 1), None),
        ([-0.5, -2.0], (0, 0), [0.25]),
        ([0.5, 2.0], (0, 0), [-4.0]),
        ([0.5, 2.0, -1.0, 3.0], (0, 0, 1, 1), None),
        ([0.5, 2.0, 1.0, 3.0], (0, 0, 1, 1), [0.5, -1.0]),
    ],
)
def test_a_margin_has_the_probability_of_every_kind_of_ensemble(combine, plain, rng, tmp_path, leaves, ids, base, column):
    path, x = tmp_path / "base.onnx", rng.normal(size=(20, 2)).astype(np.float32)
    for number, transform in enumerate(["LOGISTIC"] if set(ids) == {0} else ["LOGISTIC", "SOFTMAX"]):
        onnx.save(ensemble(leaves, transform, ids, **({} if base is None else {"base_values": base})), path)
        merged = combine(path, [Calibration()], number=number, probability=f"p[{column}]", link="logit")
        found, expected = plain(merged.path, {"x": x})["score"], plain(path, {"x": x})["p"][:, column]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_softmax_that_the_runtime_leaves_out_of_a_single_score_is_no_proof(plain, tmp_path):
    path = tmp_path / "base.onnx"
    onnx.save(ensemble([-1.5, 2.0], "SOFTMAX"), path)
    x = np.array([[-1, 0]], np.float32)
    assert plain(path, {"x": x})["p"].tolist() == [[1.5, -1.5]]
    assert not Signature.read(path).predicts


def test_a_margin_that_rows_disprove_is_not_served(write, caplog, combine, plain, rng):
    body = "z = ReduceMean<axes = [1], keepdims = 0>(x) y = Sigmoid(z)"
    path = write(f"g (float16[N, 2] x) => (float16[N] y) {{ {body} }}")
    merged = combine(path, [Calibration()])
    assert not merged.signature.margin
    assert "the logit of the probability is served" in caplog.text
    x = rng.normal(size=(20, 2)).astype(np.float16)
    np.testing.assert_allclose(plain(merged.path, {"x": x})["score"], plain(path, {"x": x})["y"], rtol=0, atol=1e-6)


def test_a_home_that_learned_with_the_logit_of_a_probability_can_keep_it(write, combine, plain, rng):
    path = write("g (float[N] x) => (float[N] p) { p = Sigmoid(x) }")
    assert Signature.read(path).margin
    x = rng.normal(size=30).astype(np.float32)
    found = plain(combine(path, [Calibration()], margin=False).path, {"x": x})
    p = plain(path, {"x": x})["p"]
    np.testing.assert_allclose(found["logit"], np.log(p) - np.log(np.float32(1) - p), rtol=1e-5, atol=1e-6)
    assert (found["logit"] != x).any()
