"""Every optimizer of River's learns as in plain River and is served; what cannot be is refused by name."""

import numpy as np
import pytest
from river.compose import Select
from river.linear_model import LinearRegression, LogisticRegression
from river.preprocessing import OneHotEncoder, StandardScaler

from river import optim
from riverdelta import Schema
from riverdelta.checks import corrections as laws
from riverdelta.checks.block import draw
from riverdelta.core.errors import ConfigurationError, Unsupported
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "h": "float32", "v": "float32[3]"})
RATE = optim.schedulers.InverseScaling(0.1)
OPTIMIZERS = {
    "AdaBound": optim.AdaBound(),
    "AdaDelta": optim.AdaDelta(),
    "AdaGrad": optim.AdaGrad(RATE),
    "AdaMax": optim.AdaMax(0.01),
    "Adam": optim.Adam(optim.schedulers.Optimal(optim.losses.Log(), alpha=0.1)),
    "AMSGrad": optim.AMSGrad(0.01),
    "Averager": optim.Averager(optim.SGD(0.1), 10),
    "FTRLProximal": optim.FTRLProximal(l1=0.01),
    "Momentum": optim.Momentum(0.01),
    "Nadam": optim.Nadam(0.01),
    "NesterovMomentum": optim.NesterovMomentum(0.01),
    "Newton": optim.Newton(0.1),
    "RMSProp": optim.RMSProp(0.01),
    "SGD": optim.SGD(RATE),
}


def pipeline(model, drop_zeros):
    return ((Select("h", "v_1") | StandardScaler()) + (Select("u") | OneHotEncoder(drop_zeros=drop_zeros))) | model


def test_the_list_of_optimizers_is_rivers():
    assert set(OPTIMIZERS) == set(optim.__all__) - {"base", "initializers", "losses", "Optimizer", "schedulers"}


@pytest.mark.parametrize(
    ("name", "drop_zeros"), [(n, d) for n in OPTIMIZERS for d in (True, False) if (n, d) != ("Newton", True)]
)
def test_optimizer_learns_as_in_plain_river_and_is_served(name, drop_zeros, trained):
    block = draw(SCHEMA, 120, 1)
    both = trained(pipeline(LogisticRegression(OPTIMIZERS[name]), drop_zeros), SCHEMA, block.columns, block.label, slots=256)
    mine, rivers = both.model["LogisticRegression"], both.plain.pipeline["LogisticRegression"]
    assert mine.weights == rivers.weights
    assert both.gap(draw(SCHEMA, 80, 2).columns) < 1e-4
    laws.the_graph_agrees(both.correction, SCHEMA)
    laws.state_round_trips(both.correction, SCHEMA)
    laws.changed_rows_are_touched(both.correction, SCHEMA)


def test_newton_is_refused_where_features_are_absent():
    for optimizer in (optim.Newton(), optim.Averager(optim.Newton())):
        with pytest.raises(Unsupported, match=r"Newton.*drop_zeros=False"):
            River(pipeline(LogisticRegression(optimizer), True), ("u", "h", "v"), slots=16).bind(SCHEMA)


@pytest.mark.parametrize("loss", [optim.losses.Log(2.0, 0.5), optim.losses.Hinge(), optim.losses.BinaryFocalLoss()])
def test_binary_losses_learn_as_in_plain_river(loss, trained):
    block = draw(SCHEMA, 120, 3)
    both = trained(pipeline(LogisticRegression(loss=loss), True), SCHEMA, block.columns, block.label, slots=256)
    assert both.model["LogisticRegression"].weights == both.plain.pipeline["LogisticRegression"].weights
    assert both.gap(block.columns) < 1e-4


@pytest.mark.parametrize(
    "loss",
    [optim.losses.Squared(), optim.losses.Absolute(), optim.losses.Huber(), optim.losses.Quantile(), optim.losses.Cauchy()],
)
def test_regression_losses_are_served(loss):
    model = River(pipeline(LinearRegression(loss=loss, l2=0.001), True), ("u", "h", "v"), slots=256)
    laws.the_graph_agrees(model, SCHEMA)
    laws.it_learns(model, SCHEMA)


@pytest.mark.parametrize("penalty", [{"l1": 0.01}, {"l2": 0.01}, {"clip_gradient": 0.1}, {"intercept_lr": RATE}])
def test_penalties_and_clipping_are_rivers(penalty, trained):
    block = draw(SCHEMA, 120, 4)
    both = trained(pipeline(LogisticRegression(**penalty), True), SCHEMA, block.columns, block.label, slots=256)
    assert both.model["LogisticRegression"].weights == both.plain.pipeline["LogisticRegression"].weights
    assert both.model["LogisticRegression"].intercept == both.plain.pipeline["LogisticRegression"].intercept
    assert both.gap(block.columns) < 1e-4
    laws.state_round_trips(both.correction, SCHEMA)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (LogisticRegression(intercept_init=0.5), ConfigurationError, "intercept_init=0.5.*use intercept_init=0"),
        (LogisticRegression(initializer=optim.initializers.Normal(seed=1)), ConfigurationError, "Normal.*Zeros"),
        (LinearRegression(initializer=optim.initializers.Constant(1.0)), ConfigurationError, "Constant.*Zeros"),
        (LinearRegression(loss=optim.losses.Poisson()), Unsupported, "loss Poisson"),
        (LogisticRegression(loss=optim.losses.Squared()), Unsupported, "loss Squared; expected a BinaryLoss"),
        (LogisticRegression(loss=optim.losses.CrossEntropy()), Unsupported, "loss CrossEntropy"),
        (LogisticRegression(optim.FTRLProximal(), l1=0.1), Unsupported, "FTRLProximal, which has no learning rate"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_by_name(model, error, message):
    with pytest.raises(error, match=message):
        River(model, ("h",))


def test_large_inputs_keep_their_digits_in_float32_tables(trained):
    rng = np.random.default_rng(5)
    columns = {"h": (1e6 + rng.normal(size=200)).astype(np.float32), "n": 10**12 + rng.integers(0, 9, 200)}
    schema = Schema.of({"h": "float32", "n": "int64"})
    labels = (columns["h"] > 1e6).astype(np.float32)
    both = trained(StandardScaler() | LogisticRegression(optim.SGD(0.5)), schema, columns, labels)
    assert both.gap(columns) < 1e-5
