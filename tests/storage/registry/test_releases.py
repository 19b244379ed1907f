"""Releases: the index alone makes a file a release, and what is damaged is refused."""

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt, NotFound
from riverdelta.storage.registry import FolderRegistry, ReleaseStore


@pytest.fixture
def store(tmp_path):
    """Three releases over one file of shared weights."""
    store = ReleaseStore(FolderRegistry(tmp_path))
    folder(store).mkdir()
    (folder(store) / "base-0123.bin").write_bytes(b"weights")
    for _ in range(3):
        release(store)
    return store


def folder(store):
    return store.registry.path("releases")


def release(store):
    number, path = store.next_path()
    path.write_bytes(f"model {number}".encode())
    facts, state = {"auc": 0.8}, {"stack/a": np.full(3, number)}
    return store.add(number, path, position=10 * number, examples=number, time=100.0 + number, facts=facts, state=state)


def test_a_release_is_numbered_from_zero_and_kept_with_its_facts_and_state(store):
    assert [r.number for r in store.all()] == [0, 1, 2]
    last = store.get(2)
    assert store.state(last)["stack/a"].tolist() == [2, 2, 2]
    assert (last.number, last.path.name, last.position, last.examples, last.time) == (2, "000002.onnx", 20, 2, 102.0)
    assert last.facts == {"auc": 0.8}
    assert last.verify() == last.path
    assert store.get(1).path.read_bytes() == b"model 1"


def test_another_process_sees_the_same(store):
    assert ReleaseStore(store.registry).all() == store.all()


def test_an_empty_store_has_no_release(tmp_path):
    store = ReleaseStore(FolderRegistry(tmp_path))
    assert (store.all(), store.champion(), store.latest_good()) == ([], None, None)
    assert store.next_path() == (0, tmp_path / "releases" / "000000.onnx")


def test_a_release_that_does_not_exist_is_named_with_those_that_do(store):
    with pytest.raises(NotFound, match="there is no release 7; there are: 0, 1, 2"):
        store.get(7)


def test_the_first_release_is_the_champion_until_another_is_promoted(store):
    assert store.champion().number == 0
    store.promote(2)
    store.promote(1)
    store.promote(1)
    assert ReleaseStore(store.registry).champions() == [0, 2, 1]
    with pytest.raises(NotFound, match="no release 9"):
        store.promote(9)


def test_a_verdict_is_kept_with_its_release(store):
    store.judge(1, {"verdict": "rejected"})
    store.judge(9, {"verdict": "rejected"})
    assert store.get(1).facts == {"auc": 0.8, "verdict": "rejected"}


def test_a_damaged_state_is_named(store):
    store.get(1).state_path.write_bytes(b"short")
    with pytest.raises(Corrupt, match=r"000001.state cannot be used: its 5 bytes do not match"):
        store.state(store.get(1))
    store.get(1).state_path.unlink()
    with pytest.raises(Corrupt, match=r"000001.state cannot be used: .*No such file"):
        store.state(store.get(1))


def test_a_damaged_release_is_refused_by_name_and_the_last_good_one_serves(store, caplog):
    store.promote(2)
    (folder(store) / "000002.onnx").write_bytes(b"model X")
    with pytest.raises(Corrupt, match=r"release 2: .*000002.onnx does not match its digest; the release is refused"):
        store.champion().verify()
    assert store.latest_good().number == 0
    assert store.intact().number == 1
    (folder(store) / "000000.onnx").write_bytes(b"model X")
    assert store.latest_good().number == 1
    (folder(store) / "000001.onnx").unlink()
    assert store.latest_good() is None
    with pytest.raises(Corrupt, match=r"no release in .*releases is intact; restore one from a backup"):
        store.intact()
    with pytest.raises(Corrupt, match="release 1 cannot be read"):
        store.intact(1)
    assert "release 1 cannot be read" in caplog.text


def test_damaged_shared_weights_are_refused_by_name(store):
    (folder(store) / "base-0123.bin").write_bytes(b"weightz")
    with pytest.raises(Corrupt, match=r"base-0123.bin does not match its digest"):
        store.champion().verify()
    assert store.latest_good() is None


def test_a_file_without_an_entry_is_no_release_and_is_written_again(store):
    number, path = store.next_path()
    path.write_bytes(b"half")
    assert [r.number for r in store.all()] == [0, 1, 2]
    assert release(store).number == number
    assert store.get(3).path.read_bytes() == b"model 3"


def names(store):
    return {path.name for path in folder(store).iterdir()} - {"base-0123.bin", "index.json", "index.copy.json"}


def test_only_the_newest_the_champion_and_the_spared_are_kept(store):
    for _ in range(3):
        release(store)
    store.promote(1)
    store.sweep(keep=2, max_bytes=10**9, spare=[2])
    assert [r.number for r in store.all()] == [1, 2, 4, 5]
    assert names(store) == {f"00000{n}.{kind}" for n in (1, 2, 4, 5) for kind in ("onnx", "state")}
    assert store.champions() == [1]
    assert release(store).number == 6


def test_too_many_bytes_cost_the_oldest_but_never_the_champion_nor_the_newest(store):
    store.promote(0)
    store.sweep(keep=8, max_bytes=store.bytes() - 1)
    assert [r.number for r in store.all()] == [0, 2]
    store.sweep(keep=8, max_bytes=1)
    assert [r.number for r in store.all()] == [0, 2]


def test_a_damaged_index_of_which_nothing_is_left_is_named(store):
    for name in ("index.json", "index.copy.json"):
        (folder(store) / name).write_text('{"releases": [')
    with pytest.raises(Corrupt, match=r"index.json is not valid JSON: .*no release can be read; restore it"):
        store.all()


@pytest.mark.parametrize("full", ["000003.state", "index.json"])
def test_a_release_that_fails_leaves_nothing_however_often_it_is_tried(store, monkeypatch, full):
    before, write = names(store), store.registry.write

    def fail(name, *pieces, durable=True):
        if name.endswith(full):
            raise OSError(28, "No space left on device")
        write(name, *pieces, durable=durable)

    monkeypatch.setattr(store.registry, "write", fail)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            release(store)
        assert names(store) == before
    monkeypatch.undo()
    assert release(store).number == 3


def test_what_a_killed_process_left_goes_with_the_next_sweep_and_nothing_else(store):
    for name in ("000007.onnx", "000007.state", "mine.onnx", "000001 copy.onnx"):
        (folder(store) / name).write_bytes(b"model")
    store.sweep(keep=8, max_bytes=10**9)
    kept = {f"00000{n}.{kind}" for n in range(3) for kind in ("onnx", "state")}
    assert names(store) == kept | {"mine.onnx", "000001 copy.onnx"}
