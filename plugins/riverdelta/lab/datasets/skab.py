"""SKAB: whether a water pump's test bed works normally, by 8 sensors each second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.losses import Multiclass
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split, read_csv
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import fit
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
        # Experiments without faults have no labels.
        files = [file for file in sorted((folder / "data").glob("*/*.csv")) if file.parent.name != "anomaly-free"]
        if not files:
            raise InvalidInput(f"{folder} has no labelled experiments; expected files such as data/valve1/0.csv")
        found = [read_csv(file, ("datetime", *_SENSORS, "anomaly"), ";") for file in files]
        columns = {name: np.concatenate([each[name] for each in found]).astype(np.float32) for name in (*_SENSORS, "anomaly")}
        time = np.concatenate([each["datetime"] for each in found]).astype("datetime64[s]").astype(np.float64)
        label = columns.pop("anomaly")
        order = np.argsort(time, kind="stable")
        time = time[order]
        stream = Stream(self.name, {n: column[order] for n, column in columns.items()}, label[order], time, loss=_LOSS)
        cut = int(np.searchsorted(time, (time[0] // 86_400.0 + 1.0) * 86_400.0))
        return Split(stream[:cut], stream[cut:])

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        fit(HistGradientBoostingClassifier(random_state=0), first, _SENSORS, path)

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
