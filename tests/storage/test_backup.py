"""Backups: complete or not there, consistent while others write, and no id is issued again by whatever starts from one."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from riverdelta.cli.main import main
from riverdelta.core.errors import Corrupt, InvalidInput, NotFound, Unavailable
from riverdelta.core.locks import shared
from riverdelta.core.settings import Settings
from riverdelta.learning.commands import Release
from riverdelta.learning.learner import new_learner
from riverdelta.learning.service import load
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.backup import back_up
from riverdelta.storage.home import Home
from riverdelta.storage.registry import FolderRegistry, LiveStore

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig, definition

__all__ = ["definition"]


@contextmanager
def served(definition, home, **given):
    """A dataplane and a trainer on a home."""
    with closing(Rig(definition, home, **given)) as rig:
        yield rig


def replayed(definition, settings):
    """What a learner has learned that reads a home's journal from its start."""
    journal = Home(definition, settings).reader()
    learner = new_learner(definition, settings)
    learner.recall = Replayed(journal, learner.state())
    while records := journal.read(learner.position, 10_000):
        for sequence, record in records:
            learner.push(sequence, record)
    journal.close()
    return learner


def restore(backup, home, name="ranker"):
    home.mkdir()
    shutil.copytree(backup, home / name)


def scored(rig, rows=4, seed=0):
    answer = rig.plane.score(rig.columns(rows, seed))
    return [f"{answer.impressions}.{i}" for i in range(rows)]


def fed(rig, ids, label=1.0):
    return [str(o) for o in asyncio.run(rig.plane.feedback(ids, np.full(len(ids), label, np.float32))).outcomes]


class TestIds:
    """Whatever is restored, copied or moved: a label goes to the row that it was given for, or nowhere."""

    def test_a_restored_backup_issues_none_of_the_ids_given_out_after_it(self, definition, tmp_path):
        with served(definition, tmp_path / "home") as rig:
            before = scored(rig)
            assert fed(rig, before[:1]) == ["accepted"]
            back_up(rig.plane.home, tmp_path / "backup")
            after = [name for seed in range(30) for name in scored(rig, seed=seed)]
        restore(tmp_path / "backup", tmp_path / "again")
        with served(definition, tmp_path / "again") as rig:
            new = [name for seed in range(30) for name in scored(rig, seed=100 + seed)]
            assert not {*before, *after} & {*new}
            assert set(fed(rig, after)) == {"impression_lost"}
            rig.step()
            assert rig.trainer.learner.examples == 1
            assert fed(rig, before) == ["duplicate", *["accepted"] * 3]
            assert set(fed(rig, new)) == {"accepted"}
            rig.step()
            assert rig.trainer.learner.examples == 4 + len(new)

    def test_a_copy_that_runs_beside_the_original_issues_other_ids_and_takes_no_label_of_the_other_s(
        self, definition, tmp_path
    ):
        with served(definition, tmp_path / "home") as rig:
            scored(rig)
            back_up(rig.plane.home, tmp_path / "backup")
            restore(tmp_path / "backup", tmp_path / "again")
            with served(definition, tmp_path / "again") as other:
                ids = [[name for seed in range(20) for name in scored(each, seed=seed)] for each in (rig, other)]
                assert not {*ids[0]} & {*ids[1]}
                assert set(fed(rig, ids[1])) == set(fed(other, ids[0])) == {"impression_lost"}
                for each, own in zip((rig, other), ids, strict=True):
                    assert set(fed(each, own)) == {"accepted"}
                    each.step()
                    assert each.trainer.learner.examples == len(own)

    def test_a_folder_that_was_moved_goes_on_with_new_ids_and_knows_the_old_ones(self, definition, tmp_path):
        with served(definition, tmp_path / "home") as rig:
            old = scored(rig)
        (tmp_path / "home").rename(tmp_path / "moved")
        with served(definition, tmp_path / "moved") as rig:
            new = scored(rig)
            assert not {*old} & {*new}
            assert fed(rig, old) == fed(rig, new) == ["accepted"] * 4
            rig.step()
            assert rig.trainer.learner.examples == 8

    @pytest.mark.parametrize("clock", [1_000.0, 0.0, 1e9])
    def test_a_clock_that_was_set_anywhere_issues_no_id_again(self, definition, tmp_path, clock):
        ids = []
        for _ in range(2):
            with served(definition, tmp_path / "home") as rig:
                rig.now = clock
                ids += scored(rig)
                rig.now = clock - 500.0
                ids += scored(rig)
        assert len({*ids}) == len(ids)

    def test_the_place_in_the_journal_is_enough_where_randomness_repeats(self, tmp_path):
        from riverdelta.storage.journal import Journal
        from riverdelta.storage.log import SqliteLog

        made = []
        for _ in range(3):
            with closing(Journal(SqliteLog(tmp_path / "journal"), entropy=bytes)) as journal:
                made.append(journal.incarnation)
        assert made == [count << 40 for count in (1, 2, 3)]


class TestCopy:
    def test_what_was_accepted_is_there_and_learned_to_the_last_bit(self, definition, tmp_path):
        with served(definition, tmp_path / "home", release_examples=20, checkpoint_seconds=5.0) as rig:
            for seed in range(12):
                rig.teach(seed=seed)
                rig.step()
            rig.teach(seed=99)  # accepted, and not learned yet
            made = back_up(rig.plane.home, tmp_path / "backup")
            assert made.last == rig.plane.journal.last()
            assert made.bytes == sum(path.stat().st_size for path in made.folder.rglob("*") if path.is_file())
            rig.step()
            learned = rig.trainer.learner.stack.digest()
        restore(tmp_path / "backup", tmp_path / "again")
        with served(definition, tmp_path / "again", release_examples=20, checkpoint_seconds=5.0) as rig:
            assert 0 < rig.trainer.learner.position < made.last
            rig.step()
            rig.plane.follower.follow()
            assert rig.trainer.paused is None
            assert rig.trainer.learner.stack.digest() == learned
            assert rig.plane.session.state.position >= made.last
            assert [r.number for r in rig.plane.home.releases().all() if r.verify()]

    def test_it_holds_what_a_home_needs_and_the_keys_are_closed_to_others(self, definition, tmp_path):
        from riverdelta.storage.journal.ids import rotate_key

        with served(definition, tmp_path / "home") as rig:
            rotate_key(rig.plane.home.key_path, 0.0, 1e12)
            rig.teach()
            rig.step()
            back_up(rig.plane.home, tmp_path / "backup")
        found = {str(path.relative_to(tmp_path / "backup")) for path in (tmp_path / "backup").iterdir()}
        assert found == {"checkpoints", "definition.json", "journal", "live", "releases"}
        journal = tmp_path / "backup" / "journal"
        assert {path.name for path in journal.iterdir()} == {"000001.sqlite", "key", "key.previous"}
        assert [(journal / name).stat().st_mode & 0o777 for name in ("key", "key.previous")] == [0o600] * 2

    def test_tables_that_are_published_while_it_copies_are_in_the_copy_where_its_head_names_them(
        self, definition, tmp_path, monkeypatch
    ):
        copyfile = shutil.copyfile

        def publish_first(source, target):
            if Path(source).name == "head":
                rig.teach(seed=1)
                rig.step()
            return copyfile(source, target)

        with served(definition, tmp_path / "home") as rig:
            rig.teach()
            rig.step()
            before = rig.plane.home.live().head()
            monkeypatch.setattr(shutil, "copyfile", publish_first)
            back_up(rig.plane.home, tmp_path / "backup")
        live = LiveStore(FolderRegistry(tmp_path / "backup"))
        assert live.head().swap > before.swap
        assert live.follow(None)[-1].state == live.head()

    def test_retention_waits_while_a_journal_is_copied(self, definition, tmp_path):
        with served(definition, tmp_path / "home", segment_bytes=1) as rig:
            for seed in range(4):
                rig.teach(seed=seed)
            journal = rig.plane.journal
            with shared(rig.plane.home.folder / "journal" / "copying"):
                assert sum(journal.sweep(journal.last(), -1.0, 0, 1e12) for _ in range(3)) == 0
            assert sum(journal.sweep(journal.last(), -1.0, 0, 1e12) for _ in range(3)) > 0

    def test_a_destination_inside_the_home_is_refused_and_the_copy_is_for_its_owner_alone(self, definition, tmp_path):
        with served(definition, tmp_path / "home") as rig:
            for inside in ("backup", "journal/backup"):
                with pytest.raises(InvalidInput, match="name a folder elsewhere"):
                    back_up(rig.plane.home, rig.plane.home.folder / inside)
            back_up(rig.plane.home, tmp_path / "backup")
        assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700

    def test_a_destination_that_exists_is_refused_and_stays_as_it_is(self, definition, tmp_path):
        (tmp_path / "backup").mkdir()
        with served(definition, tmp_path / "home") as rig, pytest.raises(InvalidInput, match="backup exists; name a folder"):
            back_up(rig.plane.home, tmp_path / "backup")
        assert not list((tmp_path / "backup").iterdir())

    @pytest.mark.parametrize("broken", ["shutil.copyfile", "os.fsync", "os.replace"])
    def test_after_an_error_nothing_is_left_and_the_next_one_succeeds(self, definition, tmp_path, monkeypatch, broken):
        (tmp_path / "there").mkdir()
        with served(definition, tmp_path / "home") as rig:
            with monkeypatch.context() as patched:

                def full(*_):
                    raise OSError(28, "No space left on device")

                patched.setattr(broken, full)
                with pytest.raises(Unavailable, match=r"cannot be copied to .*there/backup: .*No space left"):
                    back_up(rig.plane.home, tmp_path / "there" / "backup")
            assert not list((tmp_path / "there").iterdir())
            back_up(rig.plane.home, tmp_path / "there" / "backup")

    def test_a_damaged_segment_is_named(self, definition, tmp_path):
        with served(definition, tmp_path / "home") as rig:
            home = rig.plane.home
        (home.folder / "journal" / "000001.sqlite").write_bytes(b"no database at all" * 100)
        with pytest.raises(Corrupt, match=r"home/ranker/journal/000001.sqlite is damaged"):
            back_up(home, tmp_path / "backup")
        assert not (tmp_path / "backup").exists()

    def test_a_release_that_the_home_itself_lacks_is_left_out(self, definition, tmp_path):
        with served(definition, tmp_path / "home") as rig:
            rig.teach()
            rig.step()
            Operator(rig.trainer.home, rig.trainer.journal).ask(Release())
            rig.step()
            rig.plane.home.releases().all()[-1].state_path.unlink()
            back_up(rig.plane.home, tmp_path / "backup")
            names = [sorted(p.name for p in (f / "releases").iterdir()) for f in (rig.plane.home.folder, tmp_path / "backup")]
        assert names[0] == names[1]

    def test_a_folder_without_a_home_and_one_without_a_parent_are_named(self, definition, tmp_path):
        home = Home(definition, Settings.load(home=tmp_path / "nothing"))
        with pytest.raises(NotFound, match=r"nothing/ranker is not the home of a scorer; start the service once"):
            back_up(home, tmp_path / "backup")
        assert not (tmp_path / "nothing").exists()
        with served(definition, tmp_path / "home") as rig, pytest.raises(Unavailable, match=r"that .*missing exists"):
            back_up(rig.plane.home, tmp_path / "missing" / "backup")


LIFE = """
import asyncio, json, os, sys
from pathlib import Path
import numpy as np
from prometheus_client import CollectorRegistry
from riverdelta import Calibration, Entity
from riverdelta.serving.dataplane import DataPlane
from riverdelta.learning.definition import Definition
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.sidecar import Trainer

part, base, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
corrections = [Calibration(), Entity("user", on=["shop"], slots=256)]
definition = Definition("ranker", Path(base), "logit", columns=Schema.of({"shop": "float32"}), corrections=corrections)
settings = Settings.load(**given)
if part == "learn":
    Trainer(definition, settings).run(lambda: False)
plane, rng = DataPlane(definition, settings, registry=CollectorRegistry()), np.random.default_rng(int(part))
while True:
    floats = {name: rng.normal(size=8).astype("f") for name in ("x", "shop")}
    answer = plane.score({"user": rng.integers(0, 20, 8), **floats})
    ids = [f"{answer.impressions}.{i}" for i in range(8)]
    assert set(asyncio.run(plane.feedback(ids, rng.integers(0, 2, 8).astype("f"))).outcomes) == {"accepted"}
    os.write(1, ("\\n".join(ids) + "\\n").encode())
"""


@pytest.mark.parametrize("retention", [1 << 40, 1], ids=["journal_kept", "journal_swept"])
def test_a_home_that_several_processes_write_to_is_copied_so_that_it_starts_learns_and_serves(definition, tmp_path, retention):
    given = {
        "home": str(tmp_path / "home"),
        "segment_bytes": 200_000,
        "checkpoint_seconds": 0.05,
        "release_seconds": 0.2,
        "keep_releases": 1,
        "journal_max_bytes": retention,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIFE]
    parts = ("1", "2", "learn")
    files = [tmp_path / f"said-{part}" for part in parts]
    processes = []
    try:
        for part, file in zip(parts, files, strict=True):
            with file.open("wb") as said:
                arguments = [*command, part, str(definition.base), json.dumps(given)]
                processes.append(subprocess.Popen(arguments, stdout=said, stderr=subprocess.STDOUT, env=environment))
        home, made, known = Home(definition, Settings.load(**given)), [], []
        while max((r.number for r in home.releases().all()), default=0) < 3:
            assert all(process.poll() is None for process in processes), [file.read_text() for file in files]
            time.sleep(0.05)
        for number in range(2):
            known.append(
                [line for file in files[:2] for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            )
            made.append(back_up(home, tmp_path / f"backup-{number}"))
        assert all(process.poll() is None for process in processes), [file.read_text() for file in files]
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert all(a.last < b.last for a, b in pairwise(made))
    for number, (backup, accepted) in enumerate(zip(made, known, strict=True)):
        restore(backup.folder, tmp_path / f"again-{number}")
        with served(definition, **{**given, "home": tmp_path / f"again-{number}", "journal_max_bytes": 1 << 40}) as rig:
            assert all(release.verify() for release in rig.plane.home.releases().all())
            assert rig.trainer.learner.position > 0
            for _ in range(2):  # one publishes at the most: its clock stands still
                rig.step()
            assert rig.trainer.paused is None
            assert rig.trainer.learner.position >= backup.last
            rig.plane.follower.follow()
            assert rig.plane.session.state.position >= backup.last
            assert set(fed(rig, [name.strip() for name in accepted[-2_000:]])) <= {"duplicate", "conflict", "expired"}
            assert fed(rig, scored(rig)) == ["accepted"] * 4
            rig.step()
            if retention > 1:
                assert rig.trainer.learner.stack.digest() == replayed(definition, rig.settings).stack.digest()


def test_the_command_says_what_it_copied_and_how_to_restore_it(tmp_path, monkeypatch):
    service = f"{Path(__file__).parents[2] / 'service' / 'service.py'}:Ranker"
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))

    def run():
        return CliRunner().invoke(main, ["backup", str(tmp_path / "copy"), "--service", service])

    refused = run()
    assert (refused.exit_code, refused.output.count("\n")) == (1, 1)
    assert "is not the home of a scorer" in refused.output
    Home(load(service), Settings.load()).prepare()
    done = run()
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/copy: " in done.output
    assert (
        f"mv {tmp_path}/state/ranker {tmp_path}/state/ranker.old && cp -a {tmp_path}/copy {tmp_path}/state/ranker"
        in done.output
    )
    assert run().exit_code == 1
