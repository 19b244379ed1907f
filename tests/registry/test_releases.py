"""Releases: the index alone makes a file a release, and what is damaged is refused."""

import pytest

from riverdelta.errors import Corrupt, NotFound
from riverdelta.registry import ReleaseStore


@pytest.fixture
def store(tmp_path):
    """Three releases over one file of shared weights."""
    store = ReleaseStore(tmp_path / "releases")
    (store.folder / "base-0123.bin").write_bytes(b"weights")
    for _ in range(3):
        release(store)
    return store


def release(store):
    number, path = store.next_path()
    path.write_bytes(f"model {number}".encode())
    return store.add(number, path, position=10 * number, examples=number, time=100.0 + number, facts={"auc": 0.8})


def test_a_release_is_numbered_from_zero_kept_with_its_facts_and_the_champion(store):
    assert [r.number for r in store.all()] == [0, 1, 2]
    last = store.champion()
    assert (last.number, last.path.name, last.position, last.examples, last.time) == (2, "000002.onnx", 20, 2, 102.0)
    assert last.facts == {"auc": 0.8}
    assert last.verify() == last.path
    assert store.get(1).path.read_bytes() == b"model 1"


def test_another_process_sees_the_same(store):
    assert ReleaseStore(store.folder).all() == store.all()


def test_an_empty_store_has_no_release(tmp_path):
    store = ReleaseStore(tmp_path)
    assert (store.all(), store.champion(), store.latest_good()) == ([], None, None)
    assert store.next_path() == (0, tmp_path / "000000.onnx")


def test_a_release_that_does_not_exist_is_named_with_those_that_do(store):
    with pytest.raises(NotFound, match="there is no release 7; there are: 0, 1, 2"):
        store.get(7)


def test_a_damaged_release_is_refused_by_name_and_the_last_good_one_serves(store, caplog):
    (store.folder / "000002.onnx").write_bytes(b"model X")
    with pytest.raises(Corrupt, match=r"release 2: .*000002.onnx does not match its digest; it is refused"):
        store.champion().verify()
    (store.folder / "000001.onnx").unlink()
    assert store.latest_good().number == 0
    assert "release 1 cannot be read" in caplog.text


def test_damaged_shared_weights_are_refused_by_name(store):
    (store.folder / "base-0123.bin").write_bytes(b"weightz")
    with pytest.raises(Corrupt, match=r"base-0123.bin does not match its digest"):
        store.champion().verify()
    assert store.latest_good() is None


def test_a_file_without_an_entry_is_no_release_and_is_written_again(store):
    number, path = store.next_path()
    path.write_bytes(b"half")
    assert store.champion().number == 2
    assert release(store).number == number
    assert store.latest_good().path.read_bytes() == b"model 3"


def test_only_the_newest_are_kept(store):
    store.sweep(keep=2)
    assert [r.number for r in store.all()] == [1, 2]
    assert sorted(p.name for p in store.folder.iterdir()) == ["000001.onnx", "000002.onnx", "base-0123.bin", "index.json"]
    assert release(store).number == 3


def test_a_damaged_index_is_named(store):
    (store.folder / "index.json").write_text('{"releases": [')
    with pytest.raises(Corrupt, match=r"index.json is no JSON: .*; restore it"):
        store.all()
