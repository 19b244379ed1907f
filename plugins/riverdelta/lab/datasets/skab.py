"""SKAB: whether a water pump's test bed works normally, by 8 sensors each second."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Multiclass
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split, read_csv
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import export, table
from riverdelta.learning.definition import Definition

_SENSORS = (
    "Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure", "Temperature", "Thermocouple", "Voltage",
    "Volume Flow RateRMS",
)  # fmt: skip
_LOSS = Multiclass(["0", "1"])


class Skab(DataSet):
    """The labelled experiments in time order; the base is trained on those of the first day, and labels come a day late."""

    name = "skab"
    about = "normal (0) or faulty (1), each second; base: gradient boosting on the experiments of the first day"
    measure = "macro_f1"
    lag_seconds = 86_400.0

    def load(self, folder: Path, work: Path) -> Split:
        rows = list[tuple[float, list[float], float]]()
        files = sorted((folder / "data").glob("*/*.csv"))
        for file in files:
            if file.parent.name == "anomaly-free":  # has no labels
                continue
            found = read_csv(file, ("datetime", *_SENSORS, "anomaly"), ";")
            times = [datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in found["datetime"]]
            values = zip(*(map(float, found[name]) for name in _SENSORS), strict=True)
            rows += [(at, list(each), float(label)) for at, each, label in zip(times, values, found["anomaly"], strict=True)]
        if not rows:
            raise InvalidInput(f"{folder} has no labelled experiments; expected files such as data/valve1/0.csv")
        rows.sort(key=lambda row: row[0])
        time, features, label = (np.array(values) for values in zip(*rows, strict=True))
        columns = {name: np.ascontiguousarray(features[:, k], np.float32) for k, name in enumerate(_SENSORS)}
        stream = Stream(self.name, columns, label.astype(np.float32), time, loss=_LOSS)
        cut = int(np.searchsorted(time, (time[0] // 86_400.0 + 1.0) * 86_400.0))
        return Split(stream[:cut], stream[cut:])

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        features = table(first, _SENSORS)
        export(HistGradientBoostingClassifier(random_state=0).fit(features, first.label.astype(int)), features, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="skab",
            base=base,
            output="probabilities",
            names={"X": _SENSORS},
            task=_LOSS,
            corrections=[Calibration(), Linear(*_SENSORS)],
        )


DATASET = Skab()
