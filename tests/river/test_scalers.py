"""The scalers in the graph are River's: constant features, absent spread, windows, ids as numbers."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import MinMaxScaler, StandardScaler

from riverdelta import Schema
from riverdelta.corrections.centred import FIRST
from riverdelta.river import River
from riverdelta.river.scalers import RealScaler

SCHEMA = Schema.of({"h": "float32", "n": "int64", "v": "float32[2]"})
SCALERS = {
    "standard": StandardScaler(),
    "centred only": StandardScaler(with_std=False),
    "standard by window": StandardScaler(window_size=6),
    "centred by window": StandardScaler(with_std=False, window_size=6),
    "range": MinMaxScaler(),
    "range by window": MinMaxScaler(window_size=6),
}


def rows(seed, n):
    rng = np.random.default_rng(seed)
    columns = {
        "h": rng.normal(50, 3, n).astype(np.float32),
        "n": rng.integers(-4, 5, n),
        "v": np.stack([np.full(n, 0.1), rng.random(n)], axis=1).astype(np.float32),
    }
    return columns, (columns["h"] > 50).astype(np.float32)


@pytest.mark.parametrize("name", SCALERS)
def test_graph_agrees_with_river(name, trained):
    both = trained(SCALERS[name] | LogisticRegression(SGD(0.1)), SCHEMA, *rows(1, 200))
    assert both.gap(rows(2, 200)[0]) < 1e-4


@pytest.mark.parametrize("name", SCALERS)
def test_one_example_with_numbers_is_enough_to_serve(name, trained):
    both = trained(SCALERS[name] | LogisticRegression(SGD(0.1)), SCHEMA, *rows(3, FIRST))
    assert both.gap(rows(3, FIRST)[0]) < 1e-5


@pytest.mark.parametrize("name", SCALERS)
def test_the_first_rows_teach_no_numbers(name, run_graph):
    correction, (columns, labels) = River(SCALERS[name] | LogisticRegression(SGD(0.1)), tuple(SCHEMA)), rows(3, FIRST - 1)
    correction.bind(SCHEMA)
    offset = np.zeros((FIRST - 1, 1), np.float32)
    correction.learn(columns, offset, labels, np.ones_like(labels))
    intercept = np.full_like(offset, correction._outputs[0].last.intercept)
    assert not correction._outputs[0].last.weights
    assert intercept[0, 0] != 0
    np.testing.assert_array_equal(correction.predict(columns, offset), intercept)
    np.testing.assert_array_equal(run_graph(correction, SCHEMA, columns, offset), intercept)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()], ids=["standard", "range"])
def test_any_finite_floats_agree_or_the_pipeline_starts_afresh(scaler, run_graph):
    schema = Schema.of({"h": "float32"})
    wide = st.floats(-(2.0**100), 2.0**100, width=32)

    @settings(max_examples=40)
    @given(hnp.arrays(np.float32, st.integers(1, 12), elements=wide))
    @example(np.array([0, 1e-45], np.float32))
    @example(np.array([2e-38, np.nextafter(np.float32(2e-38), np.float32(1))], np.float32))
    def check(values):
        correction = River(scaler | LogisticRegression(SGD(0.1)), ("h",))
        correction.bind(schema)
        offset = np.zeros((len(values), 1), np.float32)
        labels = (np.arange(len(values)) % 2).astype(np.float32)
        correction.learn({"h": values}, offset, labels, np.ones_like(labels))
        served = run_graph(correction, schema, {"h": values}, offset)
        np.testing.assert_allclose(served, correction.predict({"h": values}, offset), atol=1e-4, rtol=1e-5)

    check()


def test_a_windows_variance_just_below_zero_counts_as_no_spread():
    scaler = RealScaler(window_size=3)
    for x in [0.3, 1e8, -7e7, 0.1, 0.1, 0.1, 0.1]:
        scaler.learn_one({"h": x})
        assert isinstance(scaler.transform_one({"h": 0.1})["h"], float)
    scaler.vars["h"].obj._S = -1e-9
    assert scaler.transform_one({"h": 0.1}) == {"h": 0.0}
