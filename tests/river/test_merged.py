"""A River pipeline inside a merged model: any ONNX runtime computes what the stack computes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from river.compose import Select
from river.linear_model import LinearRegression, LogisticRegression
from river.preprocessing import FeatureHasher, MinMaxScaler, OneHotEncoder, StandardScaler

from river import optim
from riverdelta import Calibration, Schema, Stack
from riverdelta.checks.block import draw
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features
from riverdelta.river import River

BASE = """<ir_version: 8, opset_import: ["" : {opset}]>
g (int64[N] user_id, float[N,4] x) => (float[N] logit)
<float[4,1] w = {{0.5, -0.5, 0.25, 1.0}}, int64[1] flat = {{-1}}>
{{
   tapped = Tanh(x)
   y = MatMul(tapped, w)
   logit = Reshape(y, flat)
}}"""
NUMBERS = (Select("x_0", "tap_2") | StandardScaler()) + (Select("hour") | MinMaxScaler())
CORRECTIONS = [
    Calibration(),
    River(
        (NUMBERS + (Select("user_id") | OneHotEncoder(drop_zeros=True))) | LogisticRegression(optim.AdaGrad(0.1)),
        features=("user_id", "hour", "x", "tap"),
        slots=64,
    ),
    River(Select("user_id") | OneHotEncoder() | StandardScaler() | LogisticRegression(), slots=64),
    River(FeatureHasher(3, seed=1) | LinearRegression(), features=("x", "hour")),
]


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_plain_onnxruntime_agrees_with_the_stack(opset, tmp_path):
    onnx.save(onnx.parser.parse_model(BASE.format(opset=opset)), tmp_path / "base.onnx")
    signature = Signature.read(tmp_path / "base.onnx", logit="logit")
    taps, declared = {"tap": "tapped"}, Schema.of({"hour": "float32"})
    schema = all_features(signature, taps, declared).schema
    stack = Stack([c.clone() for c in CORRECTIONS])
    stack.bind(schema)
    sent = draw(Schema({n: c for n, c in schema.items() if n != "tap"}), 300, 1)
    tap = np.tanh(sent.columns["x"])
    base = (tap @ np.array([[0.5], [-0.5], [0.25], [1.0]], np.float32)).astype(np.float32)
    stack.learn({**sent.columns, "tap": tap}, base, sent.label, sent.weight)
    release = save(merge(signature, stack, taps, declared), signature, tmp_path / "releases" / "000001.onnx")
    onnx.checker.check_model(str(release), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(release), options, providers=["CPUExecutionProvider"])
    expected = stack.predict({**sent.columns, "tap": tap}, base)[:, 0]
    np.testing.assert_allclose(session.run(["corrected_logit"], sent.columns)[0], expected, atol=1e-4)
    assert np.abs(expected - base[:, 0]).max() > 0.1
