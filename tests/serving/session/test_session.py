"""A session under exchange: each score comes from exactly one state, and the result names it."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from riverdelta.core.errors import Corrupt, InvalidInput, ModelError
from riverdelta.core.features import Schema
from riverdelta.corrections.base import Correction
from riverdelta.corrections.stack import Stack
from riverdelta.corrections.table import Table
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.graph.taps import all_features
from riverdelta.serving.session import Session
from riverdelta.storage.registry.state import Delta, State

ROWS, WIDTH = 48, 3
BASE = """
<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] row) => (float[N] y) <int64 two = {2}> { half = Div(row, two)  h = Cast <to = 1> (half)  y = Sub(h, h) }
"""
KNOWN = """
<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] row) => (float[N] y) <float[{1}] w = {{{0}}}> {{ y = Gather(w, row) }}
"""
LEFT, RIGHT, GATE = "riverdelta/twotables/left", "riverdelta/twotables/right", "riverdelta/gate/weight"


class TwoTables(Correction):
    """logit = offset + Σ left[row] + Σ right[row]: what two tables hold, to be read off the scores."""

    def __init__(self, offset="offset"):
        self.offset = offset

    @property
    def reads(self):
        return ("row",)

    def bind(self, schema):
        self.served = {"left": Table(np.zeros((ROWS, WIDTH))), "right": Table(np.zeros((ROWS, 1)))}
        self.learner = {}

    def predict(self, columns, offset):
        picked = [table.values[columns["row"]].sum(axis=1, keepdims=True) for table in self.served.values()]
        return offset + sum(picked)

    def learn(self, columns, offset, label, weight):
        return self.predict(columns, offset)

    def export(self, nodes, columns, offset):
        for name, table in self.served.items():
            rows = nodes.add("Gather", nodes.table(name, table.values), columns["row"])
            offset = nodes.add("Add", offset, nodes.add("ReduceSum", rows, nodes.constant([1], np.int64), keepdims=1))
        return offset


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    onnx.save(onnx.parser.parse_model(BASE), folder / "base.onnx")
    signature = Signature.read(folder / "base.onnx", logit="y", link="identity")
    taps = {"halves": "half"}
    stack = Stack([TwoTables()])
    stack.bind(all_features(signature, taps, Schema()).schema)
    return save(merge(signature, stack, taps, Schema()), signature, folder / "releases" / "000001.onnx")


START = State(1, 0, 0)
EVERY = {"row": np.arange(ROWS)}


@pytest.fixture
def session(release):
    return Session(release, START, providers=["CPUExecutionProvider"])


def following(swap, tables, base=None):
    """The delta of state 1+`swap` that follows `base`, by default the state before it."""
    return Delta(State(1, swap, swap), base or (State(1, swap - 1, swap - 1) if swap > 1 else START), tables)


def rows_of(rng, value):
    rows = np.sort(rng.choice(ROWS, rng.integers(1, ROWS), replace=False))
    return rows, np.full((len(rows), WIDTH), value, np.float32)


def whole(swap, value):
    tables = {LEFT: np.full((ROWS, WIDTH), value), RIGHT: np.full((ROWS, 1), value), GATE: np.ones((1, 1))}
    return Delta(State(1, swap, swap), None, {name: (None, t.astype(np.float32)) for name, t in tables.items()})


def test_a_run_gives_every_output_and_names_its_state(session):
    scored = session.run(EVERY)
    assert scored.state == session.state == START
    assert scored.taps["halves"].tolist() == [i // 2 for i in range(ROWS)]
    assert {a.shape for a in (scored.score, scored.served, scored.corrected, scored.base)} == {(ROWS,)}
    assert scored.score.tolist() == [0.5] * ROWS
    assert session.input_names == ("row",)
    assert set(session.table_names) == {LEFT, RIGHT, GATE}
    assert session.provider == "CPUExecutionProvider"


def test_a_swap_changes_the_touched_rows_and_nothing_else(session):
    session.swap(following(1, {LEFT: (np.array([2, 5]), np.array([[1, 2, 3], [4, 5, 6]], np.float32))}))
    expected = np.zeros(ROWS)
    expected[[2, 5]] = 6, 15
    assert session.run(EVERY).corrected.tolist() == expected.tolist()
    session.swap(following(2, {RIGHT: (np.array([5, 7]), np.array([[10], [20]], np.float32))}))
    expected[[5, 7]] = 25, 20
    scored = session.run(EVERY)
    assert (scored.corrected.tolist(), scored.state) == (expected.tolist(), State(1, 2, 2))


def test_neither_half_is_ever_stale_however_rows_are_touched(session, rng):
    left = np.zeros((ROWS, WIDTH), np.float32)
    for swap in range(1, 200):
        if swap % 50 == 0:
            session.swap(whole(swap, swap))
            left[:] = swap
            offset = swap
        else:
            rows, values = rows_of(rng, swap)
            session.swap(following(swap, {LEFT: (rows, values)}))
            left[rows] = values
            offset = swap // 50 * 50
        np.testing.assert_array_equal(session.run(EVERY).corrected, left.sum(axis=1) + offset)


@pytest.fixture
def hurried():
    """Threads take turns every 0.2 ms instead of every 5, so that a thousand exchanges meet many more runs half done."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hurried")
def test_every_score_comes_from_one_state_while_thousands_are_exchanged(session, rng):
    swaps, readers = 2000, 8
    history = {0: np.zeros(ROWS, np.float32)}
    wrong, seen, running = [], set(), threading.Event()
    running.set()

    def score():
        while running.is_set():
            time.sleep(0.0002)
            scored = session.run(EVERY)
            seen.add(scored.state.swap)
            if not np.array_equal(scored.corrected, history[scored.state.swap]):
                wrong.append(scored.state)

    threads = [threading.Thread(target=score) for _ in range(readers)]
    for thread in threads:
        thread.start()
    left = np.zeros((ROWS, WIDTH), np.float32)
    for swap in range(1, swaps + 1):
        rows, values = rows_of(rng, swap)
        left[rows] = values
        everywhere = np.full((ROWS, 1), swap, np.float32)
        history[swap] = left.sum(axis=1) + swap
        session.swap(following(swap, {LEFT: (rows, values), RIGHT: (np.arange(ROWS), everywhere)}))
    running.clear()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert session.state.swap == swaps
    assert len(seen) > 10


def test_a_reader_that_holds_the_idle_half_delays_the_swap(session):
    held = session._active
    with session._exchange:
        held.enter()
    with held.reading():
        session.swap(following(1, {RIGHT: (np.array([0]), np.array([[1]], np.float32))}))
        late = threading.Thread(target=session.swap, args=[following(2, {RIGHT: (np.array([0]), np.array([[2]], np.float32))})])
        late.start()
        late.join(0.05)
        assert late.is_alive()
        assert session.run(EVERY).corrected[0] == 1
        assert held.state == START
    late.join()
    assert session.run(EVERY).corrected[0] == 2


ONE = np.ones((1, WIDTH), np.float32)
BAD = {
    "a table that the model lacks": ({"riverdelta/twotables/lefts": (np.array([0]), ONE)}, "did you mean riverdelta/two"),
    "a wrong width": ({LEFT: (np.array([0]), np.ones((1, 2), np.float32))}, r"float32\[1, 2\]; expected float32\[1, 3\]"),
    "a wrong type": ({LEFT: (np.array([0]), np.ones((1, WIDTH)))}, r"float64\[1, 3\]; expected float32"),
    "more rows than values": ({LEFT: (np.array([0, 1]), ONE)}, r"expected float32\[2, 3\]"),
    "a row past the end": ({LEFT: (np.array([ROWS]), ONE)}, f"row {ROWS}"),
    "a negative row": ({LEFT: (np.array([-1]), ONE)}, "row -1"),
    "no number": ({RIGHT: (np.array([3]), np.array([[np.nan]], np.float32))}, "not finite"),
    "a gate's weight above one": ({GATE: (None, np.full((1, 1), 1.5, np.float32))}, r"weight is \[1.5\]; expected 0 to 1"),
    "an infinity in its second table": (
        {LEFT: (np.array([0]), ONE), RIGHT: (np.array([3]), np.array([[np.inf]], np.float32))}, "not finite"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tables", "words"), BAD.values(), ids=BAD.keys())
def test_a_delta_that_does_not_fit_changes_nothing(session, tables, words):
    session.swap(following(1, {LEFT: (np.array([1]), ONE)}))
    before = session.run(EVERY)
    with pytest.raises(Corrupt, match=words):
        session.swap(following(2, tables))
    after = session.run(EVERY)
    assert (after.corrected.tolist(), after.state) == (before.corrected.tolist(), before.state)
    session.swap(following(2, {LEFT: (np.array([0]), 2 * ONE)}))
    assert session.run(EVERY).corrected[:3].tolist() == [6, 3, 0]


LATELY = "riverdelta/twotables/limit"


def test_tables_that_are_newer_than_the_release_are_ignored_and_any_other_unknown_one_is_refused(release):
    # A delta of this version, for the graph of an older release: the second name is one that this graph does have.
    session = Session(release, START, providers=["CPUExecutionProvider"], lately={LATELY: (), RIGHT: ()})
    late = {LATELY: (None, np.full((2, 1), 4, np.float32))}
    session.swap(following(1, {LEFT: (np.array([1]), ONE), RIGHT: (np.array([2]), np.full((1, 1), 5, np.float32)), **late}))
    assert session.run(EVERY).corrected[:4].tolist() == [0, 3, 5, 0]
    with pytest.raises(Corrupt, match="has a table 'riverdelta/twotables/lefts', which the model lacks"):
        session.swap(following(2, {"riverdelta/twotables/lefts": (np.array([0]), ONE), **late}))
    session.swap(following(2, late))
    full = whole(3, 7)
    session.swap(Delta(full.state, None, {**full.tables, **late}))
    assert session.run(EVERY).corrected.tolist() == [28] * ROWS


def test_a_table_that_is_newer_than_the_release_is_unknown_to_a_session_that_was_not_told(session):
    with pytest.raises(Corrupt, match=f"has a table '{LATELY}', which the model lacks"):
        session.swap(following(1, {LATELY: (None, np.full((2, 1), 4, np.float32))}))


def test_a_delta_that_skips_a_state_is_refused_with_both_and_a_whole_one_mends_it(session):
    with pytest.raises(Corrupt, match=r"1\+3 follows 1\+2, but 1\+0 is in service"):
        session.swap(following(3, {LEFT: (np.array([0]), ONE)}))
    session.swap(whole(3, 7))
    assert session.run(EVERY).corrected.tolist() == [28] * ROWS
    session.swap(following(4, {RIGHT: (np.array([0]), np.array([[0]], np.float32))}))
    assert session.run(EVERY).corrected.tolist() == [21] + [28] * (ROWS - 1)


def test_a_whole_delta_that_lacks_a_table_is_refused(session):
    delta = whole(1, 1)
    with pytest.raises(Corrupt, match=RIGHT):
        session.swap(Delta(delta.state, None, {name: t for name, t in delta.tables.items() if name != RIGHT}))
    assert session.run(EVERY).corrected.tolist() == [0] * ROWS


def test_the_gates_weight_is_a_table_like_any_other(session):
    session.swap(whole(1, 1))
    session.swap(following(2, {GATE: (np.array([0]), np.zeros((1, 1), np.float32))}))
    scored = session.run(EVERY)
    assert scored.served.tolist() == scored.base.tolist()
    assert scored.corrected.tolist() == [4] * ROWS


def test_the_tables_that_are_fed_do_not_reach_back_to_the_sender(session):
    values = ONE.copy()
    session.swap(following(1, {LEFT: (np.array([0]), values)}))
    values[:] = 100
    assert session.run(EVERY).corrected[0] == 3


def test_a_model_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "000001.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"000001\.onnx"):
        Session(tmp_path / "000001.onnx", START, providers=["CPUExecutionProvider"])


def damaged(model):
    model.graph.input[0].name = "\n\n"
    return model.SerializeToString().replace(b"\n\n", b"\xff\xfe")


def cut_table(model):
    next(t for t in model.graph.initializer if t.name == LEFT).raw_data = b"1"
    return model.SerializeToString()


def renamed(model):
    next(o for o in model.graph.output if o.name == "score").name = "halves"
    model.graph.output.remove(next(o for o in model.graph.output if o.name == "halves"))
    return model.SerializeToString()


@pytest.mark.parametrize("change", [damaged, cut_table, renamed])
def test_a_release_whose_tables_or_names_are_damaged_is_refused(release, tmp_path, change):
    path = tmp_path / "000001.onnx"
    path.write_bytes(change(onnx.load(release)))
    with pytest.raises(ModelError, match=r"000001\.onnx"):
        Session(path, START, providers=["CPUExecutionProvider"])


def test_a_model_without_the_table_to_pin_is_refused(tmp_path):
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "base.onnx")
    with pytest.raises(ModelError, match=rf"has no table '{GATE}'; it is not a merged model"):
        Session(tmp_path / "base.onnx", START, providers=["CPUExecutionProvider"], pinned={GATE: 0.0})


def test_weights_beside_the_release_are_found_from_any_working_directory(tmp_path, monkeypatch):
    onnx.save(onnx.parser.parse_model(KNOWN.format(", ".join(["0.5"] * 600), 600)), tmp_path / "base.onnx")
    signature = Signature.read(tmp_path / "base.onnx", logit="y", link="identity")
    model = save(merge(signature, Stack([]), {}, Schema()), signature, tmp_path / "releases" / "000001.onnx")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in (model, Path("..") / "releases" / "000001.onnx"):
        assert Session(path, START, providers=["CPUExecutionProvider"]).run({"row": np.array([3])}).base.tolist() == [0.5]


def test_an_id_that_the_base_does_not_know_is_the_callers_mistake(tmp_path):
    onnx.save(onnx.parser.parse_model(KNOWN.format("1, 2", 2)), tmp_path / "base.onnx")
    signature = Signature.read(tmp_path / "base.onnx", logit="y", link="identity")
    model = save(merge(signature, Stack([]), {}, Schema()), signature, tmp_path / "000001.onnx")
    session = Session(model, START, providers=["CPUExecutionProvider"])
    with pytest.raises(InvalidInput, match=r"row.*out of data bounds"):
        session.run({"row": np.array([7])})
    assert session.run({"row": np.array([1])}).base.tolist() == [2]


def test_a_write_that_fails_half_way_leaves_no_trace(session, monkeypatch):
    session.swap(following(1, {LEFT: (np.array([1]), ONE)}))
    with monkeypatch.context() as broken:
        broken.setattr(type(session._idle.tables[RIGHT]), "holds", lambda *_: False)
        with pytest.raises(Corrupt, match="does not read back"):
            session.swap(following(2, {LEFT: (np.array([0]), 9 * ONE), RIGHT: (np.array([5]), np.ones((1, 1), np.float32))}))
    assert session.run(EVERY).corrected[:3].tolist() == [0, 3, 0]
    session.swap(following(2, {LEFT: (np.array([2]), 2 * ONE)}))
    scored = session.run(EVERY)
    assert (scored.corrected[:6].tolist(), scored.state) == ([0, 3, 6, 0, 0, 0], State(1, 2, 2))
    session.swap(following(3, {LEFT: (np.array([3]), ONE)}))
    assert session.run(EVERY).corrected[:6].tolist() == [0, 3, 6, 3, 0, 0]


def test_a_hundred_failed_swaps_leave_no_copy_of_the_tables_behind(session, monkeypatch):
    session.swap(following(1, {LEFT: (np.array([1]), ONE)}))
    session.swap(following(2, {RIGHT: (np.array([2]), np.full((1, 1), 5, np.float32))}))
    served = [table.host for table in session._active.tables.values()]
    with monkeypatch.context() as broken:
        broken.setattr(type(session._idle.tables[RIGHT]), "holds", lambda *_: False)
        for _ in range(100):
            with pytest.raises(Corrupt, match="does not read back"):
                session.swap(following(3, {LEFT: (np.array([0]), 9 * ONE)}))
            with pytest.raises(Corrupt, match="does not read back"):
                session.swap(whole(3, 9))
    kept = [values for delta in session._behind for _, values in delta.tables.values()]
    assert len(kept) <= len(served)
    assert all(any(np.shares_memory(values, table) for table in served) for values in kept)
    session.swap(following(3, {LEFT: (np.array([3]), ONE)}))
    scored = session.run(EVERY)
    assert (scored.corrected[:5].tolist(), scored.state) == ([0, 3, 5, 3, 0], State(1, 3, 3))


@pytest.fixture
def rng():
    return np.random.default_rng(11)
