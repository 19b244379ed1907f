"""Labelled streams with their frozen bases, for the benchmarks of attacks: those of RIVERDELTA_DATA, and the simulator.

The recommenders' base is the lab's DeepFM on the first half, as in `riverdelta replay`; the second half streams in.
"""

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from bench_drift import electricity as read_electricity
from sklearn.linear_model import LogisticRegression

from riverdelta import Calibration, Entity, Linear, Schema, Stack
from riverdelta.evaluation.prequential import Prequential
from riverdelta.lab.attacks import attack
from riverdelta.lab.base import base_logits, train_base
from riverdelta.lab.datasets.movielens import load_movielens
from riverdelta.lab.simulator import Simulation
from riverdelta.lab.stream import Stream
from riverdelta.lab.workshop import default_corrections, genres_of
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.learning.replay import replay

FOLDER = Path(os.environ["RIVERDELTA_DATA"]) if "RIVERDELTA_DATA" in os.environ else None


@dataclass(frozen=True)
class Prepared:
    """A stream, the base's logits float32[N] of its rows, and what corrects them.

    Where the base can score other rows `score` does, and `before` is what it was trained on.
    """

    stream: Stream
    base: np.ndarray
    corrections: Callable[[], list]
    score: Callable[[Stream], np.ndarray] | None = None
    before: Stream | None = None

    @property
    def keys(self):
        """The id columns that corrections read."""
        reads = dict.fromkeys(name for c in self.corrections() for name in c.reads)
        return [name for name in reads if self.stream.columns[name].dtype == np.int64]

    def attacked(self, kind, **terms):
        """Return the stream under an attack of `riverdelta.lab.attacks`, and the base's logits of its rows."""
        row = np.arange(len(self.stream), dtype=np.float64)  # no id column: drift turns one
        done = attack(replace(self.stream, columns={**self.stream.columns, "row": row}), kind, **terms)
        columns = dict(done.stream.columns)
        base = self.base[columns.pop("row").astype(np.int64)]
        return replace(done, stream=replace(done.stream, columns=columns)), base

    def new_stack(self, **bounds):
        """Return a fresh stack, with other bounds than the corrections' own where some are given."""
        made = self.corrections()
        for c in made:
            for name, value in bounds.items():
                setattr(c, name, value)
        stack = Stack(made)
        columns = self.stream.columns.items()
        stack.bind(Schema.of({name: "int64" if c.dtype == np.int64 else "float32" for name, c in columns}))
        return stack

    def replayed(self, stream, base, admission=None, source=None, lag_rows=1, lag_seconds=0.0, **bounds):
        """Serve and learn a stream of these columns; return what was served, and the learner."""
        learner = Learner(self.new_stack(**bounds), Joiner(), Prequential(), admission=admission)
        known = stream.time + lag_seconds if lag_seconds else None
        rows = stream.columns, base, stream.label, stream.time
        return replay(learner, *rows, label_time=known, refresh_rows=lag_rows, source=source), learner


def recommender(stream):
    """A stream of users and items: base on the first half, corrections as in the demo."""
    first, second = stream.halves()
    folder = tempfile.TemporaryDirectory()
    model = train_base(first, Path(folder.name)).path
    genres = genres_of(stream)

    def score(rows, _kept=folder):
        return base_logits(model, rows)

    return Prepared(second, score(second), lambda: default_corrections(genres), score, first)


def movielens():
    """MovieLens latest-small."""
    return recommender(load_movielens(FOLDER / "ml-latest-small"))


def simulator(rows=100_000, **terms):
    """A simulated click log."""
    return recommender(Simulation(rows=rows, **terms).generate().stream.select("user_id", "item_id"))


def electricity():
    """Electricity prices that rise or fall, each half-hour; the base is a logistic regression on the first fifth."""
    columns, base, label, corrections, _ = read_electricity(FOLDER)
    return Prepared(Stream("electricity", columns, label, 1_800.0 * np.arange(len(label))), base, corrections)


def bandit():
    """Clicks on fashion, one in 200: all of Open Bandit's small campaigns; the base is the first fifth's rate of clicks."""
    frames = []
    for policy in ("bts", "random"):
        for number, campaign in enumerate(("men", "women")):
            frame = pd.read_csv(FOLDER / "open-bandit" / policy / campaign / f"{campaign}.csv")
            frame["item_id"] += 1_000 * number
            frames.append(frame)
    rows = pd.concat(frames)
    rows["time"] = _seconds(rows["timestamp"])
    rows = rows.sort_values("time", kind="stable")
    user = rows.groupby([f"user_feature_{k}" for k in range(4)]).ngroup()
    columns = {"user_id": user.to_numpy(np.int64), "item_id": rows["item_id"].to_numpy(np.int64)}
    columns["position"] = rows["position"].to_numpy(np.float32)
    whole = Stream("open bandit", columns, rows["click"].to_numpy(np.float32), rows["time"].to_numpy(np.float64))
    cut = len(whole) // 5
    rate = float(whole.label[:cut].mean())
    base = np.full(len(whole) - cut, math.log(rate / (1 - rate)), np.float32)
    return Prepared(whole[cut:], base, lambda: [Calibration(), Linear("position"), Entity("item_id"), Entity("user_id")])


def pump():
    """Faults of a pump, each second; the base is a logistic regression on the first fifth."""
    files = sorted((FOLDER / "skab" / "data").glob("*/*.csv"))
    frames = [frame for frame in (pd.read_csv(file, sep=";") for file in files) if "anomaly" in frame]
    rows = pd.concat(frames).sort_values("datetime", kind="stable")
    numbers = [name for name in rows if name not in ("datetime", "anomaly", "changepoint")]
    cut = len(rows) // 5
    features = rows[numbers].to_numpy(np.float64)
    scaled = (features - features[:cut].mean(0)) / np.maximum(features[:cut].std(0), 1e-3)
    scaled = np.clip(scaled, -4, 4).astype(np.float32)
    label = rows["anomaly"].to_numpy(np.float32)
    base = LogisticRegression().fit(scaled[:cut], label[:cut]).decision_function(scaled).astype(np.float32)
    columns = {name: np.ascontiguousarray(scaled[cut:, k]) for k, name in enumerate(numbers)}
    stream = Stream("pump", columns, label[cut:], _seconds(rows["datetime"])[cut:])
    return Prepared(stream, base[cut:], lambda: [Calibration(), Linear(*numbers)])


def _seconds(times):
    times = pd.to_datetime(times, format="ISO8601", utc=True)
    return (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(np.float64)


def available(quick=False):
    """Yield every stream that there is data for; with `quick` the simulator alone, and small."""
    if quick:
        yield simulator(12_000)
        return
    if FOLDER is not None:
        yield from (read() for read in (movielens, electricity, bandit, pump))
    yield simulator()
