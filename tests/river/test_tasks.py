"""A River pipeline that ends in LinearRegression is a correction for every task: it keeps every law, and follows the loss."""

import numpy as np
import onnx
import onnxruntime
import pytest
from river.compose import Select
from river.linear_model import LinearRegression
from river.preprocessing import OneHotEncoder, StandardScaler

from river import optim
from riverdelta import Count, Multiclass, Ranking, Regression, Schema, Stack
from riverdelta.checks import parametrize_with_checks
from riverdelta.checks.block import draw, learn, lost
from riverdelta.core.errors import Corrupt
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features
from riverdelta.river import River

SCHEMA = Schema.of({"u": "int64", "i": "int64", "h": "float32", "v": "float32[5]"})
SOFTMAX, LISTS = Multiclass(range(3)), Ranking()
SCALED = StandardScaler() | LinearRegression()
MIXED = ((Select("h", "v_2") | StandardScaler()) + (Select("u") | OneHotEncoder(drop_zeros=True))) | LinearRegression(
    optim.AdaGrad(0.1)
)
PIPELINES = {
    "scaled": River(SCALED, ("h", "v")),
    "encoded": River(OneHotEncoder(drop_zeros=True) | LinearRegression(), ("u", "i"), slots=64),
    "a union": River(MIXED, ("u", "h", "v"), slots=64),
}


@parametrize_with_checks(PIPELINES, SCHEMA, Regression())
def test_a_pipeline_keeps_its_laws_with_values(check):
    check()


@parametrize_with_checks(PIPELINES, SCHEMA, Count())
def test_a_pipeline_keeps_its_laws_with_counts(check):
    check()


@parametrize_with_checks(PIPELINES, SCHEMA, SOFTMAX)
def test_a_pipeline_keeps_its_laws_with_classes(check):
    check()


@parametrize_with_checks(PIPELINES, SCHEMA, LISTS)
def test_a_pipeline_keeps_its_laws_with_lists(check):
    check()


def bound(pipeline, loss, schema=SCHEMA):
    stack = Stack([pipeline.clone()], loss)
    stack.bind(schema)
    return stack


@pytest.mark.parametrize("loss", [Regression(), Count(), SOFTMAX, LISTS], ids=lambda loss: loss.task)
def test_what_a_pipeline_learns_lowers_the_loss_of_later_rows(loss):
    block = draw(SCHEMA, 3_000, 3, loss)
    later = slice(1_500, 3_000)
    raw = learn(bound(PIPELINES["a union"], loss).corrections[0], block)
    before, after = (lost(each, block, loss)[later].mean() for each in (block.offset, raw))
    assert after < 0.95 * before


@pytest.mark.parametrize("times", [1e-4, 1e5])
def test_an_optimizer_with_steps_of_one_size_learns_values_of_any_unit(times):
    rng, rows = np.random.default_rng(1), 2_000
    h = rng.normal(size=rows).astype(np.float32)
    label = (np.float32(times) * (2.0 * h + 1.0)).astype(np.float32)
    stack = bound(River(StandardScaler() | LinearRegression(optim.AdaGrad(0.3)), ("h",)), Regression())
    raw = stack.learn({"h": h}, np.zeros((rows, 1), np.float32), label, np.ones(rows, np.float32))
    assert np.abs(raw[1_000:, 0] - label[1_000:]).mean() < 0.2 * times


def test_rows_of_a_list_are_learned_with_the_derivatives_of_the_list_before_any_of_them():
    model = LinearRegression(optim.SGD(0.1), intercept_lr=0.0)
    stack = bound(River(OneHotEncoder(drop_zeros=True) | model, ("u",), slots=16), LISTS, Schema.of({"u": "int64"}))
    label, zeros = np.float32([0, 0, 1]), np.zeros((3, 1), np.float32)
    stack.learn({"u": np.array([7, 7, 8])}, zeros, label, np.ones(3, np.float32))
    gradient, curvature = (each[:, 0] for each in LISTS.derivatives(zeros, label))
    first = -0.2 * gradient[0]
    # The second row asks for a residual of -g / h, of which the first one has learned a part.
    both = first - 0.2 * curvature[1] * (first + gradient[1] / curvature[1])
    found = stack.predict({"u": np.array([7, 8])}, zeros[:2])[:, 0]
    np.testing.assert_allclose(found, [both, -0.2 * gradient[2]], rtol=1e-6)


def test_each_output_has_its_own_weights_under_its_name():
    stack, block = bound(PIPELINES["a union"], SOFTMAX), draw(SCHEMA, 60, 1, SOFTMAX)
    (correction,) = stack.corrections
    learn(correction, block)
    found = correction.coefficients()["weights"]
    assert {"intercept -> 0", "h -> 1", "v_2 -> 2"} <= set(found.features)
    own = int(block.columns["u"][0])
    assert {at.feature for at in found.find({"u": own})} <= {f"u_{own} -> {k}" for k in range(3)}
    assert len(correction.occupancy()) == 3


def test_an_output_that_diverges_starts_again_alone(caplog):
    stack, block = bound(PIPELINES["scaled"], SOFTMAX), draw(SCHEMA, 120, 2, SOFTMAX)
    (correction,) = stack.corrections
    learn(correction, block)
    correction._outputs[1].last.intercept = 1e9
    learn(correction, block[:1])
    first, second, third = (output.rows for output in correction._outputs)
    assert second == 1
    assert min(first, third) > 100
    assert caplog.text.count("diverged and starts again") == 1


def test_a_damaged_pipeline_of_one_output_is_named():
    stack = bound(PIPELINES["scaled"], SOFTMAX)
    with pytest.raises(Corrupt, match=r"River\(StandardScaler \| LinearRegression\)"):
        stack.load(stack.state() | {"river/learner/1_pipeline": np.frombuffer(b"{", np.uint8)})


BASES = {
    "multiclass": """ranker (int64[N] u, float[N] h, float[N, 5] v) => (float[N, 3] y)
        <float[5, 3] w = {0.5, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0.25}> { y = MatMul(v, w) }""",
    "ranking": "ranker (int64[N] u, float[N] h, float[N, 5] v) => (float[N] y) { y = Neg(h) }",
}


@pytest.mark.parametrize("loss", [SOFTMAX, LISTS], ids=lambda loss: loss.task)
@pytest.mark.parametrize("rows", [0, 1, 60])
def test_plain_onnxruntime_serves_what_was_learned(loss, rows, tmp_path):
    path = tmp_path / "base.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{BASES[loss.task]}'), path)
    signature = Signature.read(path, loss=loss)
    schema = all_features(signature, {}, Schema()).schema
    stack, block, fresh = (
        bound(PIPELINES["a union"], loss, schema),
        draw(schema, 300, 1, loss),
        draw(schema, 60, 2, loss)[:rows],
    )
    run = onnxruntime.InferenceSession(path)
    base = run.run(None, block.columns)[0].reshape(-1, loss.outputs)
    stack.learn(block.columns, base, block.label, block.weight, block.group)
    release = save(merge(signature, stack, {}, Schema()), signature, tmp_path / "releases" / "000001.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(release), options, providers=["CPUExecutionProvider"])
    base = run.run(None, fresh.columns)[0].reshape(-1, loss.outputs)
    found = session.run([f"corrected_{loss.raw}"], fresh.columns)[0].reshape(-1, loss.outputs)
    expected = stack.predict(fresh.columns, base)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert rows == 0 or np.abs(expected - base).max() > 0.1
