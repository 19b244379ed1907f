"""A base with inputs of many types and shapes, requests of it, and corrections that read all of them."""

import onnx
import onnx.parser

from riverdelta import Calibration, Entity, Linear, Schema
from riverdelta.learning.definition import Definition

TEXT = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml": 3]>
ranker (double[N, 3] X, string[N, 1] city, uint64[N, 1] code, int64[N] age, bool[N, 1] new, float16[N, 1] rate)
  => (float[N] logit)
<double[3, 1] w = {0.5, -0.25, 0.125}, int64[1] one = {1}, int64[1] flat = {-1}>
{
  z = MatMul(X, w)  y = Cast<to = 1>(z)
  known = ai.onnx.ml.LabelEncoder<keys_strings = ["ann", "bob"], values_floats = [1.0, 2.0], default_float = 0.0>(city)
  sum = Add(y, known)  logit = Reshape(sum, flat)
  a = Identity(code)  b = Identity(age)  c = Identity(new)  d = Identity(rate)
}"""
NAMES = {"X": ["income", "region", "debt"]}
REST = {"city": ["ann", "eve"], "code": [2**64 - 1, 7], "age": [30, 41], "new": [True, False], "rate": [0.5, 0.25]}
PARTS = {"income": [1000, 2500.5], "region": [3, -4], "debt": [0, 1]}
X = [[1000, 3, 0], [2500.5, -4, 1]]
CORRECTIONS = [
    Calibration(),
    Linear("income", "age", "rate", ("region", "code"), "new", slots=64),
    Entity("city", on=["debt"], slots=64),
]


def typed(folder):
    """Return the definition, whose base is a file in a folder."""
    path = folder / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    columns = Schema.of({"region": "int64", "age": "float32"})
    slices = {"city": ["ann", "bob"], "region": [3, 4]}
    return Definition("ranker", path, "logit", columns=columns, names=NAMES, corrections=CORRECTIONS, slices=slices)
