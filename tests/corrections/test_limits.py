"""Limits: whatever the first values are, a stream is learned as without them, and what is served stays bounded."""

import math

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from riverdelta import Entity, Linear, Schema
from riverdelta.core.nodes import Nodes
from riverdelta.corrections import limits

ROWS = 6_000
SCHEMA = Schema.of({"u": "int64", "x": "float32"})
MAKE = {
    "linear": lambda **terms: Linear("x", intercept=True, slots=4, **terms),
    "linear by ftrl": lambda **terms: Linear("x", method="ftrl", intercept=True, slots=4, **terms),
    "entity": lambda **terms: Entity("u", on=["x"], slots=64, **terms),
}
ABSURD = (-999.0, 1000.0, 1e6, 1e30, 3e38, 1e-30, 1e-40)
ALL = pytest.mark.parametrize("name", MAKE)


def stream(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=ROWS)
    return x.astype(np.float32), (rng.random(ROWS) < 1 / (1 + np.exp(-2 * x))).astype(np.float32)


def bound(name, **terms):
    made = MAKE[name](**terms)
    made.bind(SCHEMA)
    return made


def columns(x):
    return {"u": np.arange(len(x)) % 3, "x": np.asarray(x, np.float32)}


def nothing(x):
    return np.zeros((len(x), 1), np.float32)


def learned(name, x, label):
    """Return a correction that has learned a stream, and its mean loss on the way."""
    c = bound(name)
    z = c.learn(columns(x), nothing(x), label, np.ones(len(x), np.float32))[:, 0].astype(np.float64)
    return c, float((np.logaddexp(0, z) - label * z).mean())


@ALL
@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("at", [slice(0, 1), slice(0, 5), slice(7, 8), slice(1000, 1003), slice(None, None, 1000)])
def test_a_few_absurd_values_anywhere_cost_next_to_nothing(name, value, at):
    x, label = stream()
    clean = learned(name, x, label)[1]
    x[at] = value
    assert learned(name, x, label)[1] < clean + 0.015 < 0.58


@ALL
@pytest.mark.parametrize("value", ABSURD)
def test_a_permuted_stream_with_absurd_values_is_learned_alike(name, value):
    x, label = stream()
    x[:8] = value
    losses = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(ROWS)
        losses.append(learned(name, x[order], label[order])[1])
    assert max(losses) - min(losses) < 0.01


@ALL
@pytest.mark.parametrize("value", [-999.0, -99.0, 9999.0, 3e38])
@pytest.mark.parametrize("share", [0.01, 0.07, 0.2, 0.5])
def test_a_mark_of_missing_values_counts_as_zero(name, value, share):
    x, label = stream()
    missing = np.random.default_rng(1).random(ROWS) < share
    marked, absent = (learned(name, np.where(missing, mark, x), label)[1] for mark in (value, 0))
    assert marked < absent + 0.005


@ALL
def test_a_thousand_absurd_first_values_are_forgotten(name):
    x, label = stream()
    rows = np.ones(1_000, np.float32)
    c = bound(name)
    c.learn(columns(-999 * rows), nothing(rows), label[:1_000], rows)
    later = c.learn(columns(x), nothing(x), label, np.ones_like(x))[ROWS // 2 :, 0].astype(np.float64)
    fresh = bound(name).learn(columns(x), nothing(x), label, np.ones_like(x))[ROWS // 2 :, 0].astype(np.float64)
    label = label[ROWS // 2 :]
    assert (np.logaddexp(0, later) - label * later).mean() < (np.logaddexp(0, fresh) - label * fresh).mean() + 0.01


@ALL
def test_a_feature_whose_first_value_is_late_and_absurd_is_learned(name):
    x, label = stream()
    x[: ROWS // 2] = 0
    clean = learned(name, x, label)[1]
    x[ROWS // 2] = -999
    assert learned(name, x, label)[1] < clean + 0.01


@ALL
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e9])
def test_the_scale_of_a_feature_does_not_matter(name, scale):
    x, label = stream()
    assert learned(name, x * np.float32(scale), label)[1] == pytest.approx(learned(name, x, label)[1], abs=1e-3)


@ALL
@pytest.mark.parametrize("tiny", [1e-40, 1e-30, 1e-20, 1e-6])
def test_a_jump_from_tiny_values_is_served_within_bounds(name, tiny):
    x, label = stream()
    c, _ = learned(name, x * np.float32(tiny), label)
    for jump in (4e-12, 4e-6, 1.0, 1e9, 3e38):
        assert np.abs(c.predict(columns([jump] * 3), nothing([1] * 3))).max() < 50


@ALL
@pytest.mark.parametrize("unix", [1.7e9, 1.7e12, 1.7e18])
def test_unix_times_do_no_harm(name, unix):
    rng = np.random.default_rng(2)
    label = (rng.random(ROWS) < 0.2).astype(np.float32)
    x = unix * (1 + 1e-6 * np.arange(ROWS))
    assert learned(name, x, label)[1] < learned(name, 0 * x, label)[1] + 0.005


@ALL
def test_without_clip_and_radius_tables_stay_finite(name):
    c = bound(name, clip=math.inf, radius=math.inf)
    for weight in (1.0, 3e38):
        for value in ABSURD:
            for offset in (0.0, 60.0, 3e38):
                rows = np.full((4, 1), offset, np.float32), np.array([0, 1, 1, 0], np.float32), np.full(4, weight, np.float32)
                c.learn(columns([value, -value, 0, value]), *rows)
                assert all(np.isfinite(array).all() for array in (*(t.values for t in c.served.values()), *c.learner.values()))


def test_the_graph_counts_a_number_as_numpy_does():
    nodes, limit = Nodes(13), limits.table(1)
    limit.values[:] = 4.0
    made = limits.export(nodes, "x", nodes.table(limits.LIMIT, limit.values))
    stored, overridable = nodes.table_protos()
    shape = TensorProto.FLOAT, [None, 1]
    graph = helper.make_graph(
        nodes.nodes,
        "limited",
        [helper.make_tensor_value_info("x", *shape), *overridable],
        [helper.make_tensor_value_info(made, *shape)],
        [*nodes.constants, *stored],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    x = np.array([[0, 3, -4, 4.5, -15, 16, 32, -64, 65, 3e38, -np.inf]], np.float32).T
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run([made], {"x": x})
    for counted in (found, limits.limited(x.copy(), limit)):
        assert counted.ravel() == pytest.approx([0, 3, -4, 4, -4, 4, 2, -1, 0, 0, 0])


def test_a_number_that_grows_for_ever_does_not_make_an_entity_overshoot():
    grows, (_, label) = np.arange(ROWS, dtype=np.float32), stream()
    assert learned("entity", grows, label)[1] < learned("entity", np.zeros(ROWS), label)[1] + 0.2
