"""A snapshot brings back every bit of an estimator's state, and refuses what it does not know."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.linear_model import LogisticRegression
from river.preprocessing import MinMaxScaler, StandardScaler

from river import optim
from riverdelta.core.errors import Unsupported
from riverdelta.river.scalers import RealScaler
from riverdelta.river.snapshot import freeze, thaw

ESTIMATORS = [
    StandardScaler() | LogisticRegression(optim.Adam()),
    RealScaler(window_size=3) | MinMaxScaler(window_size=2) | LogisticRegression(optim.Newton(), l1=0.1),
    MinMaxScaler() | LogisticRegression(optim.Averager(optim.FTRLProximal())),
    MinMaxScaler() | LogisticRegression(optim.AdaBound(optim.schedulers.InverseScaling(0.1))),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_thawed_estimator_goes_on_as_the_frozen_one_would(estimator):
    rng = np.random.default_rng(1)
    xs = [{"a": float(a), "b": float(b), "c": int(a * 10)} for a, b in rng.normal(size=(40, 2))]
    old, new = estimator.clone(), estimator.clone()
    for x in xs[:20]:
        old.learn_one(x, x["a"] > 0)
    for x in xs[20:30]:
        new.learn_one(x, True)  # a past of its own, all of which goes
    thaw(new, freeze(old))
    assert freeze(new) == freeze(old)
    for x in xs[20:]:
        old.learn_one(x, x["a"] > 0)
        new.learn_one(x, x["a"] > 0)
    assert freeze(new) == freeze(old)


@given(st.dictionaries(st.text() | st.integers(), st.floats() | st.integers()))
def test_every_number_and_key_returns(content):
    scaler, other = StandardScaler(), StandardScaler()
    scaler.means.update(content)
    thaw(other, freeze(scaler))
    assert list(other.means) == list(content)
    for key, value in content.items():
        got = other.means[key]
        assert type(got) is type(value)
        assert got == value or (math.isnan(got) and math.isnan(value))
    assert other.means["absent"] == 0.0


def test_an_attribute_of_an_unknown_type_is_named():
    scaler = copy.deepcopy(StandardScaler())
    scaler.means["a"] = lambda: 0.0
    with pytest.raises(Unsupported, match=r"StandardScaler\.means is a function"):
        freeze(scaler)
