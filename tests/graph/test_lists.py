"""A merged model of lists scores each list of a batch as if it came alone."""

import numpy as np
import onnx
import onnxruntime
import pytest

from riverdelta import Calibration
from riverdelta.core.errors import ModelError
from riverdelta.core.features import Schema
from riverdelta.core.losses import Ranking
from riverdelta.corrections.stack import Stack
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.trimming import freeze

BASE = """<ir_version: 8, opset_import: ["" : 13]>
shop (int64[N] item, float[N] x) => (float[N] y) { half = Constant<value = float {0.5}>() y = Mul(x, half) }"""


def merged(tmp_path, base=BASE, weight=0.6):
    path = tmp_path / "shop.onnx"
    onnx.save(onnx.parser.parse_model(base), path)
    stack = Stack([Calibration()], Ranking())
    stack.bind(Schema())
    for table in stack.corrections[0].served.values():
        table.values[:] = 0.5

    signature = Signature.read(path, loss=stack.loss, output="y", link="identity")
    return merge(signature, stack, {}, Schema(), weight)


def run(model, **feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.fixture
def model(tmp_path):
    made = merged(tmp_path)
    onnx.checker.check_model(made, full_check=True)
    return made


def rows(count):
    rng = np.random.default_rng(0)
    return {"item": rng.integers(0, 9, count), "x": rng.normal(size=count).astype(np.float32)}


def test_several_lists_are_scored_as_each_alone_and_no_group_is_one_list(model):
    feeds, sizes = rows(9), [2, 1, 6]
    together = run(model, **feeds, group=np.repeat([7, -3, 7_000], sizes))
    for at in np.split(np.arange(9), np.cumsum(sizes)[:-1]):
        alone = run(model, **{name: column[at] for name, column in feeds.items()})
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][at], values, atol=1e-6)
        assert alone["score"].sum() == pytest.approx(1.0, abs=1e-6)
    group, loss = np.repeat([7, -3, 7_000], sizes), Ranking()
    served = loss.mix(together["base_rank"], together["corrected_rank"], 0.6, group)
    np.testing.assert_allclose(together["rank"], served[:, 0], atol=1e-5)
    np.testing.assert_allclose(together["score"], loss.inverse_link(served, group)[:, 0], atol=1e-6)
    assert np.abs(together["corrected_rank"] - together["base_rank"]).max() > 0.1


def test_a_batch_of_no_rows_has_no_scores(model):
    for group in ({}, {"group": np.empty(0, np.int64)}):
        assert {values.shape for values in run(model, **rows(0), **group).values()} == {(0,)}


def test_a_self_contained_model_still_takes_lists(model):
    freeze(model.graph)
    assert [value.name for value in model.graph.input] == ["item", "x", "group"]
    assert run(model, **rows(4), group=np.array([0, 0, 1, 1]))["score"][:2].sum() == pytest.approx(1.0, abs=1e-6)


def test_a_base_with_an_input_named_group_is_refused(tmp_path):
    with pytest.raises(ModelError, match="'group' is an input of the base"):
        merged(tmp_path, BASE.replace("item", "group"))


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_lists_in_any_order_are_each_scored_alone_whatever_the_opset_of_the_base(tmp_path, opset):
    model = merged(tmp_path, BASE.replace('"" : 13', f'"" : {opset}'))
    onnx.checker.check_model(model, full_check=True)
    feeds, group = rows(9), np.array([5, -1, 5, 8, -1, 5, 8, 8, 2])
    together = run(model, **feeds, group=group)["score"]
    for each in np.unique(group):
        mine = group == each
        alone = run(model, **{name: column[mine] for name, column in feeds.items()})["score"]
        np.testing.assert_allclose(together[mine], alone, atol=1e-6)


def test_a_quantized_base_scores_lists_alone(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 13]>
shop (float[N, 2] x) => (float[N, 1] y) <int8[2, 1] w = {64, -32}, float s = {0.01}, float t = {0.02}, int8 z = {0}> {
 q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, t, z) y = MatMul(d, v) }"""
    model, x = merged(tmp_path, text), np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    assert {entry.version for entry in model.opset_import if entry.domain == ""} == {18}
    group = np.array([1, 0, 1, 0, 1])
    together = run(model, x=x, group=group)["score"]
    for each in (0, 1):
        np.testing.assert_allclose(together[group == each], run(model, x=x[group == each])["score"], atol=1e-6)
