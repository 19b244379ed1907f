"""Numbers: the measures are those of scikit-learn, whatever the unit, the blocks, and what is taken back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_poisson_deviance, mean_squared_error, r2_score

from riverdelta.core.losses import Count, Regression
from riverdelta.evaluation.prequential import Prequential


def stream(rows, size=1.0, seed=0):
    rng = np.random.default_rng(seed)
    label = size * rng.normal(3.0, 1.0, rows)
    base, served = (label + size * rng.normal(0.2, spread, rows) for spread in (1.0, 0.5))
    return *(column.astype(np.float32) for column in (base, served, label)), np.ones(rows)


def fed(columns, loss, window=10_000):
    prequential = Prequential(loss=loss, window=window)
    prequential.update(*columns)
    return prequential


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e14])
def test_the_measures_are_those_of_scikit_learn_in_any_unit(size):
    columns = stream(1_000, size)
    found = fed(columns, Regression(), window=200).report()
    for window, last in (("all", 1_000), ("recent", 200)):
        p, y = columns[1][-last:].astype(float), columns[2][-last:].astype(float)
        served = found[window]["served"]
        assert served["mae"] == pytest.approx(mean_absolute_error(y, p))
        assert served["rmse"] == pytest.approx(mean_squared_error(y, p) ** 0.5)
        assert served["r2"] == pytest.approx(r2_score(y, p))
        assert served["bias"] == pytest.approx(np.mean(p - y))


def test_counts_have_the_deviance_of_scikit_learn():
    rng = np.random.default_rng(1)
    raw = rng.normal(1.0, 0.7, 500).astype(np.float32)
    label = rng.poisson(np.exp(raw)).astype(np.float32)
    found = fed((raw, raw, label, np.ones(500)), Count()).report()["all"]["base"]
    assert found["deviance"] == pytest.approx(mean_poisson_deviance(label, np.exp(raw.astype(float))), rel=1e-6)
    assert found["mae"] == pytest.approx(mean_absolute_error(label, np.exp(raw.astype(float))), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, 50), max_size=4))
def test_blocks_and_saves_do_not_change_a_bit(seed, cuts):
    loss, columns = Regression(period=10.0), [*stream(50, seed=seed)]
    columns[3][4::9] = -1.0
    whole, resumed = fed(columns, loss, window=30), Prequential(loss=loss, window=30)
    for block in zip(*(np.split(column, sorted(cuts)) for column in columns), strict=True):
        resumed.update(*block)
        again = Prequential(loss=loss, window=30)
        again.load(resumed.state())
        resumed = again
    bits = [{name: array.tobytes() for name, array in one.state().items()} for one in (whole, resumed)]
    assert bits[0] == bits[1]


def test_a_row_taken_back_leaves_the_measures_of_the_others():
    columns = base, served, label, weight = stream(200, seed=3)
    both = fed(columns, Regression())
    both.update(base[:20], served[:20], label[:20], -weight[:20])
    wanted = fed([c[20:] for c in columns], Regression()).report()["all"]["served"]
    assert both.report()["all"]["served"] == pytest.approx(wanted | {"examples": 220})


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", [0, 2])
def test_a_value_that_is_not_a_number_within_the_range_is_skipped(place, hostile):
    columns = [c.copy() for c in stream(30, seed=4)]
    wanted = fed([np.delete(c, 7) for c in columns], Regression()).report()["all"]["served"]
    columns[place][7] = hostile
    found = fed(columns, Regression()).report()["all"]["served"]
    if place == 0 and np.isfinite(hostile):
        assert found["mae"] == pytest.approx(fed([*columns], Regression()).report()["all"]["served"]["mae"])
        return
    assert found.pop("skipped") == 1
    assert found == {name: value for name, value in wanted.items() if name != "skipped"}


def test_labels_that_are_all_the_same_have_no_r2_and_the_first_row_no_last_label():
    seven = np.full(5, 7.0, np.float32)
    found = fed((seven, seven, seven, np.ones(5)), Regression()).report()["all"]
    assert (found["served"]["mae"], found["served"]["r2"]) == (0.0, None)
    assert (found["last_label"]["mae"], found["last_label"]["loss"]) == (0.0, 0.0)
    one = fed([c[:1] for c in (seven, seven, seven, np.ones(5))], Regression()).report()["all"]
    assert one["last_label"]["loss"] is one["last_label"]["mae"] is None
