"""What may befall a learner's folder and clock: damaged state, a full disk inside any save, a read-only folder, lost time."""

import errno
import os
import stat
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from riverdelta.core.arrays import read_arrays, write_arrays
from riverdelta.core.errors import Corrupt
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar import trainer


def state(rig):
    """Everything that a checkpoint holds, but for the trial, which depends on which releases were kept."""
    found = rig.trainer.state().items()
    return {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in found if not n.startswith("contest/")}


def crash(rig):
    """As after a kill: nothing is saved, the lock is gone with the process."""
    rig.trainer.journal.close()
    rig.trainer._lock.release()


DAMAGE = {
    "a flipped bit": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "half of it": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_give_way_to_what_is_before_them_and_the_same_bits_come_of_it(rig, caplog, damage, damaged):
    for seed in range(4):
        rig.teach(64, seed)
        rig.step(rig.settings.checkpoint_seconds + 1)
    rig.teach(64, 4)
    rig.step(rig.settings.release_seconds + 1)
    rig.teach(64, 5)
    rig.step()
    whole = state(rig)
    crash(rig)
    older, newest = sorted((rig.trainer.home.folder / "checkpoints").iterdir())
    for path in [newest, older][:damaged]:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    rig.start()
    assert rig.trainer.learner.position == (int(older.stem) if damaged == 1 else 0)
    assert f"{newest} cannot be used" in caplog.text
    rig.step()
    assert state(rig) == whole
    assert len(rig.trainer.home.releases().all()) == 2


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_any_step_of_a_save_is_caught_up_with(rig, monkeypatch, call, nth):
    monkeypatch.setattr(trainer, "_PAUSE_SECONDS", 0.0)
    rig.teach(64)
    rig.step()
    real, calls = getattr(os, call), []

    def full(*given, **named):
        calls.append(given)
        if len(calls) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given, **named)

    with monkeypatch.context() as broken:
        broken.setattr(os, call, full)
        rig.teach(64, 1)
        rig.step(rig.settings.release_seconds + 1)
        # A release, its checkpoint and what is live: more calls than `nth`.
        assert len(calls) >= nth
        assert rig.plane.score(rig.columns(4, 9)).scores.shape == (4,)
    rig.step()
    assert rig.trainer.status()["paused"] is None
    for _ in range(2):  # a release that is asked for at the first is in the checkpoint of the second
        rig.step(rig.settings.checkpoint_seconds + 1)
    assert not rig.trainer.live.due(rig.trainer.learner.position)
    assert [r.number for r in rig.trainer.home.releases().all()] == [0, 1]
    assert not [path for path in rig.trainer.home.folder.rglob("*.tmp") if path.is_file()]
    whole = new_learner(rig.definition, rig.settings)
    for sequence, record in rig.trainer.journal.read(0, 10_000_000):
        whole.push(sequence, record)
    assert rig.trainer.learner.examples == whole.examples == 128
    assert rig.trainer.learner.stack.digest() == whole.stack.digest()
    assert rig.trainer.checkpoints.load().position == rig.trainer.learner.position


READ_ONLY = """
import os, sys
from pathlib import Path
import numpy, onnx
from riverdelta import Calibration
from riverdelta.serving.dataplane import DataPlane
from riverdelta.learning.definition import Definition
from riverdelta.core.errors import Unavailable
from riverdelta.core.settings import Settings
from riverdelta.sidecar import Trainer

definition = Definition("ranker", Path(sys.argv[1]), "logit", corrections=[Calibration()])
if os.getuid() == 0:
    os.setuid(65534)
for role in (Trainer, DataPlane):
    try:
        role(definition, Settings.load(home=Path(sys.argv[2]) / "home", grpc_port=0))
    except Unavailable as error:
        print(error)
"""


def test_a_learner_and_a_worker_whose_folder_may_not_be_written_name_it_and_leave_nothing(definition):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "ranker.onnx")
        with open(model, "wb") as file:
            file.write(definition.base.read_bytes())
        os.chmod(model, 0o444)
        os.chmod(folder, stat.S_IRUSR | stat.S_IXUSR | stat.S_IROTH | stat.S_IXOTH)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-c", READ_ONLY, model, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()
        assert len(said) == 2
        assert all(line.startswith(f"the folder {folder}/home/ranker cannot be written") for line in said)
        assert all("set RIVERDELTA_HOME" in line for line in said)
        assert os.listdir(folder) == ["ranker.onnx"]


@pytest.mark.parametrize("lost", [["index.json"], ["index.json", "index.copy.json"]])
@pytest.mark.parametrize("guard", ["live", "release"])
def test_a_lost_index_of_releases_is_written_again_while_the_learner_runs_and_at_its_start(
    make_rig, definition, tmp_path, guard, lost
):
    rig = make_rig(definition, tmp_path / "home", guard=guard)
    folder = rig.trainer.home.folder / "releases"
    for seed in range(3):
        rig.teach(64, seed)
        rig.step(rig.settings.release_seconds + 1)
    rig.trainer.contest.store.promote(2)
    rig.trainer.contest.champion = 2
    if guard == "release":
        rig.trainer._show_champion()
    rig.trainer.save()
    for restarted in (False, True):
        before = [(r.number, r.digest, r.position, r.examples) for r in rig.trainer.home.releases().all()]
        assert len(before) > 3
        serving = rig.trainer.contest.serving
        for name in lost:
            (folder / name).unlink()
        if restarted:
            crash(rig)
            rig.start()
        rig.step()
        assert (folder / "index.json").exists()
        store = rig.trainer.home.releases()
        assert [(r.number, r.digest, r.position, r.examples) for r in store.all()] == before
        assert (store.champion().number, rig.trainer.contest.serving, rig.trainer.paused) == (2, serving, None)
        rig.teach(64, 9)
        rig.step(rig.settings.release_seconds + 1)
        assert len(store.all()) == len(before) + 1


class TestAClockThatStepsBackAnHour:
    def test_learning_swaps_checkpoints_and_releases_go_on(self, rig):
        rig.teach(64)
        rig.step(rig.settings.release_seconds + 1)
        swap = rig.trainer.live.head.swap
        rig.now -= 3600
        rig.teach(64, 1)
        rig.step()
        assert rig.trainer.learner.examples == 128
        assert rig.trainer.live.head.swap > swap
        assert not rig.trainer.live.due(rig.trainer.learner.position)
        rig.plane.follower.follow()
        assert rig.plane.score(rig.columns(4, 9)).state.swap == rig.trainer.live.head.swap
        # What was due by the old clock is done at once, and from then on at its pace.
        releases, saved = len(rig.trainer.home.releases().all()), rig.trainer.checkpoints.load().position
        rig.teach(64, 2)
        rig.step(rig.settings.release_seconds + 1)
        assert len(rig.trainer.home.releases().all()) == releases + 1
        assert rig.trainer.checkpoints.load().position > saved

    @pytest.mark.parametrize("rig", [{"labels": "silence", "window_seconds": 60.0}], indirect=True)
    @pytest.mark.parametrize("restarted", [False, True])
    def test_silence_matures_after_its_window_all_the_same(self, rig, restarted):
        shown = np.full(16, np.nan, np.float32)
        rig.teach(labels=shown)
        rig.step()
        rig.now -= 3600
        if restarted:
            crash(rig)
            rig.start()
        rig.teach(seed=1, labels=shown)
        rig.step()
        rig.step(57.0)
        assert rig.trainer.learner.examples == 0
        rig.step(5.0)
        assert rig.trainer.learner.examples == 32


@pytest.mark.parametrize("name", ["settings", "joiner/counts", "contest/numbers", "adaptation/counts"])
def test_a_checkpoint_of_another_make_is_named_with_what_to_do(rig, name):
    rig.teach()
    rig.step(rig.settings.checkpoint_seconds + 1)
    crash(rig)
    path = sorted((rig.trainer.home.folder / "checkpoints").iterdir())[-1]
    write_arrays(path, {**read_arrays(path), name: np.array([7], np.uint8)})
    with pytest.raises(Corrupt, match=rf"{path.name} .*; move it away"):
        rig.start()
    path.unlink()
    rig.start()
