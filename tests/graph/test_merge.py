"""A merged model is the base, the stack and the gate, in any ONNX runtime."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta import Calibration, Entity, Linear, Lookup
from riverdelta.checks.block import draw
from riverdelta.core.errors import ModelError
from riverdelta.core.features import Schema
from riverdelta.core.losses import LOG_LOSS
from riverdelta.corrections.stack import Stack
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import outputs

HOSTILE = Path(__file__).parents[1] / "hostile"
RANKER = """
ranker (int64[rows] item, float[rows, 2] x) => (float[rows, 1] y)
<float[5, 2] embedding = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, 0.8, 0.9, -1.0}, int64[1] one = {1}, int64 five = {5}>
{ row = Mod(item, five)  item_vec = Gather(embedding, row)  p = Mul(item_vec, x)  y = ReduceSum <keepdims = 1> (p, one) }
"""
LINEAR = "ranker (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {0.5, -1.5}> { y = MatMul(x, w) }"
SMALL = {"slots": 64}
RAW = {"logit": "y", "link": "identity"}
GENRES = Lookup("genres", key="item", table={1: [1.0, 0.0], 4: [0.5, -2.0], -1: [0.0, 1.0]})
CORRECTIONS = [
    Calibration(),
    Linear("item", "hour", **SMALL),
    Linear("user", ("user", "item"), **SMALL),
    Entity("user", **SMALL),
    Entity("user", on=["vec", "hour"], **SMALL),
    Entity(("user", "item"), on=["x", GENRES], intercept=False, **SMALL),
]
EXTRA = {"user": "int64", "hour": "float32"}
TAPS = {"vec": "item_vec"}


def learner(rows=80, seed=3):
    """Learn random rows of whatever the stack reads."""

    def learn(stack):
        schema = Schema.of({"user": "int64", "item": "int64", "hour": "float32", "vec": "float32[2]", "x": "float32[2]"})
        block = draw(schema, rows, seed)
        stack.learn(block.columns, block.offset, block.label, block.weight)

    return learn


def feeds(rng, rows=9):
    return {
        "item": rng.choice(np.array([0, 1, 4, -1, 2**63 - 1, -(2**63)]), rows),
        "x": rng.normal(size=(rows, 2)).astype(np.float32),
        "user": rng.integers(-4, 4, rows),
        "hour": rng.normal(size=rows).astype(np.float32),
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chosen=st.lists(st.sampled_from(CORRECTIONS), max_size=4), weight=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99)
)
def test_the_merged_model_is_the_python_stack(write, combine, plain, chosen, weight, seed):
    base, rng = write(RANKER), np.random.default_rng(seed)
    merged = combine(base, chosen, TAPS, EXTRA, learner(seed=seed), gate_weight=weight)
    columns = feeds(rng)
    out = plain(merged.path, columns)
    np.testing.assert_array_equal(out["base_logit"], plain(base, {"item": columns["item"], "x": columns["x"]})["y"][:, 0])
    corrected = merged.stack.predict({**columns, "vec": out["vec"]}, out["base_logit"][:, None])
    np.testing.assert_allclose(out["corrected_logit"], corrected[:, 0], atol=1e-4)
    np.testing.assert_allclose(out["logit"], LOG_LOSS.mix(out["base_logit"], corrected, weight)[:, 0], atol=1e-4)
    np.testing.assert_allclose(out["score"], LOG_LOSS.inverse_link(out["logit"])[:, 0], atol=1e-6)


def test_the_names_the_order_and_the_batch_axis(write, combine):
    graph = combine(write(RANKER), [Calibration(), Entity("user", on=["vec"], **SMALL)], TAPS, EXTRA).model.graph
    of = {"calibration": ("line",), "entity_user": ("mean", "rows", "limit"), "gate": ("weight",)}
    tables = [f"riverdelta/{part}/{table}" for part, tables in of.items() for table in tables]
    assert [value.name for value in graph.input] == ["item", "x", "user", "hour", *tables]
    assert [value.name for value in graph.output] == [*outputs(LOG_LOSS), "vec"]
    assert set(tables) <= {tensor.name for tensor in graph.initializer}
    for value in [*graph.output, *graph.input[:4]]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "rows"


FRESH = {
    "a vector": "g (float[N, 2] x) => (float[N] y) <int64[1] one = {1}> { y = ReduceSum <keepdims = 0> (x, one) }",
    "a column": LINEAR,
    "its own names": "g (float[N, 2] x) => (float[N, 1] logit) <float[2, 1] score = {0.5, -1.5}>"
    " { base_logit = MatMul(x, score) corrected_logit = Neg(base_logit) vec = Neg(corrected_logit) logit = Neg(vec) }",
    "weights as inputs": "g (float[N, 2] x, float[2, 1] score) => (float[N, 1] y) <float[2, 1] score = {2.0, 4.0}>"
    " { y = MatMul(x, score) }",
    "a branch": "g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {0.5, -1.5}, bool yes = {1}> { score = MatMul(x, w)"
    " y = If(yes) <then_branch = t () => (float[N, 1] vec) { logit = Neg(score) vec = Neg(logit) },"
    " else_branch = e () => (float[N, 1] e1) { e1 = Identity(score) }> }",
    "a loop": "g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {0.5, -1.5}, int64 n = {3}, bool yes = {1}> {"
    " h = MatMul(x, w) y = Loop(n, yes, h) <body = b (int64 i, bool go, float[N, 1] score) => (bool on, float[N, 1] logit)"
    " { on = Identity(go) logit = Add(score, h) }> }",
    "a function": '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]> g (float[N, 2] x) => (float[N, 1] y)'
    " <float[2, 1] w = {0.5, -1.5}> { y = mine.linear(x, w) }"
    ' <domain: "mine", opset_import: ["" : 17]> linear (a, b) => (logit) { score = MatMul(a, b) logit = Neg(score) }',
    "operators of ONNX Runtime's own": '<ir_version: 8, opset_import: ["" : 11, "com.microsoft" : 1]>'
    " g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {0.5, -1.5}> { h = com.microsoft.FusedMatMul(x, w) y = Neg(h) }",
    "no operator of ONNX's": '<ir_version: 8, opset_import: ["com.microsoft" : 1]> g (float[N, 2] x) => (float[N, 1] y)'
    " <float[2, 1] w = {0.5, -1.5}> { y = com.microsoft.FusedMatMul(x, w) }",
    "double precision": "g (float[N, 2] x) => (double[N, 1] y) <float[2, 1] w = {0.5, -1.5}>"
    " { h = MatMul(x, w) y = Cast <to = 11> (h) }",
}


@pytest.mark.parametrize("text", FRESH.values(), ids=FRESH.keys())
def test_a_fresh_stack_serves_the_base_bit_for_bit(write, combine, plain, text):
    base = write(text)
    merged = combine(base, [Calibration(), Entity("user", on=["x"], **SMALL)], {}, {"user": "int64"})
    # Quarters, so that every kernel that ONNX Runtime may choose for the base gives the same sum.
    x = np.array([[1, -2], [0.25, 3], [0, 0], [-7.5, 0.5]], np.float32)
    out = plain(merged.path, {"x": x, "user": np.arange(4)})
    expected = plain(base, {"x": x})[merged.signature.output].astype(np.float32).ravel()
    assert out["logit"].tobytes() == out["base_logit"].tobytes() == expected.tobytes()
    np.testing.assert_array_equal(out["corrected_logit"], expected)


@pytest.mark.parametrize(("opset", "ir"), [(9, 4), (11, 6), (12, 7), (13, 7), (17, 8), (18, 8), (21, 10), (23, 11)])
def test_the_opset_is_kept_or_raised_to_thirteen(write, combine, plain, opset, ir):
    base = write(
        "g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {1, -2}> { h = MatMul(x, w) y = Relu(h) }", opset=opset, ir=ir
    )
    merged = combine(base, [Calibration(), Entity("user", **SMALL)], {}, {"user": "int64"}, learner(), **RAW)
    assert [o.version for o in merged.model.opset_import] == [max(opset, 13)]
    assert merged.model.ir_version == ir
    x = np.array([[3, 1], [1, 1]], np.float32)
    assert plain(merged.path, {"x": x, "user": np.arange(2)})["base_logit"].tolist() == [1, 0]


def test_an_opset_that_cannot_be_raised_is_refused_by_number(write):
    text = "g (float[N, 1] x) => (float[N, 1] y) <float[1] s = {2}> { y = Mul <broadcast = 1> (x, s) }"
    signature = Signature.read(write(text, opset=4, ir=4), logit="y")
    with pytest.raises(ModelError, match=r"opset 4, which cannot be converted to 13 .*export it again at opset 13"):
        merge(signature, Stack([]), {}, Schema())


def test_a_probability_comes_back_within_a_millionth(write, combine, plain):
    base = write("g (float[N] p) => (float[N] y) { y = Identity(p) }")
    merged = combine(base, [Calibration()], probability="y", link="logit")
    p = np.array([0, 1e-9, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.999999, 1], np.float32)
    out = plain(merged.path, {"p": p})
    np.testing.assert_allclose(out["score"], p, atol=1e-6)
    assert np.isfinite(out["logit"]).all()


def test_infinite_base_logits_stay_usable(write, combine, plain):
    merged = combine(write("g (float[N] x) => (float[N] y) { y = Log(x) }"), [Calibration()], learn=learner())
    out = plain(merged.path, {"x": np.array([0, np.inf, 1], np.float32)})
    assert all(np.isfinite(out[name]).all() for name in ("score", "logit", "base_logit"))
    assert out["score"][:2].tolist() == [0, 1]


@pytest.mark.parametrize("output", [{"logit": "y"}, {"probability": "y", "link": "logit"}], ids=["logit", "probability"])
def test_a_base_s_nan_stays_nan_in_its_own_row_wherever_it_stands_in_a_block(write, combine, plain, output):
    text = "g (float[N] x) => (float[N] y) { y = Identity(x) }"
    merged = combine(write(text), [Calibration()], learn=learner(), **output)
    for rows in (1, 4, 17, 64):
        x = np.full((rows, rows), 0.25, np.float32)
        np.fill_diagonal(x, np.nan)
        for block in x:
            out = plain(merged.path, {"x": block})
            for name in ("score", "logit", "corrected_logit", "base_logit"):
                assert np.array_equal(np.isnan(out[name]), np.isnan(block))


def test_feeding_a_table_changes_the_scores_and_leaving_it_out_does_not(write, combine, plain, rng):
    merged = combine(write(RANKER), [Entity("user", **SMALL)], {}, EXTRA, learner())
    columns, name = feeds(rng), "riverdelta/entity_user/mean"
    baked = plain(merged.path, columns)
    same = plain(merged.path, {**columns, name: merged.stack.tables()[name].values})
    np.testing.assert_array_equal(baked["logit"], same["logit"])
    zero = plain(merged.path, {**columns, name: np.zeros_like(merged.stack.tables()[name].values)})
    assert zero["logit"].tobytes() == baked["base_logit"].tobytes() != baked["logit"].tobytes()
    shut = plain(merged.path, {**columns, "riverdelta/gate/weight": np.zeros((1, 1), np.float32)})
    np.testing.assert_allclose(shut["logit"], baked["base_logit"], atol=1e-6)
    np.testing.assert_array_equal(shut["corrected_logit"], baked["corrected_logit"])


def test_a_merged_model_is_a_base_like_any_other(write, combine, plain, rng):
    first = combine(
        write(RANKER), [Calibration(), Entity("user", **SMALL)], TAPS, EXTRA, learner(), provenance={"examples": "80"}
    )
    again = combine(first.path, [Calibration(), Entity("user", **SMALL)], number=1, logit="logit")
    assert list(again.signature.inputs) == ["item", "x", "user", "hour"]
    columns = feeds(rng)
    assert plain(again.path, columns)["logit"].tobytes() == plain(first.path, columns)["logit"].tobytes()
    assert {p.key for p in again.model.metadata_props} == {"riverdelta.base_digest"}


def test_the_bases_facts_are_kept_and_provenance_is_added(write, combine):
    base = write(LINEAR)
    model = onnx.load(base)
    onnx.helper.set_model_props(model, {"author": "someone", "riverdelta.examples": "of another life"})
    onnx.save(model, base)
    merged = combine(base, [], provenance={"position": "42"})
    digest = merged.signature.digest
    facts = {p.key: p.value for p in merged.model.metadata_props}
    assert facts == {"author": "someone", "riverdelta.base_digest": digest, "riverdelta.position": "42"}


def test_merging_leaves_the_signature_as_it_was(write, combine):
    base = write(RANKER)
    before = Signature.read(base).model.SerializeToString()
    assert combine(base, CORRECTIONS[:2], TAPS, EXTRA).signature.model.SerializeToString() == before


def test_an_input_with_the_name_of_an_output_is_refused(write):
    signature = Signature.read(write((HOSTILE / "input_named_score.onnxtxt").read_text()))
    with pytest.raises(ModelError, match="'score' is an input of the base"):
        merge(signature, Stack([]), {}, Schema())


def test_it_runs_where_riverdelta_is_not_installed(write, combine, plain, rng, tmp_path):
    merged = combine(write(RANKER), [Calibration(), Entity("user", on=["vec"], **SMALL)], TAPS, EXTRA, learner())
    columns = feeds(rng)
    np.savez(tmp_path / "feeds.npz", **columns)
    script = (
        "import sys, numpy, onnxruntime as o\n"
        "s = o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "assert 'riverdelta' not in sys.modules\n"
        "numpy.save(sys.argv[3], s.run(['score'], dict(numpy.load(sys.argv[2])))[0])"
    )
    arguments = [str(merged.path), str(tmp_path / "feeds.npz"), str(tmp_path / "score.npy")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "score.npy"), plain(merged.path, columns)["score"])
