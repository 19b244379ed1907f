"""A scorer that returns NaN: by its base where x is 1e30, by its corrections where they have learned and shop is 3e15."""

import numpy as np
import onnx

from riverdelta import Calibration, Entity
from riverdelta.core.features import Schema
from riverdelta.learning.definition import Definition
from riverdelta.storage.registry.state import Delta, State

BASE = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) {
  half = Constant<value = float {0.5}>()
  big = Constant<value = float {1e30}>()
  none = Constant<value = float {0.0}>()
  huge = Mul(x, big)
  odd = Mul(huge, none)
  part = Mul(x, half)
  logit = Add(part, odd)
}"""
MEAN, LIMIT = "riverdelta/entity_user/mean", "riverdelta/entity_user/limit"
#: Three rows: an ordinary one, one without a base logit, one without a corrected logit.
COLUMNS = {"user": [1, 2, 3], "x": [0.5, 1e30, 1.0], "shop": [0.25, 0.5, 3e15], "town": [0.25, 0.5, 3e15]}


def rows(*which):
    return {name: [column[i] for i in which] for name, column in COLUMNS.items()}


def scorer(folder):
    onnx.save(onnx.parser.parse_model(BASE), folder / "ranker.onnx")
    corrections = [Calibration(), Entity("user", on=["shop", "town"], slots=256)]
    columns = Schema.of({"shop": "float32", "town": "float32"})
    return Definition("ranker", folder / "ranker.onnx", "logit", columns=columns, corrections=corrections)


def learn(session):
    """Put tables into service by which 3e15 and 3e15, limited to 1e15, are infinity less infinity."""
    mean = np.tile(np.float32([0.1, 3e25, -3e25]), (256, 1))
    session.swap(Delta(State(0, 1, 0), session.state, {MEAN: (np.arange(256), mean)}))
