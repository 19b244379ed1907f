"""Ranges hold for every input, and a graph of any kind has some."""

import numpy as np
import pytest
from onnx import helper
from tests.graph.scores import SIGMOIDS, model

from riverdelta.graph.ranges import ranges_of


@pytest.mark.parametrize("way", SIGMOIDS)
def test_the_proof_is_true_of_what_the_graph_computes(place, plain, rng, way):
    made = model(f"{SIGMOIDS[way]} y = Identity(p)")
    low, high = ranges_of(made.graph, place(made).parent)["y"]
    values = plain(place(made), {"x": rng.normal(0, 30, (500, 2)).astype(np.float32)})["y"]
    step = 0.002 if way == "quantized" else 1e-5
    assert max(low, 0) - step <= np.nanmin(values) <= np.nanmax(values) <= min(high, 1) + step


def test_a_graph_of_any_depth_missing_producers_and_cycles_are_no_error(place):
    deep = model("y = Identity(z)")
    del deep.graph.node[1:]
    deep.graph.node.append(helper.make_node("Sigmoid", ["z"], ["t0"]))
    deep.graph.node.extend(helper.make_node("Identity", [f"t{i}"], [f"t{i + 1}"]) for i in range(30_000))
    assert ranges_of(deep.graph, place(deep).parent)["t30000"] == (0, 1)
    for source in ("nowhere", "y"):
        deep.graph.node[2].input[0] = source
        assert "t30000" not in ranges_of(deep.graph, place(deep).parent)
