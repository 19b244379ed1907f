"""A checkpoint is whole or not there, and a damaged one gives way to the one before it."""

import os

import numpy as np
import pytest

from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.registry import FolderRegistry


def arrays(value):
    return {
        "weights": np.full((3, 2), value, np.float32),
        "mask": np.array([True, False]),
        "position": np.array([value], np.int64),
        "nothing": np.empty((0, 4)),
        "part": np.arange(10)[::2],
    }


def value_of(checkpoint):
    return int(checkpoint.arrays["position"][0])


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(FolderRegistry(tmp_path))
    store.save(10, arrays(10))
    store.save(20, arrays(20))
    return store


def files(store):
    return sorted(path.name for path in store.registry.path("checkpoints").iterdir())


def test_what_was_saved_is_loaded_to_the_last_bit(store):
    loaded = store.load()
    assert (loaded.position, loaded.path.name) == (20, "000000000000020.checkpoint")
    for name, array in arrays(20).items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)


def test_before_the_first_there_is_none(tmp_path):
    store = CheckpointStore(FolderRegistry(tmp_path))
    assert store.load() is None
    assert store.oldest() == 0


def test_the_last_two_are_kept_and_the_journal_may_let_go_of_what_is_behind_both(store):
    assert store.oldest() == 10
    store.save(30, arrays(30))
    assert files(store) == ["000000000000020.checkpoint", "000000000000030.checkpoint"]
    assert store.oldest() == 20


def test_with_one_checkpoint_the_journal_keeps_everything(tmp_path):
    store = CheckpointStore(FolderRegistry(tmp_path))
    store.save(10, arrays(10))
    assert store.oldest() == 0


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"\xff" + b[41:], lambda b: b[:16]])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(store, caplog, damage):
    path = store.registry.path("checkpoints") / "000000000000020.checkpoint"
    path.write_bytes(damage(path.read_bytes()))
    assert value_of(store.load()) == 10
    assert "000000000000020.checkpoint cannot be used" in caplog.text


def test_with_none_whole_there_is_none(store):
    for path in store.registry.path("checkpoints").iterdir():
        path.write_bytes(b"x" * 100)
    assert store.load() is None


def test_one_saved_after_damage_is_not_taken_for_older_than_the_damaged_ones(store):
    for path in store.registry.path("checkpoints").iterdir():
        path.write_bytes(b"x" * 100)
    store.save(5, arrays(5))
    assert value_of(store.load()) == 5
    store.save(15, arrays(15))
    assert files(store) == ["000000000000005.checkpoint", "000000000000015.checkpoint"]


def test_a_save_that_is_cut_off_leaves_the_ones_before_it(store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(30, arrays(30))
    assert files(store) == ["000000000000010.checkpoint", "000000000000020.checkpoint"]
    assert value_of(store.load()) == 20


def test_half_a_file_that_a_killed_process_left_is_passed_over(store):
    (store.registry.path("checkpoints") / ".000000000000030.checkpoint.x.tmp").write_bytes(b"half")
    assert value_of(store.load()) == 20
    store.save(30, arrays(30))
    assert value_of(store.load()) == 30
