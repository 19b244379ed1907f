"""The scorer of the golden homes, and the settings of each."""

import json

import numpy as np
import onnx
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from riverdelta import Calibration, Entity, Linear, Lookup, River
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.evaluation.drift import Adapt
from riverdelta.learning.definition import Definition

RANKER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, int64[N] item, float[N] x) => (float[N] logit) {
  half = Constant<value = float {0.5}>()
  logit = Mul(x, half)
  second = Constant<value = int64[1] {1}>()
  wide = Unsqueeze(x, second)
  square = Mul(wide, wide)
  pair = Concat<axis = 1>(wide, square)
}"""
ITEMS = [f"item-{i}" for i in range(9)]
TASTE = Lookup("taste", key="item", table={item: [i / 4 - 1, (i % 3) / 2] for i, item in enumerate(ITEMS[:7])})
TAGS = Lookup("tags", key="item", table={item: ["old", "new", "rare"][: i % 3 + 1] for i, item in enumerate(ITEMS)})
#: The settings of all homes: small files, checkpoints where the recording says, a verdict and an alarm within it.
COMMON = {
    "segment_bytes": 100_000,
    "keep_releases": 2,
    "checkpoint_seconds": 1e9,
    "release_seconds": 1e9,
    "promote_margin": 0.2,
    "promote_alpha": 0.2,
    "drift_reference_examples": 1024,
    "drift_run_length": 1e3,
}
SILENCE = {"labels": "silence", "window_seconds": 30.0}
#: The settings of each home, by its name. All its examples have the weight 1 or -1 in the first two, and others in the rest.
KINDS = {
    "explicit": {"on_conflict": "last", "max_updates_per_entity": 40, "entity_window_seconds": 10.0, "breaker": "off"},
    "silence": SILENCE,
    "sampled": {**SILENCE, "keep_negatives": 0.5, "late": "plain", "breaker": "off"},
    # Of this one's journal the first segments are gone, and with them rows that wait in its checkpoints.
    "swept": {**SILENCE, "window_seconds": 120.0, "keep_negatives": 0.5, "breaker": "off", "journal_max_bytes": 1},
}


def definition(folder):
    """Return the definition, on a base that is written to `folder` where it is not there yet."""
    path = folder / "ranker.onnx"
    if not path.exists():
        onnx.save(onnx.parser.parse_model(RANKER), path)
    corrections = [
        Calibration(),
        Linear("user", ("user", "item"), "shop", TAGS, slots=64),
        Entity("user", on=["shop", "pair", TASTE], slots=64),
        River(StandardScaler() | LogisticRegression(), features=("shop",)),
    ]
    declared = Schema.of({"shop": "float32", "country": "int64"})
    adapt, slices = Adapt(forget=0.5, rate=2.0, for_examples=300), {"country": ["de", "fr"]}
    return Definition("ranker", path, "logit", None, {"pair": "pair"}, declared, corrections, adapt, slices)


def settings(folder):
    """Return the settings that the home in `folder` was recorded with."""
    given = json.loads((folder / "settings.json").read_text())
    return Settings.load(home=folder, grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0, **given)


def deserved(user, item, x, shop, turned=False):
    """Return the logits that rows deserve, whose item is given by its number."""
    return x / 2 + (-2.0 if turned else 2.0) * np.tanh(shop) + (user % 3 - 1) + (item % 2)


def columns(rows, seed):
    """Return the columns of a request, and the labels that its rows deserve; from seed 44 on they are other ones."""
    rng = np.random.default_rng(seed)
    x, shop = rng.normal(size=(2, rows)).astype(np.float32)
    user, item = rng.integers(0, 12, rows), rng.integers(0, len(ITEMS), rows)
    turned = seed >= 44
    logit = deserved(user, item, x, shop, turned)
    label = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    country = [["de", "fr", "us"][i] for i in rng.integers(0, 3, rows)]
    shop = shop + np.float32(2.0) if turned else shop
    named = {"item": [ITEMS[i] for i in item], "country": country}
    return {"user": user, "x": x, "shop": shop, **named}, label
