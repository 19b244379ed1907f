"""The laws of a registry: functions of two holds on a new one, which raise `LawBroken` with what they found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from riverdelta.checks.law import equal, laws_of, refused
from riverdelta.storage.checkpoints import CheckpointStore
from riverdelta.storage.registry import Delta, LiveStore, Registry, Release, ReleaseStore, State


def files_come_back_as_they_were_written(one: Registry, two: Registry) -> None:
    """Every hold reads the bytes that were written last, with their size and name, and nothing that was deleted."""
    equal("names in an empty registry", two.names("live"), [])
    written = {"live/b": (b"new ", bytes(1000)), "live/a": (b"",), "checkpoints/a": (b"other",)}
    one.write("live/b", b"old and much longer" * 100)
    for durable in (True, False):
        for name, pieces in written.items():
            one.write(name, *pieces, durable=durable)
            equal(f"{name} in the other hold", two.read(name), b"".join(pieces))
            equal(f"the size of {name}", two.size(name), len(b"".join(pieces)))
    equal("names", (two.names("live"), two.names("checkpoints")), (["live/a", "live/b"], ["checkpoints/a"]))
    for _ in range(2):
        one.delete("live/b")
    equal("names after one was deleted", (two.names("live"), two.size("live/b")), (["live/a"], 0))
    with refused("a file that was deleted", FileNotFoundError):
        two.read("live/b")


def models_are_files_on_this_machine(one: Registry, two: Registry) -> None:
    """A model that is written at the path of a name is a file of its part, which every hold finds."""
    path = one.path("releases/000000.onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"model")
    equal("a model", (two.path("releases/000000.onnx").read_bytes(), two.size("releases/000000.onnx")), (b"model", 5))
    equal("names", two.names("releases"), ["releases/000000.onnx"])
    equal("the folder of two names", two.path("releases/base.bin").parent, path.parent)
    one.delete("releases/000000.onnx")
    equal("whether a deleted model is there", (path.exists(), two.names("releases")), (False, []))


def releases_and_their_champion_stay(one: Registry, two: Registry) -> None:
    """Every hold has the same releases, states, facts and champions; retention deletes releases that never were champion."""
    mine, theirs = ReleaseStore(one), ReleaseStore(two)
    for number in range(4):
        _release(mine)
        equal("the newest release in the other hold", [r.number for r in theirs.all()], list(range(number + 1)))
    mine.promote(1)
    mine.judge(2, {"verdict": "rejected"})
    champion = theirs.champion()
    equal("the champions", (theirs.champions(), champion and champion.number), ([0, 1], 1))
    equal("facts", theirs.get(2).facts, {"auc": 0.5, "verdict": "rejected"})
    for release in theirs.all():
        state = theirs.state(release)["stack/a"]
        equal("a state and its model", (state.tolist(), release.verify().read_bytes()), ([release.number] * 3, b"model"))
    mine.sweep(keep=1, max_bytes=1 << 40)
    equal("what retention left", ([r.number for r in theirs.all()], theirs.champions()), ([1, 3], [1]))


def live_tables_follow_each_other(one: Registry, two: Registry) -> None:
    """A reader gets every delta once, bit for bit and in order; a new reader gets the newest tables."""
    mine, theirs = LiveStore(one), LiveStore(two)
    table, base, at = np.zeros((50, 2), np.float32), None, None
    followed = np.zeros_like(table)
    for swap in range(1, 40):
        state, rows = State(0, swap, 10 * swap), np.unique([swap % 50, 7 * swap % 50])
        table[rows] = np.float32(1 / swap)
        full = base is None or mine.needs_whole()
        mine.publish(Delta(state, None if full else base, {"t": (None, table) if full else (rows, table[rows])}))
        base = state
        for delta in theirs.follow(at) if swap % 3 == 0 else []:
            at_rows, values = delta.tables["t"]
            followed[slice(None) if at_rows is None else at_rows] = values
            at = delta.state
        if swap % 3 == 0:
            equal(f"the tables at swap {swap}", (at, theirs.head(), followed.tobytes()), (state, state, table.tobytes()))
    equal("the state of a new reader", LiveStore(two).follow(None)[-1].state, base)


def the_newest_checkpoint_is_loaded(one: Registry, two: Registry) -> None:
    """The newest checkpoint is loaded to the last bit, and the one before it is kept."""
    mine, theirs = CheckpointStore(one), CheckpointStore(two)
    for position in (5, 10, 20):
        arrays = {"a": np.full(3, position), "empty": np.empty((0, 2), np.float32)}
        mine.save(position, arrays)
        found = theirs.load()
        known = found and (found.position, {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.arrays.items()})
        equal("the newest", known, (position, {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}))
    equal("the oldest that is kept", theirs.oldest(), 10)


LAWS = laws_of(globals())


def in_a_folder(open_registry: Callable[[Path], Registry], law: Callable[..., None]) -> None:
    """Check one law of the registry that `open_registry` opens in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checked"
        law(open_registry(place), open_registry(place))


def _release(store: ReleaseStore) -> Release:
    number, path = store.next_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"model")
    state = {"stack/a": np.full(3, number)}
    return store.add(number, path, position=number, examples=0, time=0.0, facts={"auc": 0.5}, state=state)
