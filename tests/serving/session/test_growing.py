"""Tables that grow under a session: new rows between deltas, and graphs of releases from before tables grew."""

import numpy as np
import onnx
import pytest

from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Schema
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.stack import Stack, lately
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import full_schema
from riverdelta.serving.session import Session
from riverdelta.sidecar.publisher import Live
from riverdelta.storage.registry import Delta, FolderRegistry, LiveStore, State

ROWS, SLOTS, START = 48, 512, State(1, 0, 0)
BASE = """
<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] row) => (float[N] y) { h = Cast <to = 1> (row)  y = Sub(h, h) }
"""
MEAN, INDEX = "riverdelta/entity_row/mean", "riverdelta/entity_row/rows"


@pytest.fixture
def growing(tmp_path):
    """A session over an entity's tables, one over a graph that has a row for each slot, and the stack that learns."""
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "base.onnx")
    signature = Signature.read(tmp_path / "base.onnx", logit="y", link="identity")
    stack = Stack([Entity("row", slots=SLOTS)])
    stack.bind(full_schema(signature, {}, Schema()))
    made = merge(signature, stack, {}, Schema())
    now = save(made, signature, tmp_path / "now" / "000001.onnx")
    older = save(of_an_older_release(made), signature, tmp_path / "older" / "000001.onnx")
    given = {"providers": ["CPUExecutionProvider"], "lately": lately(stack.corrections)}
    return Session(now, START, **given), Session(older, START, **given), stack


def of_an_older_release(merged):
    """The same graph as it was before tables grew: `mean` float32[slots, 1], read by slot."""
    model = onnx.ModelProto()
    model.CopyFrom(merged)
    graph = model.graph
    (lookup,) = [node for node in graph.node if INDEX in node.input]
    for node in graph.node:
        node.input[:] = [lookup.input[1] if name == lookup.output[0] else name for name in node.input]
    graph.node.remove(lookup)
    for kept in (graph.input, graph.initializer):
        kept.remove(next(value for value in kept if value.name == INDEX))
    table = next(t for t in graph.initializer if t.name == MEAN)
    table.CopyFrom(onnx.numpy_helper.from_array(np.zeros((SLOTS, 1), np.float32), MEAN))
    dim = next(i for i in graph.input if i.name == MEAN).type.tensor_type.shape.dim[0]
    dim.Clear()
    dim.dim_value = SLOTS
    return model


def test_tables_grow_between_deltas_and_older_graphs_follow_them(growing, tmp_path):
    now, older, stack = growing
    store, rng, seen = LiveStore(FolderRegistry(tmp_path)), np.random.default_rng(0), set()
    live = Live(store, stack)
    for swap in range(1, 60):
        user = rng.integers(0, 1 + 4 * swap, rng.integers(1, 9))
        base, one = np.zeros((len(user), 1), np.float32), np.ones(len(user), np.float32)
        stack.learn({"row": user}, base, (user % 2).astype(np.float32), one)
        live.mark_dirty()
        delta = live.publish(1, swap, 1.0, 0.0)
        for session in (now, older):
            session.swap(delta)
        if swap == 30:  # a learner that started again has the same rows in another order
            again = Stack([Entity("row", slots=SLOTS)])
            again.bind(stack.schema)
            again.load(stack.state())
            live.show(again)
            stack = again
        every = {"row": np.arange(ROWS)}
        found, theirs = now.run(every).corrected, older.run(every).corrected
        expected = stack.predict(every, np.zeros((ROWS, 1), np.float32)).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.tobytes() == theirs.tobytes()
        seen.add(delta.base is None)
    assert seen == {True, False}
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({MEAN: (np.array([99]), np.ones((1, 1), np.float32))}, "has row 99; expected rows below"),
        ({MEAN: (None, np.ones((0, 1), np.float32))}, r"values float32\[0, 1\]; expected float32\[1, 1\]"),
        ({INDEX: (np.array([3]), np.ones((1, 1), np.float32))}, r"values float32\[1, 1\]; expected int32\[1, 1\]"),
        ({INDEX: (np.array([SLOTS]), np.ones((1, 1), np.int32))}, f"has row {SLOTS}; expected rows below {SLOTS}"),
    ],
)
def test_rows_beyond_those_that_a_delta_adds_are_refused(growing, tables, words):
    session, _, _ = growing
    with pytest.raises(Corrupt, match=words):
        session.swap(Delta(State(1, 1, 1), START, tables))
    assert session.state == START


def test_an_older_graph_refuses_rows_that_do_not_fit_their_index(growing):
    _, older, _ = growing
    tables = {MEAN: (None, np.ones((2, 1), np.float32)), INDEX: (None, np.full((SLOTS, 1), 7, np.int32))}
    with pytest.raises(Corrupt, match=f"the rows of '{MEAN}' do not fit '{INDEX}'"):
        older.swap(Delta(State(1, 1, 1), None, tables))
    assert older.state == START
