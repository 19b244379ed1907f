"""Every shipped correction keeps every law, and River's own checks."""

import numpy as np
import pandas as pd
import pytest
import river.checks
from river.compose import FuncTransformer, Select
from river.linear_model import LinearRegression, LogisticRegression
from river.optim import Adam
from river.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from riverdelta import Calibration, Entity, Head, Linear, Lookup, Project, Schema, Seasons
from riverdelta.checks import parametrize_with_checks
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "i": "int64", "h": "float32", "v": "float32[5]", "t": "float64"})
IDS = [0, -1, 1, 2**31 - 1, 2**63 - 1, 3, 4, 5]
GENRES = Lookup("genres", "i", {key: np.random.default_rng(key % 97).normal(size=3).tolist() for key in IDS})
NEIGHBOURS = Lookup("neighbours", "i", {key: list(range(n)) for n, key in enumerate(IDS)})

SHIPPED = {
    "calibration": Calibration(),
    "calibration that forgets": Calibration(variance=0.1, forget=0.99),
    "linear": Linear("u", ("u", "i"), "h", "v", GENRES, NEIGHBOURS, slots=256),
    "linear by ftrl": Linear("u", "h", method="ftrl", l1=0.01, l2=0.1, slots=64),
    "linear of floats": Linear("h", "v", intercept=True, l2=0.01),
    "entity": Entity("u", slots=64),
    "entity of a cross that forgets": Entity(("u", "i"), on=["v", "h", GENRES], slots=64, forget=0.99),
    "entity of a projection": Entity("u", on=[Project("v", 2), "h"], slots=64),
    "linear of seasons": Linear("u", Seasons("t", "day", 5_000.0, harmonics=[2, 1], zone=-3.5), slots=64),
    "entity of seasons": Entity("u", on=["h", Seasons("t", "week")], slots=64),
    "head": Head(["v", "h"], forget=0.99),
    "linear of a projection": Linear("u", Project("v", 2, matrix=np.eye(5, 2)), slots=64),
    "entity without an intercept": Entity("u", on=["v"], intercept=False, variance=0.5, slots=64),
}


@parametrize_with_checks(SHIPPED, SCHEMA)
def test_correction_keeps_the_law(check):
    check()


RIVER = {
    # On River's phishing data, with columns that it really has.
    "calibration": Calibration(offset="https"),
    "linear": Linear(("age_of_domain",), "https", "popup_window", intercept=True, slots=64, offset=None),
    "linear by ftrl": Linear("https", "popup_window", method="ftrl", slots=64, offset="https"),
    "entity": Entity("age_of_domain", on=["https"], slots=64, offset=None),
    "head": Head(["https"], offset=None),
    "a river pipeline": River(
        StandardScaler() | LogisticRegression(), ("https", "popup_window", "request_from_other_domain"), offset=None
    ),
    "a river pipeline that names its columns": River(
        ((Select("https", "popup_window") | MinMaxScaler()) + (Select("age_of_domain") | OneHotEncoder()))
        | LinearRegression(Adam(0.01)),
        slots=64,
        offset=None,
    ),
}
NUMBERS = ("https", "popup_window", "request_from_other_domain")


@pytest.mark.parametrize("name", RIVER)
def test_correction_passes_rivers_own_checks(name):
    river.checks.check_estimator(RIVER[name])


def complete(x):
    """A row, or a frame, with 0 for each feature that is absent, and an int for the id."""
    if isinstance(x, dict):
        return dict.fromkeys(NUMBERS, 0.0) | x | {"age_of_domain": int(x.get("age_of_domain", 0))}
    return pd.DataFrame([complete(row) for row in x.to_dict("records")], index=x.index)


@pytest.mark.parametrize("name", RIVER)
def test_behind_a_step_that_completes_rows_it_passes_every_check_of_rivers(name):
    pipeline = FuncTransformer(complete) | RIVER[name]
    for check in river.checks.yield_checks(pipeline):
        check(pipeline.clone())
