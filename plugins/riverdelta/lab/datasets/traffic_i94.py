"""Metro Interstate Traffic Volume: vehicles an hour on the I-94 westbound, with weather and holidays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from riverdelta.core.features import Schema
from riverdelta.core.losses import Regression
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.interval import Interval
from riverdelta.corrections.linear import Linear
from riverdelta.corrections.seasons import Seasons
from riverdelta.lab.datasets.dataset import DataSet, Split, read_csv
from riverdelta.lab.stream import Stream
from riverdelta.lab.tabular import fit
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
        when = np.array(found["date_time"], "datetime64[s]")
        time, first = np.unique(when.astype(np.float64), return_index=True)
        columns = {name: np.array(found[name], np.float32)[first] for name in _WEATHER}
        day, named = when.astype("datetime64[D]"), ~np.isin(found["holiday"], ("None", ""))
        # A holiday is named in its first hour alone.
        columns["holiday"] = np.isin(day, day[named]).astype(np.float32)[first]
        # The first day of all times, 1970-01-01, was a Thursday.
        hour_of_week = (time // 3_600.0 + 72) % 168
        columns["hour"] = (hour_of_week % 24).astype(np.float32)
        columns["weekday"] = (hour_of_week // 24).astype(np.float32)
        columns["hour_of_week"] = hour_of_week.astype(np.int64)
        label = np.array(found["traffic_volume"], np.float32)[first]
        rows = Stream(self.name, {**columns, "time": time}, label, time, loss=_LOSS)
        return Split(*rows.halves())

    def train(self, first: Stream, path: Path) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        fit(HistGradientBoostingRegressor(random_state=0), first, _INPUTS, path)

    def definition(self, base: Path) -> Definition:
        # Each hour of the week has a level and a wave of the year, and remembers about 50 weeks.
        weekly = Entity("hour_of_week", on=[Seasons("time", "year", harmonics=1)], forget=0.98)
        return Definition(
            name="traffic",
            base=base,
            names={"X": _INPUTS},
            columns=Schema.of({"hour_of_week": "int64", "time": "float64"}),
            task=_LOSS,
            corrections=[Calibration(), Linear(*_WEATHER), weekly],
            interval=Interval(0.9),
        )


DATASET = Traffic()
