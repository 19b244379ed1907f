"""Readers reach the newest tables by the chain, whatever is missing, damaged or being written."""

import threading
from pathlib import Path

import numpy as np
import pytest

from riverdelta.storage.registry import Delta, FolderRegistry, LiveStore, State

ROWS = 50


class Sidecar:
    """Publishes a table that counts upwards: each swap sets a few rows to the swap's number."""

    def __init__(self, folder):
        self.store, self.table = LiveStore(FolderRegistry(folder)), np.zeros((ROWS, 1), np.float32)
        self.state = self.store.head()
        self.base = None

    def publish(self, whole=None):
        swap = self.state.swap + 1 if self.state else 1
        state = State(1, swap, 10 * swap)
        rows = np.array([swap % ROWS, 7 * swap % ROWS])
        self.table[rows] = swap
        whole = (self.base is None or self.store.needs_whole()) if whole is None else whole
        tables = {"t": (None, self.table.copy()) if whole else (np.unique(rows), self.table[np.unique(rows)])}
        self.store.publish(Delta(state, None if whole else self.base, tables, np.array([float(swap)])))
        self.state = self.base = state
        return state


class Worker:
    """Follows like a scorer and refuses a delta that does not apply."""

    def __init__(self, folder):
        self.store, self.table, self.state = LiveStore(FolderRegistry(folder)), np.full((ROWS, 1), -1, np.float32), None
        self.swaps = []

    def follow(self):
        deltas = self.store.follow(self.state)
        for delta in deltas:
            rows, values = delta.tables["t"]
            if delta.base is None:
                self.table = values.copy()
            else:
                assert delta.base == self.state
                self.table[rows] = values
            self.state = delta.state
            self.swaps.append(delta.state.swap)
        return len(deltas)


@pytest.fixture
def sidecar(tmp_path):
    return Sidecar(tmp_path)


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


def test_before_the_first_there_is_nothing(worker):
    assert worker.store.head() is None
    assert worker.follow() == 0


def test_a_reader_gets_every_delta_once_and_the_same_tables(sidecar, worker):
    for _ in range(10):
        sidecar.publish()
        worker.follow()
        assert worker.follow() == 0
        assert np.array_equal(worker.table, sidecar.table)
    assert worker.swaps == list(range(1, 11))
    assert worker.store.head() == State(1, 10, 100)


def test_a_reader_that_missed_some_or_just_started_catches_up(sidecar, worker, tmp_path):
    sidecar.publish()
    worker.follow()
    for _ in range(5):
        sidecar.publish(whole=False)
    for reader in (worker, Worker(tmp_path)):
        assert reader.follow() > 0
        assert np.array_equal(reader.table, sidecar.table)


def test_a_reader_whose_next_delta_was_dropped_starts_over_with_the_whole(sidecar, worker):
    sidecar.publish()
    worker.follow()
    for whole in (False, True, False, True, False):
        sidecar.publish(whole)
    worker.follow()
    assert worker.swaps == [1, 5, 6]
    assert np.array_equal(worker.table, sidecar.table)


def test_a_whole_is_asked_for_when_the_deltas_outweigh_it_and_drops_what_nobody_reads(sidecar, tmp_path):
    for _ in range(300):
        sidecar.publish()
    wholes = [
        d.state.swap for p in sorted(tmp_path.glob("live/*.live")) if (d := Delta.decode(p.read_bytes(), "it")).base is None
    ]
    assert len(wholes) == 2
    assert len(list((tmp_path / "live").iterdir())) < 100


def test_a_damaged_delta_is_logged_once_and_its_readers_wait_for_the_next_whole(sidecar, worker, tmp_path, caplog):
    sidecar.publish()
    worker.follow()
    for _ in range(3):
        sidecar.publish(whole=False)
    path = tmp_path / "live" / "000000000003.live"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for _ in range(3):
        worker.follow()
    sidecar.publish(whole=False)
    assert worker.follow() == 0
    assert worker.swaps == [1, 2]
    assert caplog.text.count("000000000003.live cannot be used: its") == 1
    sidecar.publish(whole=True)
    assert worker.follow() == 1
    assert np.array_equal(worker.table, sidecar.table)


def test_a_damaged_whole_leaves_a_new_reader_where_it_is_until_the_next(sidecar, worker, tmp_path):
    sidecar.publish()
    path = tmp_path / "live" / "000000000001.live"
    path.write_bytes(b"")
    assert worker.follow() == 0
    sidecar.publish(whole=False)
    assert worker.follow() == 0
    sidecar.publish(whole=True)
    worker.follow()
    assert np.array_equal(worker.table, sidecar.table)


@pytest.mark.parametrize("content", [b"", bytes(32), bytes(48), b"x" * 48, None])
def test_without_an_intact_head_readers_follow_the_files_and_the_next_sidecar_goes_on_counting(
    sidecar, worker, tmp_path, content
):
    for _ in range(4):
        sidecar.publish(whole=False if sidecar.base else None)
    head = tmp_path / "live" / "head"
    head.write_bytes(content) if content is not None else head.unlink()
    assert (worker.follow(), worker.follow()) == (4, 0)
    again = Sidecar(tmp_path)
    assert again.state == State(1, 4, 40)
    again.publish()
    worker.follow()
    assert worker.swaps == [1, 2, 3, 4, 5]
    assert np.array_equal(worker.table, again.table)


def test_a_restarted_sidecar_s_whole_reaches_readers_that_go_on(sidecar, worker, tmp_path):
    for _ in range(3):
        sidecar.publish()
    worker.follow()
    again = Sidecar(tmp_path)
    again.publish()
    worker.follow()
    assert worker.state.swap == 4
    assert np.array_equal(worker.table, again.table)


def test_a_number_out_of_turn_or_a_base_that_is_not_live_is_refused(sidecar):
    state = sidecar.publish()
    table = {"t": (None, np.ones((1, 1), np.float32))}
    with pytest.raises(ValueError, match="swap 5 is published after 1; expected 2"):
        sidecar.store.publish(Delta(State(1, 5, 0), None, table))
    with pytest.raises(ValueError, match="expected a full delta"):
        sidecar.store.publish(Delta(State(1, 2, 0), State(0, 1, 10), table))
    assert sidecar.store.head() == state


def test_readers_beside_a_writer_never_see_anything_but_whole_states(sidecar, tmp_path):
    stop, failures = threading.Event(), []
    history = {}

    def read():
        worker = Worker(tmp_path)
        try:
            while not stop.is_set() or worker.follow():
                if worker.follow():
                    assert np.array_equal(worker.table, history[worker.state.swap])
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    publish = sidecar.store.publish
    sidecar.store.publish = lambda delta: (history.__setitem__(delta.state.swap, sidecar.table.copy()), publish(delta))
    for _ in range(400):
        sidecar.publish()
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


@pytest.mark.parametrize("full", ["2.live", "head"])
def test_a_swap_that_fails_leaves_no_copy_however_often_it_is_tried(sidecar, worker, tmp_path, monkeypatch, full):
    sidecar.publish()
    size = sum(path.stat().st_size for path in (tmp_path / "live").iterdir())
    write = Path.write_bytes

    def fail(path, data):
        if f"{full}.tmp" in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            sidecar.publish(whole=True)
        paths = list((tmp_path / "live").iterdir())
        assert sum(path.stat().st_size for path in paths) <= 2 * size
        assert not [path for path in paths if path.suffix == ".tmp"]
    monkeypatch.undo()
    sidecar.publish(whole=True)
    worker.follow()
    assert np.array_equal(worker.table, sidecar.table)
