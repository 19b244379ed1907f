"""OneHotEncoder in the graph is OneHotEncoder in River: unseen, negative and absent categories included."""

import numpy as np
import pytest
from river.compose import Discard, Select
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import FeatureHasher, MinMaxScaler, OneHotEncoder, StandardScaler

from riverdelta import Schema, id64
from riverdelta.core.errors import ConfigurationError, Unsupported
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "i": "int64"})
MODEL = LogisticRegression(SGD(0.3), l2=0.01)


def rows(seed, n, low, high):
    rng = np.random.default_rng(seed)
    columns = {"u": rng.integers(low, high, n), "i": rng.integers(-(2**63), 2**63 - 1, 8)[rng.integers(0, 8, n)]}
    return columns, (columns["u"] % 2 == 0).astype(np.float32)


@pytest.mark.parametrize("drop_zeros", [True, False])
@pytest.mark.parametrize("after", [(), (StandardScaler(),), (StandardScaler(with_std=False),), (Discard("u_3", "u_-3"),)])
def test_graph_agrees_with_river_on_seen_and_unseen_ids(drop_zeros, after, trained):
    pipeline = OneHotEncoder(drop_zeros=drop_zeros)
    for step in (*after, MODEL):
        pipeline = pipeline | step.clone()
    both = trained(pipeline, SCHEMA, *rows(1, 300, -10, 10), slots=256)
    assert both.gap(rows(1, 300, -10, 10)[0]) < 1e-4
    if not (after and isinstance(after[0], StandardScaler) and not after[0].with_std):
        assert both.gap(rows(2, 300, -1000, 1000)[0]) < 1e-4


@pytest.mark.parametrize("after", [MinMaxScaler(), FeatureHasher(8, seed=3)])
def test_graph_agrees_with_river_on_learned_ids_after_steps_that_invent_unseen_ones(after, trained):
    columns, labels = rows(3, 200, -10, 10)
    both = trained(OneHotEncoder() | after | MODEL.clone(), SCHEMA, columns, labels, slots=256)
    assert both.gap(columns) < 1e-4


def test_an_id_that_was_not_learned_adds_nothing(run_graph):
    correction = River(OneHotEncoder(drop_zeros=True) | FeatureHasher(2, seed=3) | MODEL.clone(), ("u",), slots=64)
    correction.bind(SCHEMA)
    columns, labels = rows(4, 50, 0, 9)
    offset = np.zeros((50, 1), np.float32)
    correction.learn({"u": columns["u"]}, offset, labels, np.ones(50, np.float32))
    intercept = np.float32(correction._outputs[0].last.intercept)
    strangers = {"u": np.array([10, -1, 2**63 - 1]), "i": np.zeros(3, np.int64)}
    assert correction.predict(strangers, offset[:3]).ravel().tolist() == [intercept] * 3
    assert run_graph(correction, SCHEMA, strangers, offset[:3]).ravel().tolist() == [intercept] * 3


def test_given_categories_stay_fixed(trained):
    encoder = OneHotEncoder(categories={"u": {1, 2, -3}, "i": {5}}, drop_zeros=False)
    both = trained(encoder | MODEL.clone(), SCHEMA, *rows(5, 200, -5, 5), slots=64)
    assert both.gap(rows(6, 100, -9, 9)[0]) < 1e-4
    assert set(both.correction._outputs[0].categories[0].rows) == {1, 2, -3}


@pytest.mark.parametrize("drop_zeros", [True, False])
def test_a_category_that_finds_no_row_is_not_shown_to_river(drop_zeros):
    correction = River(OneHotEncoder(drop_zeros=drop_zeros) | LogisticRegression(), ("u",), slots=4)
    correction.bind(SCHEMA)
    ids = np.arange(100)
    correction.learn({"u": ids}, np.zeros((100, 1), np.float32), np.ones(100, np.float32), np.ones(100, np.float32))
    assert correction.occupancy() == {"onehotencoder_u": 1.0}
    assert len(correction._outputs[0].last.weights) == 4


@pytest.mark.parametrize(
    ("pipeline", "error", "message"),
    [
        (OneHotEncoder(drop_first=True) | LogisticRegression(), Unsupported, "drop_first=True"),
        (OneHotEncoder() | LogisticRegression(), ConfigurationError, "includes 'h'; declare the column as int64"),
        (Select("u") | StandardScaler() | OneHotEncoder() | LogisticRegression(), ConfigurationError, "includes 'u'"),
        (Select("u") | OneHotEncoder() | OneHotEncoder() | LogisticRegression(), ConfigurationError, "includes categories"),
        (Select("u") | OneHotEncoder() | Select("u_1") | LogisticRegression(), Unsupported, "Select comes after OneHot"),
        (Select("u") | OneHotEncoder() | (Select("x") + Discard("y")) | LogisticRegression(), Unsupported, "union comes after"),
        (
            Select("u") | OneHotEncoder() | FeatureHasher(4, seed=1) | StandardScaler() | LogisticRegression(),
            Unsupported,
            "StandardScaler comes after a FeatureHasher",
        ),
        (Select("u") | OneHotEncoder(categories={"i": {1}}) | LogisticRegression(), ConfigurationError, "none for 'u'"),
        (Select("u") | OneHotEncoder(categories={"u": {"ann"}}) | LogisticRegression(), ConfigurationError, "'ann'.*id64"),
        (Select("u") | OneHotEncoder(categories={"u": {2**63}}) | LogisticRegression(), ConfigurationError, "expected int64"),
        (
            Select("u") | OneHotEncoder(categories={"u": set(range(40))}) | LogisticRegression(),
            ConfigurationError,
            "40 categories of 'u' do not fit into 16 slots",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(pipeline, error, message):
    with pytest.raises(error, match=message):
        River(pipeline, ("u", "h"), slots=16).bind(Schema.of({"u": "int64", "h": "float32"}))


def test_string_ids_are_categories_by_their_hash():
    correction = River(OneHotEncoder(drop_zeros=True) | LogisticRegression(SGD(1.0)), ("u",), slots=16, offset=None)
    for _ in range(20):
        correction.learn_one({"u": "ann"}, True)
    assert correction.predict_proba_one({"u": id64("ann")})[True] > correction.predict_proba_one({"u": "bob"})[True]
