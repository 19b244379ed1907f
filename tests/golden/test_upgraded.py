"""A home of version 0.1 that this version serves: what it learns from then on is reproducible, whatever the settings are.

Version 0.1 limited numbers in another way. The tables that it learned are gone on from, and cannot be learned again.
"""

import asyncio
import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from scorer import definition, settings

from riverdelta.cli.main import main
from riverdelta.core.errors import ConfigurationError
from riverdelta.core.records import SETTINGS
from riverdelta.core.settings import Settings
from riverdelta.learning.commands import Release, Rollback
from riverdelta.learning.learner import new_learner
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.log import SqliteLog

#: Homes whose journal begins at its first record.
WHOLE = sorted(path.parent for path in Path(__file__).parent.glob("0.1/*/ranker") if path.parent.name != "swept")
NOW = 10_000.0


@pytest.fixture(params=WHOLE, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def folder(request, tmp_path):
    return Path(shutil.copytree(request.param, tmp_path / "home"))


def opened(folder, chosen):
    """Return a learner that has learned the whole journal."""
    trainer = Trainer(definition(folder), chosen.model_copy(update={"keep_releases": 10}), clock=lambda: NOW)
    while trainer.step():
        pass
    assert trainer.paused is None
    return trainer


def digest(folder, chosen):
    """Return the digest of the tables to which a learner comes that starts on the home."""
    trainer = opened(folder, chosen)
    try:
        return trainer.learner.stack.digest()
    finally:
        trainer.close()


def label(folder):
    """Label the rows that version 0.1 scored last."""
    ids = json.loads((folder / "last.json").read_text())["ids"]
    with closing(DataPlane(definition(folder), settings(folder), clock=lambda: NOW, registry=CollectorRegistry())) as plane:
        outcomes = asyncio.run(plane.feedback(ids, np.ones(len(ids), np.float32))).outcomes
    assert outcomes == ["accepted"] * len(ids)


@pytest.fixture
def upgraded(folder):
    """The home after this version has started from its checkpoint, made a release, learned more and saved that."""
    trainer = opened(folder, settings(folder))
    before = trainer.learner.learned
    Operator(trainer.home, trainer.journal, lambda: NOW).ask(Release())
    while trainer.step():
        pass
    label(folder)
    trainer.close()
    assert trainer.learner.learned > before
    return trainer.learner


def test_its_baselines_begin_with_the_labels_that_this_version_learns(upgraded):
    found = upgraded.prequential.report()["all"]
    assert found["base"]["examples"] > found["last_label"]["examples"] > 0
    for name in ("last_label", "majority"):
        assert 0.0 < found[name]["loss"] < 2.0


def strangers(folder):
    return Settings.load(home=folder, grpc_port=0)


def replayed(folder, chosen):
    """Return a learner that has replayed the journal from the oldest release of this version on."""
    home, learner = Home(definition(folder), chosen), new_learner(definition(folder), chosen)
    with closing(home.reader()) as journal:
        upgrade = next(at for at, control in journal.controls(0, journal.last() + 1) if control.action == SETTINGS)
        learner.recall = Replayed(journal, learner.state(), home.releases())
        learner.load(home.releases().state(next(each for each in home.releases().all() if each.position > upgrade)))
        while records := journal.read(learner.position, 1000):
            for sequence, record in records:
                learner.push(sequence, record)
    return learner


def replay(folder, monkeypatch):
    """Return the exit code, the standard output and the errors of `riverdelta replay --journal`."""
    (folder.parent / "service.py").touch()
    folder.rename(folder.parent / "state")
    monkeypatch.setattr("riverdelta.cli.replay.load", lambda target: definition(folder.parent / "state"))
    shown = CliRunner().invoke(main, ["replay", "--journal", str(folder.parent), "--json"])
    return shown.exit_code, shown.stdout, shown.stderr


def test_it_is_replayed_from_the_first_release_of_this_version_to_the_same_tables_under_any_settings(folder, upgraded):
    for chosen in (settings(folder), strangers(folder)):
        assert replayed(folder, chosen).stack.digest() == upgraded.stack.digest()


def test_a_learner_that_starts_again_from_the_checkpoint_of_0_1_comes_to_the_same_tables(folder, upgraded):
    *_, newest = sorted((folder / "ranker" / "checkpoints").iterdir())
    newest.unlink()
    assert digest(folder, strangers(folder)) == upgraded.stack.digest()


def test_learners_without_checkpoints_come_to_the_same_tables_under_any_settings(folder, tmp_path):
    shutil.rmtree(folder / "ranker" / "checkpoints")
    opened(folder, settings(folder)).close()
    shutil.rmtree(folder / "ranker" / "checkpoints")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert digest(folder, settings(folder)) == digest(other, strangers(other))


@pytest.mark.parametrize("number", [1, 2])
def test_relearning_from_a_release_of_0_1_is_the_same_under_any_settings_and_in_a_replay(folder, upgraded, number, tmp_path):
    relearned = []
    for each in (folder, Path(shutil.copytree(folder, tmp_path / "other"))):
        trainer = opened(each, settings(each) if each == folder else strangers(each))
        sequence = Operator(trainer.home, trainer.journal, lambda: NOW).ask(Rollback(release=number, relearn=True))
        while trainer.step():
            pass
        done = trainer.learner.outcomes.of(sequence)
        assert (done.release, done.refused) == (number, None)
        trainer.close()
        relearned += [trainer.learner, *(replayed(each, chosen) for chosen in (settings(each), strangers(each)))]
    assert len({learner.stack.digest() for learner in relearned}) == 1
    # Version 0.1 made its second release last of all, and with it the checkpoint that this version started from.
    assert (relearned[0].stack.digest() == upgraded.stack.digest()) == (number == 2)


def test_the_command_replays_it_from_the_first_release_of_this_version_and_says_so(folder, upgraded, monkeypatch):
    code, figures, said = replay(folder, monkeypatch)
    figures = json.loads(figures)
    assert (code, figures["tables_equal"]) == (0, True)
    assert 0 < figures["begins_after"] < figures["checkpoint_position"] == upgraded.position
    assert "version 0.1 began this journal and limited numbers in another way" in said
    assert f"the oldest release that this version made, at record {figures['begins_after']}" in said


@pytest.mark.parametrize("served", [False, True])
def test_the_command_refuses_it_until_this_version_has_learned_more_since_a_release(folder, served, monkeypatch):
    if served:
        opened(folder, settings(folder)).close()
    code, figures, said = replay(folder, monkeypatch)
    assert (code, figures) == (1, "")
    assert "start the service, and try again when it has made a release, learned more and saved that" in " ".join(said.split())


def test_the_first_start_needs_the_label_mode_that_it_had_and_a_later_one_does_not(folder):
    labels = settings(folder).labels
    changed = (
        {"labels": "silence", "window_seconds": 30.0}
        if labels == "explicit"
        else {"labels": "explicit", "window_seconds": None}
    )
    refused = pytest.raises(ConfigurationError, match=f"was written by version 0.1 with RIVERDELTA_LABELS={labels}")
    with refused, closing(Journal(SqliteLog(folder / "ranker" / "journal"))) as journal:
        Home(definition(folder), settings(folder).model_copy(update=changed)).declare(journal, 10_000.0)
    opened(folder, settings(folder)).close()
    opened(folder, settings(folder).model_copy(update=changed)).close()
