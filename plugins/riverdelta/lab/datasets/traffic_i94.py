"""Metro Interstate Traffic Volume: vehicles an hour on the I-94 westbound, with weather and holidays."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from riverdelta.core.features import Schema
from riverdelta.core.losses import Regression
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.interval import Interval
from riverdelta.corrections.linear import Linear
from riverdelta.lab.datasets.dataset import DataSet, Split, read_csv
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import export, table
from riverdelta.learning.definition import Definition

_WEATHER = ("temp", "rain_1h", "snow_1h", "clouds_all")
_INPUTS = (*_WEATHER, "holiday", "hour", "weekday")
_WEEK = 7 * 86_400.0
_LOSS = Regression(period=_WEEK)


class Traffic(DataSet):
    """The first row of each hour; the base is trained on the first half, and labels come a day late."""

    name = "traffic-i94"
    about = "vehicles an hour; base: gradient boosting on hour, weekday and weather of the first half"
    measure = "mae"
    lag_seconds = 86_400.0

    def load(self, folder: Path, work: Path) -> Split:
        file = folder / "Metro_Interstate_Traffic_Volume.csv"
        found = read_csv(file, (*_WEATHER, "holiday", "date_time", "traffic_volume"))
        when = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in found["date_time"]]
        time, first = np.unique([each.timestamp() for each in when], return_index=True)
        columns = {name: np.array(found[name], np.float32)[first] for name in _WEATHER}
        # A holiday is named in its first hour alone.
        holidays = {each.date() for each, name in zip(when, found["holiday"], strict=True) if name not in ("None", "")}
        columns["holiday"] = np.array([each.date() in holidays for each in when], np.float32)[first]
        columns["hour"] = np.array([each.hour for each in when], np.float32)[first]
        columns["weekday"] = np.array([each.weekday() for each in when], np.float32)[first]
        columns["hour_of_week"] = (24 * columns["weekday"] + columns["hour"]).astype(np.int64)
        label = np.array(found["traffic_volume"], np.float32)[first]
        rows = Stream(self.name, columns, label, time, loss=_LOSS)
        return Split(*rows.halves())

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        features = table(first, _INPUTS)
        export(HistGradientBoostingRegressor(random_state=0).fit(features, first.label), features, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="traffic",
            base=base,
            names={"X": _INPUTS},
            columns=Schema.of({"hour_of_week": "int64"}),
            task=_LOSS,
            corrections=[Calibration(), Linear(*_WEATHER), Entity("hour_of_week")],
            interval=Interval(0.9),
        )


DATASET = Traffic()
