"""Making room: the base computes what it did, under names that stand in nobody's way."""

import numpy as np
import onnx
import pytest

from riverdelta.graph.names import make_room

NESTED = """
g (float[N] x) => (float[N] logit) <int64 n = {2}, bool yes = {1}> {
  score = Neg(x)
  logit = Loop(n, yes, score) <body = b (int64 i, bool go, float[N] tap) => (bool on, float[N] tap_out) {
    on = Identity(go)
    tap_out = If(on) <
      then_branch = t () => (float[N] riverdelta_t) { riverdelta_t = Add(tap, score) },
      else_branch = e () => (float[N] riverdelta_e) { riverdelta_e = Identity(tap) }
    >
  }>
}
"""


@pytest.mark.parametrize("wanted", [set(), {"score"}, {"logit"}, {"tap"}, {"score", "logit", "tap", "tap_out", "on", "i"}])
def test_renaming_in_nested_graphs_changes_no_result(write, plain, wanted):
    path = write(NESTED)
    feeds = {"x": np.array([1, -2, 3.5], np.float32)}
    expected = plain(path, feeds)["logit"]
    model = onnx.load(path)
    moved = make_room(model.graph, wanted)
    assert set(moved) == wanted
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(plain(model.SerializeToString(), feeds)[moved.get("logit", "logit")], expected)


def test_a_new_name_is_new_everywhere(write):
    model = onnx.load(write("g (float[N] x) => (float[N] y) { a = Neg(x) b = Neg(a) y = Neg(b) }"))
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "base/a"
    assert make_room(model.graph, {"a"}) == {"a": "base/a_"}
    onnx.checker.check_model(model)


def test_names_under_the_prefix_give_way_and_inputs_stay(write):
    model = onnx.load(write("g (float[N] x) => (float[N] y) { a = Neg(x) y = Neg(a) }"))
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "riverdelta/a"
    model.graph.node[0].name = "riverdelta/neg"
    assert make_room(model.graph, {"x"}) == {"riverdelta/a": "base/riverdelta/a"}
    assert (model.graph.node[0].name, model.graph.input[0].name) == ("base/riverdelta/neg", "x")
