"""Commands as the learner reads them: refused by name where it cannot know them, and a key that is renewed once."""

import orjson
import pytest

from riverdelta.core.errors import ConfigurationError, Corrupt, Unavailable
from riverdelta.core.instruction import Instruction
from riverdelta.core.records import Control, Tick
from riverdelta.learning.command import Command
from riverdelta.learning.commands import COMMANDS, Freeze, Promote, Rollback, RotateKey
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.journal import Journal
from riverdelta.storage.journal.ids import Ids


@pytest.fixture
def operator(rig):
    return Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now)


def taught(rig, *seeds):
    for seed in seeds:
        rig.teach(seed=seed)
        rig.step()


def written(rig):
    return [asked for _, asked in rig.trainer.journal.commands(0, 10**9)]


class Later(Command):
    """Do what no version does yet."""

    name = "later"
    version = 2


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (Instruction("merge", 2), "the command 'merge', which this version of riverdelta does not know"),
        (Instruction("freeze", 2), "version 2 of the command freeze"),
    ],
)
def test_learning_pauses_at_a_command_of_a_later_version_and_names_it_until_that_version_runs(rig, monkeypatch, later, said):
    monkeypatch.setattr("riverdelta.sidecar.trainer._PAUSE_SECONDS", 0.0)
    taught(rig, 1)
    sequence = rig.trainer.journal.write(later)
    rig.teach(seed=2)
    for _ in range(3):
        rig.trainer.step()
    assert f"journal record {sequence}: " in rig.trainer.paused
    assert said in rig.trainer.paused
    assert (rig.trainer.learner.position, rig.trainer.learner.learned) == (sequence - 1, 16)
    monkeypatch.setitem(COMMANDS, later.action, Later)
    rig.step()
    assert (rig.trainer.paused, rig.trainer.learner.learned) == (None, 32)
    assert rig.trainer.learner.outcomes.of(sequence).refused is None


def test_a_replay_stops_at_a_command_of_a_later_version_too(rig):
    sequence = rig.trainer.journal.write(Instruction("merge", 1))
    learner = new_learner(rig.definition, rig.settings)
    learner.recall = Replayed(rig.trainer.journal, learner.state())
    *before, (last, record) = rig.trainer.journal.read(0, 10**6)
    for each in before:
        learner.push(*each)
    with pytest.raises(Corrupt, match=f"journal record {sequence}: the journal holds the command 'merge'"):
        learner.push(last, record)


@pytest.mark.parametrize(
    "fields", [{"release": 1.0}, {"release": True}, {"release": 10**30}, {"release": "\0"}, {"relaese": 1}, {}]
)
def test_a_command_whose_fields_are_not_its_own_is_refused_by_name_and_learning_goes_on(rig, fields):
    sequence = rig.trainer.journal.write(Instruction("promote", 1, fields))
    taught(rig, 1)
    assert "the recorded promote" in rig.trainer.learner.outcomes.of(sequence).refused
    status = orjson.loads(orjson.dumps(rig.trainer.status()))
    assert (status["learned"], status["champion"]) == (16, 0)


def test_who_asked_and_where_is_on_record_and_in_the_logbook(rig, operator):
    rig.settings.__dict__["release_examples"] = 16
    taught(rig, 1, 2)
    operator.ask(Rollback(release=1))
    rig.step()
    made, _, back = written(rig)
    assert (made.action, made.by, made.asked is not None) == ("release", "schedule", True)
    store = rig.trainer.releases.store
    assert (back.by, back.position, back.asked) == ("operator", store.get(1).position, rig.trainer.journal.last() - 1)
    assert [e["details"].get("by") for e in rig.trainer.status()["events"]] == ["schedule", "schedule", None]


def test_a_new_key_is_made_at_once_without_a_learner_and_is_on_record(rig, operator):
    before = Ids.load(rig.trainer.home.key_path, rig.now)
    old = before.issue(7, 1)
    rig.trainer.close()
    key = rig.trainer.home.key_path.read_bytes()
    operator.ask(RotateKey())
    new = rig.trainer.home.key_path.read_bytes()
    assert new != key
    assert Ids.load(rig.trainer.home.key_path, rig.now).parse(f"{old}.0") == (7, 1, 0)
    rig.start()
    taught(rig, 1)
    rig.trainer.close()
    rig.start()
    rig.step()
    assert rig.trainer.home.key_path.read_bytes() == new
    assert [e["action"] for e in rig.trainer.status()["events"]].count("rotate-key") == 1
    assert rig.trainer.status()["controls"]["rotate-key"] == 1


def test_a_replay_and_a_learner_that_begins_anew_renew_no_key(rig, operator):
    tables = rig.trainer.learner.stack.digest()
    sequence = operator.ask(RotateKey())
    key = rig.trainer.home.key_path.read_bytes()
    rig.step()
    rig.trainer.journal.close()
    rig.trainer._lock.release()
    rig.start()
    rig.step()
    learner = new_learner(rig.definition, rig.settings)
    learner.recall = Replayed(rig.trainer.journal, learner.state())
    for each, record in rig.trainer.journal.read(0, 10**6):
        learner.push(each, record)
    assert rig.trainer.home.key_path.read_bytes() == key
    for read in (rig.trainer.learner, learner):
        assert (read.outcomes.of(sequence).refused, read.stack.digest()) == (None, tables)


def test_a_key_that_is_new_without_a_record_of_it_says_so(rig, operator, monkeypatch):
    key = rig.trainer.home.key_path.read_bytes()

    def full(*_):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(
        Unavailable, match="the key was replaced, but this could not be recorded in the journal: the disk is full"
    ):
        operator.ask(RotateKey())
    assert rig.trainer.home.key_path.read_bytes() != key
    with pytest.raises(Unavailable, match=r"^the disk is full"):
        operator.ask(Freeze())


def test_a_key_that_is_damaged_is_refused_and_nothing_is_written(rig, operator):
    last = rig.trainer.journal.last()
    rig.trainer.home.key_path.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="has 5 bytes; a key has"):
        operator.ask(RotateKey())
    assert rig.trainer.journal.last() == last


def test_commands_of_both_formats_are_found_in_their_order(rig):
    journal = rig.trainer.journal
    first, _, old, last = map(journal.write, (Freeze().record(), Tick(1.0), Control("resume"), Promote(release=0).record()))
    assert [(at, asked.action) for at, asked in journal.commands(0, 99)] == [
        (first, "freeze"),
        (old, "resume"),
        (last, "promote"),
    ]
    assert [sequence for sequence, _ in journal.commands(first, last)] == [old]
    assert [control.action for _, control in journal.controls(0, 99)] == ["settings"]
