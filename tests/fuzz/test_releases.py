"""The registry's releases: whatever its index and its models are, a release that is whole, or an error that names the file."""

import contextlib
import json
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta import Calibration
from riverdelta.core.errors import Corrupt, ModelError, NotFound, RiverdeltaError
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import export, save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.serving.session import Session
from riverdelta.storage.registry import FolderRegistry, ReleaseStore, State

WHOLE = settings.get_profile("fuzz")
FUZZ = settings(WHOLE, max_examples=max(WHOLE.max_examples // 2, 1))
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=4)
HALVES = ", ".join(["0.5"] * 600)
BASE = f"""<ir_version: 8, opset_import: ["" : 17]> ranker (float[N, 600] x) => (float[N, 1] y)
<float[600, 1] w = {{{HALVES}}}> {{ y = MatMul(x, w) }}"""
X = {"x": np.ones((2, 600), np.float32)}
FILES = [
    "../outside",
    "OUTSIDE",
    "000000.onnx",
    "000009.onnx",
    ".",
    "..",
    "",
    "a\0b",
    "index.json",
    "000001.state",
    "000001.onnx/",
]
NUMBERS = st.integers(-2, 3) | st.sampled_from([2**63, 10**30, -(2**63)])
LEAVES = st.none() | st.booleans() | NUMBERS | st.floats() | st.sampled_from(FILES) | st.text(max_size=4)
JSON = st.recursive(
    LEAVES, lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=3), value, max_size=3), max_leaves=5
)
KEYS = ["number", "file", "digest", "state", "position", "examples", "time", "facts"]
CHANGES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([*KEYS, "champions", "shared", "releases"]), JSON), min_size=1, max_size=3
)
PLACES = ["../outside", "OUTSIDE", "base.bin", "link", ".", "", "/dev/zero", "a\0b"]
SIZES = st.integers(-2, 9) | st.sampled_from([2400, 4096, 2**31, 2**62, 2**63 - 1])
REFERENCES = st.fixed_dictionaries({}, optional={"location": st.sampled_from(PLACES), "offset": SIZES, "length": SIZES})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of two releases over one file of weights, by name."""
    folder = tmp_path_factory.mktemp("base")
    onnx.save(onnx.parser.parse_model(BASE), folder / "base.onnx")
    signature, stack = Signature.read(folder / "base.onnx"), Stack([Calibration()])
    stack.bind(signature.inputs)
    store = ReleaseStore(FolderRegistry(folder))
    for _ in range(2):
        number, path = store.next_path()
        save(merge(signature, stack, {}, Schema()), signature, path)
        store.add(number, path, 10 * number, number, 100.0, {"auc": 0.5}, {"stack/a": np.full(3, number)})
    return {path.name: path.read_bytes() for path in (folder / "releases").iterdir()}


@pytest.fixture
def lay(made, tmp_path):
    """lay(files): a store of these files in the place of what was made, beside a file that is none of its own."""

    def lay(files):
        shutil.rmtree(tmp_path, ignore_errors=True)
        (tmp_path / "releases").mkdir(parents=True)
        (tmp_path / "outside").write_bytes(made["000000.onnx"])
        for name, data in {**made, **files}.items():
            (tmp_path / "releases" / name).write_bytes(data.replace(b"OUTSIDE", str(tmp_path / "outside").encode()))
        return ReleaseStore(FolderRegistry(tmp_path))

    return lay


def used(store):
    """Do with a store whatever the service does; return the errors, which are of our tree and name a file in it."""
    folder, errors = store.registry.folder / "releases", []
    outside = folder.parent / "outside"
    before = outside.read_bytes()
    for act in (
        lambda: [r.verify() for r in store.all()],
        lambda: [store.state(r) for r in store.all()],
        store.latest_good, store.intact, store.champion, store.champions, store.next_path,
        lambda: store.get(1), lambda: store.promote(1), lambda: store.judge(1, {"verdict": "promoted"}),
        lambda: Session(store.latest_good().path, State(0, 0, 0), providers=["CPUExecutionProvider"]).run(X),
        lambda: store.sweep(keep=1, max_bytes=1),
    ):  # fmt: skip
        try:
            act()
        except RiverdeltaError as error:
            errors.append(error)
        except AttributeError:
            assert store.latest_good() is None
    assert all(isinstance(e, Corrupt | NotFound | ModelError) for e in errors), errors
    assert outside.read_bytes() == before
    with contextlib.suppress(Corrupt):
        assert all(release.path.parent == folder for release in store.all())
    return errors


@settings(FUZZ)
@given(CHANGES)
def test_an_index_that_says_anything_is_used_or_refused(lay, made, bounded, changes):
    index = json.loads(made["index.json"])
    for place, key, value in changes:
        if key in index:
            index[key] = value
        elif isinstance(index["releases"], list) and isinstance(entry := dict(enumerate(index["releases"])).get(place), dict):
            entry[key] = value
    with bounded():
        used(lay({"index.json": json.dumps(index).encode()}))


@settings(FUZZ)
@given(st.sampled_from(["index.json", "000000.onnx", "000001.onnx", "000001.state"]), EDITS)
def test_a_damaged_file_is_refused_and_the_releases_that_are_whole_serve(lay, made, bounded, damage, name, edits):
    data = damage(made[name], edits)
    store = lay({name: data})
    with bounded():
        if name != "index.json" and data != made[name]:
            good = {"000000.onnx": 1, "000001.onnx": 0}.get(name, 0)
            assert store.latest_good().number == good
        used(store)


@settings(FUZZ)
@given(EDITS)
def test_a_damaged_model_that_nobody_checked_opens_and_runs_or_is_a_model_error(lay, made, bounded, damage, edits):
    store = lay({"000001.onnx": damage(made["000001.onnx"], edits)})
    with bounded(), contextlib.suppress(RiverdeltaError):
        Session(store.registry.folder / "releases" / "000001.onnx", State(0, 0, 0), providers=["CPUExecutionProvider"])


@settings(FUZZ)
@given(REFERENCES, st.none() | st.lists(SIZES, max_size=3))
def test_weights_of_a_release_that_lie_elsewhere_are_never_read(lay, made, bounded, tmp_path, reference, dims):
    model = onnx.load_from_string(made["000001.onnx"])
    tensor = next(t for t in model.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        entry.value = str(reference.get(entry.key, entry.value))
    tensor.dims[:] = tensor.dims if dims is None else dims
    store = lay({"000001.onnx": model.SerializeToString()})
    path, scored = store.registry.folder / "releases" / "000001.onnx", None
    (store.registry.folder / "releases" / "link").symlink_to(store.registry.folder / "outside")
    with bounded():
        with contextlib.suppress(RiverdeltaError):
            scored = Session(path, State(0, 0, 0), providers=["CPUExecutionProvider"]).run(X)
        with contextlib.suppress(RiverdeltaError):
            export(path, tmp_path / "single.onnx")
    if reference.get("location") in ("../outside", "OUTSIDE", "link", "/dev/zero"):
        assert scored is None
        assert not (tmp_path / "single.onnx").exists()
