"""Unions and selections: every branch reads the same x, and two keys never share a name."""

import pytest
from river.compose import Discard, Select
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import FeatureHasher, MinMaxScaler, OneHotEncoder, StandardScaler

from riverdelta import Schema
from riverdelta.checks.block import draw
from riverdelta.core.errors import ConfigurationError
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "h": "float32", "v": "float32[4]"})
MODEL = LogisticRegression(SGD(0.1))


@pytest.mark.parametrize(
    "features",
    [
        (Select("h") | StandardScaler()) + (Select("v_0", "v_2") | MinMaxScaler()),
        (Select("h", "v_3") | StandardScaler()) + (Select("u") | OneHotEncoder(drop_zeros=True)),
        (Discard("u", "v_1") | StandardScaler()) + (Select("u") | OneHotEncoder()),
        (Select("u", "h") | FeatureHasher(16, seed=1)) + (Discard("u") | StandardScaler()),
    ],
    ids=["two scalers", "numbers and ids", "all but", "hashed and scaled"],
)
def test_graph_agrees_with_river(features, trained):
    block = draw(SCHEMA, 200, 1)
    block.columns["u"] %= 5
    both = trained(features | MODEL.clone(), SCHEMA, block.columns, block.label, slots=256)
    assert both.gap(block.columns) < 1e-4


@pytest.mark.parametrize(
    ("schema", "features", "double"),
    [
        ({"v": "float32[2]", "v_1": "float32"}, Discard("nothing"), "v_1"),
        ({"h": "float32"}, (Select("h") | StandardScaler()) + Select("h"), "h"),
        ({"u": "int64"}, (Select("u") | OneHotEncoder()) + (Select("u") | OneHotEncoder(drop_zeros=True)), "u"),
        ({"u": "int64", "u_-7": "float32"}, (Select("u") | OneHotEncoder()) + Select("u_-7"), "u_-7"),
        ({"h": "float32"}, FeatureHasher(1, seed=1) + FeatureHasher(1, seed=2), "0"),
    ],
)
def test_two_features_of_one_name_are_refused(schema, features, double):
    with pytest.raises(ConfigurationError, match=f"named '?{double}'?; River would keep only one"):
        River(features | MODEL.clone(), tuple(schema), slots=16).bind(Schema.of(schema))


def test_a_selected_feature_that_does_not_exist_is_named():
    with pytest.raises(ConfigurationError, match=r"'hours'.*did you mean"):
        River(Select("hours") | MODEL.clone(), ("hour",)).bind(Schema.of({"hour": "float32"}))


def test_the_order_of_selected_features_is_the_same_in_every_process():
    correction = River(Select("h", "b", "a", "z") | MODEL.clone(), ("h", "b", "a", "z"))
    correction.bind(Schema.of(dict.fromkeys("hbaz", "float32")))
    assert list(correction._outputs[0].model["Select"].transform_one(dict.fromkeys("hbaz", 1.0))) == ["a", "b", "h", "z"]
