"""The table of categories: every int64 finds its own row, in Python and in the graph, and a full table turns ids away."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.nodes import Nodes
from riverdelta.river.categories import PROBES, Categories

EDGES = [0, -1, 1, 2**22 - 1, 2**22, 2**43 - 1, 2**43, -(2**22), -(2**43) - 1, 2**63 - 1, -(2**63), -(2**63) + 1]


def searched(categories, ids):
    nodes = Nodes(13)
    out = categories.export(nodes, "id", nodes.table("t", categories.table.values))
    tables, _ = nodes.table_protos()
    ports = (helper.make_tensor_value_info("id", TensorProto.INT64, ["N"]),)
    found = (helper.make_tensor_value_info(out, TensorProto.DOUBLE, ["N", 1]),)
    graph = helper.make_graph(nodes.nodes, "g", ports, found, [*nodes.constants, *tables])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([out], {"id": np.array(ids, np.int64)})[0][:, 0].tolist()


def filled(ids, slots):
    categories = Categories("u", "test", slots, True)
    for i, key in enumerate(dict.fromkeys(ids), 1):
        if categories.add(key):
            categories.table.values[categories.rows[key], 3] = i
    return categories


@settings(max_examples=25)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=10))
def test_an_id_finds_its_coefficient_and_a_stranger_finds_none(ids, strangers):
    ids = list(dict.fromkeys([*EDGES, *ids]))
    categories = filled(ids, 256)
    expected = {key: float(i) for i, key in enumerate(ids, 1)}
    asked = [*ids, *strangers]
    assert searched(categories, asked) == [expected.get(key, 0.0) for key in asked]


@pytest.mark.parametrize("slots", [1, 3, PROBES, 16])
def test_a_full_table_turns_ids_away_and_goes_on_serving_the_others(slots):
    categories = filled(range(1000), slots)
    assert len(categories.rows) <= slots
    assert categories.add(next(iter(categories.rows)))
    kept = {key: categories.table.values[row, 3] for key, row in categories.rows.items()}
    assert searched(categories, range(1000)) == [float(kept.get(key, 0.0)) for key in range(1000)]


def test_rows_are_found_again_from_the_table_alone():
    categories = filled([*EDGES, *range(50)], 256)
    rows = dict(categories.rows)
    categories.rows = {}
    categories.reload()
    assert categories.rows == rows


def test_an_empty_table_holds_no_id():
    assert searched(Categories("u", "test", 16, True), EDGES) == [0.0] * len(EDGES)


@pytest.mark.parametrize("slots", [0, -1, 2**24 + 1])
def test_slots_out_of_range_are_refused(slots):
    with pytest.raises(ConfigurationError, match=f"slots is {slots}"):
        Categories("u", "test", slots, True)
