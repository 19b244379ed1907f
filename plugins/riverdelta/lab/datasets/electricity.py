"""Electricity: whether the price of each half-hour in New South Wales is above that of the last day (Elec2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from riverdelta.core.features import Schema
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split, read_csv
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import fit
from riverdelta.learning.definition import Definition

_NUMBERS = ("nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
_HALF_HOUR = 1_800.0


class Electricity(DataSet):
    """Elec2 by half-hours; the base is a logistic regression on the first fifth, and labels come a day late."""

    name = "electricity"
    about = "whether the price of a half-hour is above the mean of the last day; base: logistic regression on the first fifth"
    measure = "accuracy"
    lag_rows = 48

    def load(self, folder: Path, work: Path) -> Split:
        found = read_csv(folder / "elec.csv", ("period", *_NUMBERS, "class"))
        columns = {name: np.array(found[name], np.float32) for name in ("period", *_NUMBERS)}
        columns["slot"] = np.round(columns["period"] * 47).astype(np.int64)
        label = np.array(found["class"], np.float32)
        rows = Stream(self.name, columns, label, _HALF_HOUR * np.arange(len(label), dtype=np.float64))
        return Split(rows[: len(rows) // 5], rows[len(rows) // 5 :])

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        fit(make_pipeline(StandardScaler(), LogisticRegression()), first, ("period", *_NUMBERS), path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="electricity",
            base=base,
            output="probabilities[1]",
            names={"X": ("period", *_NUMBERS)},
            columns=Schema.of({"slot": "int64"}),
            corrections=[Calibration(), Linear("slot", *_NUMBERS)],
        )


DATASET = Electricity()
