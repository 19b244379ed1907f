"""The scorer of the golden homes, and the settings of each."""

import json

import numpy as np
import onnx

from riverdelta import Calibration, Entity, Linear
from riverdelta.definition import Definition
from riverdelta.features import Schema
from riverdelta.settings import Settings

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"""
#: The settings that learning reads, by the name of the home.
KINDS = {
    "explicit": {"on_conflict": "last", "max_updates_per_entity": 40, "entity_window_seconds": 600.0},
    "silence": {"labels": "silence", "window_seconds": 30.0, "keep_negatives": 0.5},
}


def definition(folder):
    """Return the definition, on a base that is written to `folder` where it is not there yet."""
    path = folder / "ranker.onnx"
    if not path.exists():
        onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [Calibration(), Linear("user", "shop", slots=64), Entity("user", on=["shop"], slots=64)]
    return Definition("ranker", path, "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)


def settings(folder):
    """Return the settings that the home in `folder` was recorded with."""
    given = json.loads((folder / "settings.json").read_text())
    return Settings.load(home=folder, grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0, **given)


def columns(rows, seed):
    """Return the columns of a request, and the labels that its rows deserve."""
    rng = np.random.default_rng(seed)
    x, shop = rng.normal(size=(2, rows)).astype(np.float32)
    label = (rng.random(rows) < 0.5 + 0.4 * np.tanh(shop)).astype(np.float32)
    return {"user": rng.integers(0, 12, rows), "x": x, "shop": shop}, label
