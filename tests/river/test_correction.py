"""Any supported River pipeline is a correction: it keeps every law, and learns as River does."""

import pickle

import numpy as np
import pytest
from river.compose import Select
from river.linear_model import LinearRegression, LogisticRegression, Perceptron
from river.preprocessing import FeatureHasher, MinMaxScaler, Normalizer, OneHotEncoder, StandardScaler

from river import compose, ensemble, feature_extraction, optim, tree
from riverdelta import Calibration, Schema, Stack
from riverdelta.checks import parametrize_with_checks
from riverdelta.checks.block import draw
from riverdelta.core.errors import ConfigurationError, Corrupt, Unsupported
from riverdelta.corrections.centred import FIRST
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "i": "int64", "h": "float32", "v": "float32[5]"})
ENCODED = OneHotEncoder(drop_zeros=True)

PIPELINES = {
    "a bare model": River(LogisticRegression(), ("h", "v")),
    "scaled": River(StandardScaler() | LogisticRegression(optim.AdaGrad(0.1), l2=0.01), ("h", "v")),
    "scaled to a range": River(MinMaxScaler() | LogisticRegression(), ("h", "v")),
    "scaled by windows": River(StandardScaler(window_size=7) | MinMaxScaler(window_size=5) | LogisticRegression(), ("h", "v")),
    "encoded": River(ENCODED | LogisticRegression(), ("u", "i"), slots=64),
    "encoded with l1": River(ENCODED | LogisticRegression(l1=0.001), ("u", "i"), slots=64),
    "encoded with zeros": River(OneHotEncoder() | LogisticRegression(optim.Adam(0.01), l2=0.01), ("u", "i"), slots=64),
    "encoded, then scaled": River(OneHotEncoder() | StandardScaler() | LogisticRegression(), ("u", "i"), slots=64),
    "encoded, then hashed": River(ENCODED | FeatureHasher(16, seed=1) | LogisticRegression(), ("u", "i"), slots=64),
    "encoded in too few slots": River(ENCODED | LogisticRegression(), ("u", "i"), slots=4),
    "hashed, then scaled": River(FeatureHasher(4, seed=1) | StandardScaler() | LogisticRegression(), ("h", "v")),
    "least squares": River(StandardScaler() | LinearRegression(), ("h", "v")),
    "a union": River(
        (
            (Select("h", "v_2") | StandardScaler())
            + (Select("u") | OneHotEncoder(drop_zeros=True))
            + (Select("i") | OneHotEncoder())
        )
        | LogisticRegression(optim.FTRLProximal()),
        ("u", "i", "h", "v"),
        slots=64,
    ),
    "a union, then scaled": River(
        (Select("h", "v_2") + (Select("u") | OneHotEncoder())) | MinMaxScaler() | LogisticRegression(),
        ("u", "h", "v"),
        slots=64,
    ),
}


@parametrize_with_checks(PIPELINES, SCHEMA)
def test_pipeline_keeps_the_law(check):
    check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["scaled", "encoded", "a union"])
def test_a_row_that_is_not_finite_is_predicted_and_leaves_the_state_alone(name, bad):
    c, block = PIPELINES[name].clone(), draw(SCHEMA, 60, 3)
    c.bind(SCHEMA)
    c.learn(block.columns, block.offset, block.label, block.weight)
    for what in ("offset", "label", "weight", "h", "v"):
        if what in SCHEMA and what not in c.reads:
            continue
        odd = draw(SCHEMA, 3, 4)
        ({**vars(odd), **odd.columns}[what])[1] = bad
        rows = [odd[i : i + 1] for i in range(3)]
        before = c.clone()
        before.bind(SCHEMA)
        before.learner = c.learner
        before.restore()
        expected = c.predict(rows[1].columns, rows[1].offset)
        got = c.learn(rows[1].columns, rows[1].offset, rows[1].label, rows[1].weight)
        assert got.tobytes() == expected.tobytes()
        assert all(a.tobytes() == before.learner[key].tobytes() for key, a in c.learner.items()), what


@pytest.mark.parametrize("rows", [0, 3, 60])
@pytest.mark.parametrize("name", ["scaled", "scaled by windows", "a union"])
def test_the_graph_agrees_on_rows_that_are_not_finite_or_absurd(name, rows, run_graph):
    c, block = PIPELINES[name].clone(), draw(SCHEMA, 60, 3)[:rows]
    c.bind(SCHEMA)
    c.learn(block.columns, block.offset, block.label, block.weight)
    odd = draw(SCHEMA, 9, 4)
    values = [np.nan, np.inf, -np.inf, 3e38, -3e38, -999.0, 1.7e18, 1e-30, -0.0]
    odd.columns["h"][:], odd.columns["v"][:, 2] = values, values[::-1]
    expected = c.predict(odd.columns, odd.offset)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(run_graph(c, SCHEMA, odd.columns, odd.offset), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("unix", [1.7e9, 1.7e12, 1.7e18])
def test_a_column_of_unix_times_does_no_harm(unix):
    rng, rows = np.random.default_rng(2), 2_000
    v = rng.normal(size=(rows, 5)).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-2 * v[:, 0]))).astype(np.float32)
    losses = []
    for h in (np.zeros(rows), unix * (1 + 1e-6 * np.arange(rows))):
        c = PIPELINES["scaled"].clone()
        c.bind(SCHEMA)
        columns = {"h": h.astype(np.float32), "v": v}
        z = c.learn(columns, np.zeros((rows, 1), np.float32), label, np.ones(rows, np.float32))[:, 0].astype(np.float64)
        losses.append((np.logaddexp(0, z) - label * z).mean())
    assert losses[1] < losses[0] + 0.02 < 0.6


def test_weights_are_those_of_plain_river_to_the_last_bit(trained):
    pipeline = (
        (Select("h") | StandardScaler()) + (Select("u") | OneHotEncoder(drop_zeros=True)) + Select("v_0", "v_3")
    ) | LogisticRegression(optim.AdaGrad(0.1), l2=0.001)
    block = draw(SCHEMA, 300, 1)
    both = trained(pipeline, SCHEMA, block.columns, block.label, slots=256)
    mine, rivers = both.model["LogisticRegression"], both.plain.pipeline["LogisticRegression"]
    assert mine.weights == rivers.weights
    assert mine.intercept == rivers.intercept
    assert both.gap(draw(SCHEMA, 200, 2).columns) < 1e-5


def test_an_importance_weight_is_rivers(plain):
    pipeline, block = StandardScaler() | LogisticRegression(optim.SGD(0.1)), draw(SCHEMA, 100, 3)
    columns = {"h": block.columns["h"]}
    correction = River(pipeline, ("h",))
    correction.bind(SCHEMA)
    alone = plain(correction)
    correction.learn(columns, np.zeros((100, 1), np.float32), block.label, block.weight)
    alone.learn(columns, block.label, block.weight)
    assert correction._outputs[0].model["LogisticRegression"].weights == alone.pipeline["LogisticRegression"].weights


def test_the_users_pipeline_is_neither_learned_nor_taken_over():
    pipeline = StandardScaler() | LogisticRegression()
    for h in range(50):
        pipeline.learn_one({"h": float(h)}, h > 20)
    before = repr(pipeline), dict(pipeline["LogisticRegression"].weights)
    correction, block = River(pipeline, ("h",)), draw(SCHEMA, 50, 4)
    correction.bind(SCHEMA)
    np.testing.assert_array_equal(correction.predict(block.columns, block.offset), block.offset)
    correction.learn(block.columns, block.offset, block.label, block.weight)
    assert (repr(pipeline), dict(pipeline["LogisticRegression"].weights)) == before


def test_features_may_be_left_out_where_every_branch_selects():
    pipeline = ((Select("h", "v_1") | StandardScaler()) + (Select("u") | ENCODED.clone())) | LogisticRegression()
    assert River(pipeline).reads == ("h", "v_1", "u")
    assert River(pipeline).keys == ("u",)
    with pytest.raises(ConfigurationError, match="cannot tell which columns StandardScaler reads"):
        River(StandardScaler() | LogisticRegression())


@pytest.mark.parametrize("features", ["hour", ("h", "h"), (1,), (), 3])
def test_features_that_are_no_names_are_refused(features):
    with pytest.raises(ConfigurationError, match="features"):
        River(LogisticRegression(), features)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (Normalizer() | LogisticRegression(), "Normalizer.*it takes .*StandardScaler"),
        (feature_extraction.PolynomialExtender() | LogisticRegression(), "PolynomialExtender"),
        ((Select("h") + compose.SelectType(int)) | LogisticRegression(), "SelectType"),
        (StandardScaler() | tree.HoeffdingTreeClassifier(), "ends in HoeffdingTreeClassifier"),
        (ensemble.BaggingClassifier(LogisticRegression(), 2), "ends in BaggingClassifier"),
        (Perceptron(), "Perceptron"),
        (StandardScaler(), "ends in StandardScaler"),
        (compose.Pipeline(LogisticRegression(), LogisticRegression()), "middle of a pipeline"),
        (compose.Pipeline(Select("h") | StandardScaler(), LogisticRegression()), "Pipeline as a step"),
        ((Select("h") + (Select("u") | LogisticRegression())) | LogisticRegression(), "is in a union"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_anything_else_is_refused_by_name(pipeline, message):
    with pytest.raises(Unsupported, match=message):
        River(pipeline, ("h", "u"))


def test_a_column_that_does_not_exist_or_is_a_tensor_is_refused():
    with pytest.raises(ConfigurationError, match=r"hours.*did you mean"):
        River(LogisticRegression(), ("hours",)).bind(Schema.of({"hour": "float32"}))
    with pytest.raises(ConfigurationError, match=r"'image'.*float32\[N, 2, 2\]"):
        River(LogisticRegression(), ("image",)).bind(Schema.of({"image": "float32[2, 2]"}))


def test_an_ints_kind_is_decided_by_who_reads_it():
    correction = River((Select("hour") + (Select("user") | OneHotEncoder(drop_zeros=True))) | LogisticRegression(), slots=16)
    correction.learn_one({"hour": 3, "user": 9, "offset": 0.0}, True)
    correction.learn_one({"hour": 3.5, "user": "ann", "offset": 0.0}, True)
    assert {name: str(c) for name, c in correction._schema.items()} == {"hour": "float32[N]", "user": "int64[N]"}


def test_a_pipeline_that_diverges_stays_finite_and_starts_afresh(caplog, run_graph):
    # Steps of 1 on inputs of a million: the squared loss overshoots a millionfold with each row.
    correction = River(LinearRegression(optim.SGD(1.0)), ("h", "v"))
    stack, block = Stack([correction, Calibration()]), draw(SCHEMA, 200, 5)
    stack.bind(SCHEMA)
    columns = block.columns | {"h": np.float32(1e6) * block.columns["h"]}
    logits = stack.learn(columns, block.offset, block.label, block.weight)
    assert np.isfinite(logits).all()
    assert np.isfinite(correction.predict(columns, block.offset)).all()
    assert np.isfinite(run_graph(correction, SCHEMA, columns, block.offset)).all()
    assert "diverged and starts again" in caplog.text


def test_an_overflow_inside_river_starts_it_afresh(caplog):
    correction = River(LogisticRegression(optim.AdaGrad(1e200), l2=1.0), ("h",))
    correction.bind(SCHEMA)
    # The first number gives a weight of 1e200, whose penalty AdaGrad squares at the second; Python's floats raise.
    rows = FIRST + 1
    columns, ones = {"h": np.arange(rows, dtype=np.float32) - 1}, np.ones(rows, np.float32)
    correction.learn(columns, np.zeros((rows, 1), np.float32), ones, ones)
    assert caplog.text.count("diverged") == 1
    assert correction._outputs[0].rows < rows
    assert not np.isnan(correction.predict(columns, np.zeros((rows, 1), np.float32))).any()


def test_a_checkpoint_goes_on_in_another_process_to_the_last_bit():
    correction, block, more = PIPELINES["a union"], draw(SCHEMA, 100, 6), draw(SCHEMA, 50, 7)
    first = Stack([correction.clone()])
    first.bind(SCHEMA)
    first.learn(block.columns, block.offset, block.label, block.weight)
    second = pickle.loads(pickle.dumps(first))
    third = Stack([correction.clone()])
    third.bind(SCHEMA)
    third.load(first.state())
    for stack in (first, second, third):
        stack.learn(more.columns, more.offset, more.label, more.weight)
    assert first.digest() == second.digest() == third.digest()


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"object":{"steps":{"dict":[["x",1]]}}}', b'{"what":1}'])
def test_a_damaged_checkpoint_is_named(damage):
    stack = Stack([River(StandardScaler() | LogisticRegression(), ("h",))])
    stack.bind(SCHEMA)
    state = stack.state() | {"river/learner/pipeline": np.frombuffer(damage, np.uint8)}
    with pytest.raises(Corrupt, match=r"River\(StandardScaler \| LogisticRegression\)"):
        stack.load(state)


def test_no_rows_change_nothing():
    correction, none = PIPELINES["encoded"].clone(), draw(SCHEMA, 1, 8)[:0]
    correction.bind(SCHEMA)
    assert correction.learn(none.columns, none.offset, none.label, none.weight).shape == (0, 1)
    assert correction.predict(none.columns, none.offset).shape == (0, 1)
    assert correction.occupancy() == {"onehotencoder_u": 0.0, "onehotencoder_i": 0.0}


def test_predicting_changes_no_state():
    stack, block = Stack([PIPELINES["encoded, then scaled"].clone()]), draw(SCHEMA, 60, 9)
    stack.bind(SCHEMA)
    for rows in (slice(0, 0), slice(0, 20)):
        stack.learn({n: c[rows] for n, c in block.columns.items()}, block.offset[rows], block.label[rows], block.weight[rows])
        before = stack.digest()
        stack.predict(block.columns, block.offset)
        assert stack.digest() == before


@pytest.mark.parametrize("value", [-999.0, 1e30])
@pytest.mark.parametrize("begin", [0, 1000])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_absurd_first_values_and_marks_of_missing_ones_do_not_reach_a_scaler(value, begin, share):
    rng = np.random.default_rng(0)
    x = rng.normal(size=3_000).astype(np.float32)
    label, weight = (rng.random(len(x)) < 1 / (1 + np.exp(-2 * x))).astype(np.float32), np.ones_like(x)
    x[:begin] = 0
    losses, marked = [], np.arange(begin, begin + 10) if share == 1.0 else begin + np.flatnonzero(rng.random(2_000) < share)
    others = np.delete(np.arange(len(x)), marked)
    for mark in (0, value):
        made = River(StandardScaler() | LogisticRegression(), features=("x",))
        made.bind(Schema.of({"x": "float32"}))
        x[marked] = mark
        z = made.learn({"x": x}, np.zeros((len(x), 1), np.float32), label, weight)[:, 0].astype(np.float64)
        losses.append((np.logaddexp(0, z) - label * z)[others].mean())
    assert losses[1] < losses[0] + 0.01
