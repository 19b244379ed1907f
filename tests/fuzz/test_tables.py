"""Checkpoints, the learner's state at a release, and live tables: whole, or refused by the file's name."""

import json
import shutil
import struct

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from riverdelta import Calibration
from riverdelta.core.arrays import read_arrays, write_arrays
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Schema
from riverdelta.core.hashing import digest
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import save as save_model
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.serving.session import Session
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.registry import Delta, FolderRegistry, LiveStore, State

FUZZ = settings.get_profile("fuzz")
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=4)
DTYPES = ["F32", "F64", "I64", "I32", "BOOL", "U8", "F16", "BF16", "F8_E4M3", "F4", "C64", "", "f32"]
SIZES = st.integers(-1, 9) | st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, 10**30])
ARRAYS = {
    "state": np.array([[1, 2, 9], [1, 1, 5]]), "received": np.ones(3), "published": np.ones(1),
    "values/t": np.ones((4, 2), np.float32), "rows/t": np.arange(4),
}  # fmt: skip
ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(DTYPES), "shape": st.lists(SIZES, max_size=3), "data_offsets": st.lists(SIZES, max_size=3)}
)
HEADERS = st.dictionaries(st.sampled_from([*ARRAYS, "__metadata__", "values/", "rows/x", ""]), ENTRIES, max_size=4)
NUMBERS = st.integers(-3, 12) | st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63)])


def sealed(body):
    return digest(body) + body


def headed(header, data=b"", length=None):
    """A safetensors file of any header, before `data`."""
    text = json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


BODIES = st.one_of(
    st.builds(headed, HEADERS, st.binary(max_size=80)),
    st.builds(headed, HEADERS, st.binary(max_size=8), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(save(ARRAYS)), EDITS),
)


@settings(FUZZ)
@given(BODIES)
def test_a_checkpoint_whose_digest_fits_is_arrays_or_corrupt(tmp_path, damage, bounded, body):
    path = tmp_path / "000000000000001.checkpoint"
    path.write_bytes(sealed(damage(*body) if isinstance(body, tuple) else body))
    with bounded():
        try:
            arrays = read_arrays(path)
        except Corrupt as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert sum(array.nbytes for array in arrays.values()) <= path.stat().st_size


@settings(FUZZ)
@given(EDITS, EDITS)
def test_the_newest_checkpoint_that_is_undamaged_is_loaded(tmp_path, damage, older, newer):
    written = {}
    for position, edits in ((10, older), (20, newer)):
        path = tmp_path / "checkpoints" / f"{position:015d}.checkpoint"
        write_arrays(path, {"at": np.array([position])})
        whole = path.read_bytes()
        path.write_bytes(damage(whole, edits))
        written[position] = path.read_bytes() == whole
    found = CheckpointStore(FolderRegistry(tmp_path)).load()
    expected = max((position for position, same in written.items() if same), default=None)
    assert (None if found is None else (found.position, int(found.arrays["at"][0]))) == (expected and (expected, expected))


@settings(FUZZ)
@given(BODIES)
def test_a_delta_whose_digest_fits_is_one_or_corrupt(damage, bounded, body):
    body = damage(*body) if isinstance(body, tuple) else body
    with bounded():
        try:
            delta = Delta.decode(sealed(body), "live state 7")
        except Corrupt as error:
            assert str(error).startswith("live state 7 ")  # noqa: PT017
        else:
            assert all(isinstance(n, int) for n in vars(delta.state).values())
            assert delta.received.dtype == np.float64


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = '<ir_version: 8, opset_import: ["" : 17]> ranker (float[N] x) => (float[N] y) { y = Neg(x) }'
    onnx.save(onnx.parser.parse_model(model), folder / "base.onnx")
    signature = Signature.read(folder / "base.onnx")
    stack = Stack([Calibration()])
    stack.bind(signature.inputs)
    path = save_model(merge(signature, stack, {}, Schema()), signature, folder / "000001.onnx")
    return Session(path, State(1, 0, 0), providers=["CPUExecutionProvider"])


VALUES = st.sampled_from(["<f4", "<f8", "<i8", "<f2", "?"]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(lambda shape: np.full(shape, 7, dtype))
)


@settings(FUZZ)
@given(st.data(), st.booleans(), st.lists(NUMBERS, min_size=6, max_size=6))
def test_a_delta_of_any_tables_swaps_in_or_leaves_the_session_as_it_was(session, data, whole, numbers):
    tables = {}
    for name in data.draw(st.lists(st.sampled_from([*session.table_names, "t"]), unique=True)):
        fitting = st.just(np.ones_like(session._active.tables[name].host)) if name != "t" else VALUES
        rows = data.draw(st.none() | st.lists(NUMBERS, max_size=3).map(lambda rows: np.array(rows, np.int64)))
        tables[name] = (rows, data.draw(VALUES | fitting))
    state, base = State(*numbers[:3]), None if whole else data.draw(st.just(session.state) | st.just(State(*numbers[3:])))
    before, scored = session.state, session.run({"x": np.arange(3, dtype=np.float32)})
    try:
        session.swap(Delta.decode(Delta(state, base, tables).encode(), "it"))
    except Corrupt:
        again = session.run({"x": np.arange(3, dtype=np.float32)})
        assert session.state == before
        assert again.score.tobytes() == scored.score.tobytes()
    else:
        assert session.state == state
        assert np.isfinite(session.run({"x": np.arange(3, dtype=np.float32)}).score).all()


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The files of six swaps, the first and the fourth whole."""
    folder = tmp_path_factory.mktemp("registry")
    store, base = LiveStore(FolderRegistry(folder)), None
    for swap in range(1, 7):
        state, whole = State(1, swap, 10 * swap), swap in (1, 4)
        rows, values = None if whole else np.array([swap % 4]), np.full((4 if whole else 1, 1), swap, np.float32)
        store.publish(Delta(state, None if whole else base, {"t": (rows, values)}))
        base = state
    return {path.name: path.read_bytes() for path in (folder / "live").iterdir()}


def chained(deltas, after):
    """Whether each delta follows the one before it, from `after` or from a whole."""
    for delta in deltas:
        if delta.base is not None and delta.base != after:
            return False
        after = delta.state
    return True


HEADS = st.lists(NUMBERS, min_size=4, max_size=4).map(lambda numbers: sealed(struct.pack("<4q", *numbers)))
CHANGES = st.lists(
    st.tuples(st.integers(0, 6), st.none() | HEADS | EDITS | st.integers(0, 6)),
    max_size=3,
)


@settings(FUZZ)
@given(CHANGES, st.integers(0, 6))
def test_a_reader_of_any_live_files_gets_states_that_follow_each_other(tmp_path, live, damage, bounded, changes, at):
    folder, names, files = tmp_path / "live", sorted(live), dict(live)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for place, change in changes:
        name = names[place % len(names)]
        if change is None:
            files.pop(name, None)
        elif isinstance(change, int):
            files[name] = live[names[change % len(names)]]
        elif isinstance(change, list):
            files[name] = damage(live[name], change)
        else:
            files["head"] = change
    for name, content in files.items():
        (folder / name).write_bytes(content)
    store, after = LiveStore(FolderRegistry(tmp_path)), State(1, at, 10 * at) if at else None
    with bounded():
        deltas = store.follow(after)
        assert chained(deltas, after)
        assert all(delta.encode() in live.values() for delta in deltas)
        head = store.head()
        swap = head.swap + 1 if head else 1
        if swap < 2**63:
            store.publish(Delta(State(1, swap, 99), None, {"t": (None, np.zeros((4, 1), np.float32))}))
            assert LiveStore(FolderRegistry(tmp_path)).follow(None)[-1].state.swap == swap
