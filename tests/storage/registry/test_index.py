"""Index: without its file the releases are still known, from its copy or else from the releases themselves."""

import json

import numpy as np
import onnx
import pytest

from riverdelta import Calibration
from riverdelta.core.arrays import nest, pack
from riverdelta.core.errors import Corrupt
from riverdelta.core.features import Schema
from riverdelta.corrections.stack import Stack
from riverdelta.graph.files import save
from riverdelta.graph.merge import merge
from riverdelta.graph.signature import Signature
from riverdelta.storage.registry import FolderRegistry, ReleaseStore

BASE = """<ir_version: 8, opset_import: ["" : 17]> ranker (float[N, 1] x) => (float[N, 1] y)
<float[1, 1] w = {0.5}> { y = MatMul(x, w) }"""
LOST = ["deleted", "damaged"]


@pytest.fixture
def store(tmp_path):
    """Three releases, of which the second is the champion and the third was rejected."""
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "base.onnx")
    signature, stack = Signature.read(tmp_path / "base.onnx", "y"), Stack([Calibration()])
    stack.bind(Schema())
    made = ReleaseStore(FolderRegistry(tmp_path / "home"))
    for count in range(3):
        number, path = made.next_path()
        facts = {"position": str(9 * count), "examples": str(count), "loss_served": "0.25", "loss_base": "None"}
        save(merge(signature, stack, {}, Schema(), provenance=facts if count else None), signature, path)
        made.add(number, path, 9 * count, count, 100.0, {"loss_served": 0.25}, nest({"stack": stack.state()}))
    made.promote(1)
    made.judge(2, {"verdict": "rejected"})
    return made


def lose(store, how, *names):
    for name in names:
        path = store.registry.path(f"releases/{name}")
        path.unlink() if how == "deleted" else path.write_bytes(path.read_bytes()[:-9])


def champion_of_checkpoint(store, number):
    numbers = np.array([-1, 2, number, number], np.int64)
    store.registry.write("checkpoints/000000000000009.checkpoint", *pack({"contest/numbers": numbers}))


@pytest.mark.parametrize("how", LOST)
def test_a_lost_index_is_read_from_its_copy_and_nothing_is_lost(store, caplog, how):
    before, champions = store.all(), store.champions()
    lose(store, how, "index.json")
    reader = ReleaseStore(store.registry)
    assert (reader.all(), reader.champions(), reader.next_path()[0]) == (before, champions, 3)
    assert caplog.text.count("index.copy.json is used, and nothing is lost") == 1
    assert "index.json is missing" in caplog.text or "index.json is not valid JSON" in caplog.text


@pytest.mark.parametrize("how", LOST)
def test_without_a_copy_too_the_releases_are_listed_from_their_files_and_the_log_says_what_is_lost(store, caplog, how):
    before = store.all()
    champion_of_checkpoint(store, 1)
    lose(store, how, "index.json", "index.copy.json")
    reader = ReleaseStore(store.registry)
    found = reader.all()
    for was, made in zip(before, found, strict=True):
        for name in ("number", "path", "digest", "position", "examples", "shared", "state_digest"):
            assert getattr(made, name) == getattr(was, name), name
        assert made.facts == ({"loss_served": 0.25} if made.number else {})
    assert (reader.champions(), reader.latest_good().number) == ([0, 1], 1)
    assert (
        "releases 0, 1, 2 are listed again from their files, with release 1 as the champion; lost are the verdicts"
        in caplog.text
    )


def test_only_the_owner_writes_it_again(store):
    index = store.registry.path("releases/index.json")
    lose(store, "deleted", "index.json")
    ReleaseStore(store.registry).all()
    assert not index.exists()
    ReleaseStore(store.registry, owner=True).all()
    assert json.loads(index.read_text())["champions"] == [0, 1]


def test_a_release_whose_model_or_state_is_damaged_is_left_out_and_named(store, caplog):
    lose(store, "damaged", "index.json", "index.copy.json", "000002.state")
    lose(store, "deleted", "000001.onnx")
    reader = ReleaseStore(store.registry)
    assert [release.number for release in reader.all()] == [0]
    assert reader.champions() == [0]
    assert "release 2 is left out: " in caplog.text
    assert "000002.state" in caplog.text


def test_a_release_is_added_to_a_rebuilt_index_once_and_no_other_is_deleted(store):
    lose(store, "deleted", "index.json", "index.copy.json")
    number, path = store.next_path()
    path.write_bytes(store.get(2).path.read_bytes())
    store.add(number, path, 30, 4, 200.0, {}, {"stack/a": np.zeros(1)})
    store.sweep(keep=8, max_bytes=10**9)
    assert [release.number for release in store.all()] == [0, 1, 2, 3]
    assert store.get(3).examples == 4


def test_a_folder_whose_releases_can_all_not_be_read_is_named_and_not_taken_for_a_new_one(store):
    lose(store, "deleted", "index.json", "index.copy.json", *(f"00000{n}.state" for n in range(3)))
    with pytest.raises(Corrupt, match=r"index.json is missing, and no release can be read; restore it from a backup"):
        store.all()


def test_the_first_file_of_a_first_start_that_was_killed_is_no_release(store):
    lose(store, "deleted", "index.json", "index.copy.json", *(f"00000{n}.{kind}" for n in (1, 2) for kind in ("onnx", "state")))
    lose(store, "deleted", "000000.state")
    assert store.all() == []
