"""Scorers: a small one for each task, and what their users send. `scorer_service.py` serves them."""

import numpy as np
import onnx

from riverdelta import Calibration, Entity, Linear, Multiclass, Ranking, Schema
from riverdelta.core.losses.log_loss import LogLoss
from riverdelta.learning.definition import Definition

#: For each task, its loss and what its base gives for x.
TASKS = {
    "binary": (LogLoss(), "(float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"),
    "multiclass": (
        Multiclass(["north", "east", "south"]),
        """(float[N,3] logit) {
            last = Constant<value = int64[1] {1}>()  each = Unsqueeze(x, last)
            slopes = Constant<value = float[3] {0.5, 0.0, -0.5}>()  logit = Mul(each, slopes) }""",
    ),
    "ranking": (Ranking(), "(float[N] logit) { half = Constant<value = float {0.5}>()  logit = Mul(x, half) }"),
}


def terms(folder, task):
    """Return what `online` takes for the scorer of a task, its base in `folder`."""
    path, (loss, body) = folder / "ranker.onnx", TASKS[task]
    if not path.exists():
        head = """<ir_version: 8, opset_import: ["" : 17]> ranker (int64[N] user, float[N] x) => """
        onnx.save(onnx.parser.parse_model(head + body), path)
    corrections = [Calibration(), Linear("user", "shop", slots=1024), Entity("user", on=["shop"], slots=256)]
    shop = {"shop": "float32"}
    return {"base": path, "output": "logit", "link": "identity", "columns": shop, "corrections": corrections, "task": loss}


def definition(folder, task):
    """Return the same as a definition."""
    given = terms(folder, task)
    return Definition("ranker", **{**given, "columns": Schema.of(given["columns"])})


def request(rng, rows, users):
    """Return the columns of a request of some of the `users`."""
    floats = rng.normal(size=(2, rows)).astype(np.float32)
    return {"user": rng.choice(users, rows), "x": floats[0], "shop": floats[1]}


def labels(rng, task, columns):
    """Return labels float32[N] that depend on the shop, at least one above 0: a list without one is not an example."""
    label = (rng.random(len(columns["shop"])) < 0.5 + 0.4 * np.tanh(columns["shop"])).astype(np.float32)
    label[rng.integers(len(label))] = 1.0
    return label * rng.integers(1, len(TASKS[task][0].classes or ("no", "yes")), len(label)).astype(np.float32)
