"""Seasons: exact phases in numpy and in a graph from 1970 to 2100, patterns that corrections learn, and clear errors."""

import numpy as np
import pytest

from riverdelta import Entity, Linear, Regression, Schema, Seasons, Stack
from riverdelta.checks.law import OPSET, run
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.nodes import Nodes

DAY, Y2100 = 86_400.0, 4_102_444_800.0
EVERY = Seasons("t", "hour", "day", "week", "year", 1_000.5, harmonics=[12, 6, 3, 2, 1], zone=5.75)
SCHEMA = Schema.of({"t": "float64"})


def test_the_graph_computes_the_same_from_1970_to_2100():
    times = np.concatenate([[0.0, Y2100, -1.5, 0.999], np.random.default_rng(0).uniform(0, Y2100, 5_000)])
    nodes = Nodes(OPSET)
    found = run(nodes, EVERY.export_vector(nodes, "t"), {"t": times})
    assert (found.dtype, found.shape) == (np.float32, (len(times), EVERY.width))
    np.testing.assert_allclose(found, EVERY.vector(times), atol=1e-6)


def test_the_phase_is_exact_where_float32_would_round_to_two_minutes():
    hour = Seasons("t", "hour", harmonics=1)
    late = Y2100 + np.arange(0, 3_600, 60.0)
    expected = 2 * np.pi * np.arange(60) / 60
    np.testing.assert_allclose(hour.vector(late), np.stack([np.sin(expected), np.cos(expected)], axis=1), atol=1e-5)


def test_a_zone_moves_midnight_to_local_midnight():
    utc, berlin = Seasons("t", "day"), Seasons("t", "day", zone=1.0)
    np.testing.assert_allclose(berlin.vector(np.array([23 * 3_600.0])), utc.vector(np.array([DAY])), atol=1e-6)


@pytest.mark.parametrize("loss", [Regression(), LOG_LOSS], ids=["regression", "binary"])
def test_a_daily_season_is_learned(loss):
    rng = np.random.default_rng(1)
    times = 1.8e9 + np.arange(24 * 60) * 3_600.0
    wave = 2.0 * np.sin(2 * np.pi * times / DAY)
    label = (
        wave + 0.1 * rng.normal(size=len(times)) if loss.labels is None else rng.random(len(times)) < 1 / (1 + np.exp(-wave))
    )
    stack = Stack([Linear(Seasons("t", "day"))], loss)
    stack.bind(SCHEMA)
    base = np.zeros((len(times), 1), np.float32)
    served = stack.learn({"t": times}, base, label.astype(np.float32), np.ones(len(times), np.float32))
    late = slice(len(times) // 2, None)
    before, after = (np.abs(raw[late, 0] - wave[late]).mean() for raw in (base, served))
    assert after < 0.3 * before


def test_its_coefficients_have_the_names_of_waves():
    stack = Stack([Linear("u", Seasons("t", "day", 7_200, harmonics=[2, 1]), slots=8)])
    stack.bind(Schema.of({"u": "int64", "t": "float64"}))
    names = ("t: sin day", "t: sin day/2", "t: sin 7200 s", "t: cos day", "t: cos day/2", "t: cos 7200 s")
    assert stack.corrections[0].coefficients()["dense"].features == names


def test_a_row_may_hold_the_time_as_a_number():
    users = Entity("user", on=[Seasons("t", "day")], offset=None, slots=8)
    for hour in range(200):
        users.learn_one({"user": 7, "t": 1_800_000_000 + hour * 3_600}, hour % 24 < 12)
    noon, midnight = ({"user": 7, "t": 1_800_000_000.0 + hour * 3_600} for hour in (6, 18))
    assert users.predict_proba_one(noon)[True] > 0.6 > 0.4 > users.predict_proba_one(midnight)[True]


def test_options_that_differ_make_another_stack():
    other = [Seasons("t", "day"), Seasons("t", "week"), Seasons("t", "day", zone=1), Seasons("t", "day", harmonics=2)]
    assert len({str(one.identity()) for one in other}) == len(set(other)) == 4
    assert Seasons("t", "day") == Seasons("t", "day")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Seasons("t"), "has no periods"),
        (lambda: Seasons("t", "month"), "'month'; expected 'hour', 'day', 'week', 'year' or seconds"),
        (lambda: Seasons("t", -5.0), "seconds above 0"),
        (lambda: Seasons("t", True), "seconds above 0"),
        (lambda: Seasons("t", 1.5, harmonics=2), "at least 1: lower harmonics"),
        (lambda: Seasons("t", "day", "day"), "each once"),
        (lambda: Seasons("t", "day", harmonics=0), "harmonics=3"),
        (lambda: Seasons("t", "day", harmonics=[1, 2]), "harmonics=3"),
        (lambda: Seasons("t", "day", zone=25), "hours from -24 to 24"),
        (lambda: Linear(Seasons("t", "day")).bind(Schema.of({"t": "float32"})), "float32 rounds them"),
        (lambda: Linear(Seasons("t", "day")).bind(Schema.of({"t": "int64"})), "Unix seconds, float64"),
        (lambda: Linear(Seasons("t", "day")).bind(Schema()), "reads column 't'"),
    ],
)
def test_what_cannot_be_a_season_is_refused_with_the_line_to_write(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()
