"""The operator's commands: the same facts for people and, with --json, for programs."""

import json
import os
import threading
import time
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from riverdelta.cli.main import main
from riverdelta.cli.tables import print_changes
from riverdelta.core.records import SETTINGS, Control
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.operator import Answer, Operator
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Journal
from riverdelta.storage.log import SqliteLog

SERVICE = f"{Path(__file__).parents[2] / 'service' / 'service.py'}:Ranker"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    made = Home(load(SERVICE), Settings.load())
    made.prepare()
    return made


@pytest.fixture
def learner(home):
    """A learner that runs on the home until the test ends."""
    stop = threading.Event()
    trainer = Trainer(home.definition, home.settings)
    thread = threading.Thread(target=trainer.run, args=(stop.is_set,))
    thread.start()
    # Before its first status nobody can know that it runs.
    deadline = time.monotonic() + 20
    while not home.read_status():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield trainer
    stop.set()
    thread.join()


def run(command, *arguments):
    return CliRunner().invoke(main, [command, "--service", SERVICE, *map(str, arguments)])


def asked(*arguments, code=0):
    shown = run(*arguments, "--json")
    assert shown.exit_code == code, shown.output
    return json.loads(shown.stdout)


def last(home):
    with closing(home.journal()) as journal:
        return journal.last()


def learned(home):
    """A second release, of a stack that saw one user."""
    store, stack = home.releases(), home.definition.new_stack()
    columns = {
        "user_id": np.full(20, 5),
        "item_id": np.arange(20),
        "hour": np.ones(20, np.float32),
        "item_vec": np.ones((20, *home.definition.schema["item_vec"].shape), np.float32),
    }
    stack.learn(columns, np.ones((20, 1), np.float32), np.zeros(20, np.float32), np.ones(20, np.float32))
    number, path = store.next_path()
    path.write_bytes(store.get(0).path.read_bytes())
    store.add(number, path, 0, 20, 0.0, {}, {f"stack/{name}": array for name, array in stack.state().items()})
    return number


def test_each_command_says_in_json_what_came_of_it(home, learner):
    frozen = asked("freeze")
    assert frozen.keys() == {field.name for field in fields(Answer)}
    assert (frozen["obeyed"], frozen["waits"], frozen["frozen"]) == (True, None, True)
    assert frozen["position"] >= frozen["sequence"] > 0
    resumed = asked("resume")
    assert resumed["sequence"] > frozen["sequence"]
    assert not resumed["frozen"]
    promoted = asked("promote", 0)
    assert (promoted["obeyed"], promoted["champion"]) == (True, 0)
    back = asked("rollback", "--freeze")
    assert (back["obeyed"], back["release"], back["frozen"]) == (True, 0, True)


def test_without_a_learner_the_answer_is_where_the_command_waits(home):
    answer = asked("freeze", code=os.EX_TEMPFAIL)
    assert not answer["obeyed"]
    assert "until one is started" in answer["waits"]
    assert last(home) == answer["sequence"]
    assert "written at position" in run("resume").stdout


def test_what_is_refused_is_one_line_and_nothing_is_written(home):
    before = last(home)
    shown = run("rollback", 9)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == "Error: there is no release 9; there are: 0\n"
    assert last(home) == before


def test_what_is_refused_before_it_is_written_has_the_keys_of_an_answer_in_json(home):
    answer = asked("rollback", 9, code=1)
    assert answer.keys() == {field.name for field in fields(Answer)}
    assert (answer["obeyed"], answer["sequence"], answer["waits"]) == (False, None, None)
    assert answer["refused"] == "there is no release 9; there are: 0"


def test_a_new_key_is_reported_with_the_days_for_which_older_ids_stay_valid(home, monkeypatch):
    assert run("rotate-key").stdout == "the key was replaced; ids signed with the old key stay valid for 7 days\n"
    monkeypatch.setenv("RIVERDELTA_KEY_WINDOW_SECONDS", "43200")
    assert "for 0.5 days" in run("rotate-key").stdout


def test_what_the_learner_refuses_is_an_error_and_in_json_says_why(home, learner, monkeypatch):
    def ask(self, command):
        """As where a release is deleted between the check and the learner."""
        return self.journal.write(command.model_copy(update={"release": 9}).record(position=0, time=self.clock()))

    monkeypatch.setattr(Operator, "ask", ask)
    for command in (("promote", 0), ("rollback", 0), ("rollback", 0, "--promote")):
        shown = run(*command)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert "was refused, and nothing changed: there is no release 9" in shown.stderr
        shown = run(*command, "--json")
        told = json.loads(shown.stdout)
        assert (shown.exit_code, told["obeyed"], told["waits"], told["champion"]) == (1, False, None, 0)
        assert "and nothing changed: there is no release 9" in told["refused"]


def test_a_rollback_says_what_serves_and_who_is_the_champion(home, learner):
    number = learned(home)
    shown = run("rollback", number).stdout
    assert f"release {number} serves again as {number}+" in shown
    assert f"the champion is release 0; learning continues from release {number}" in shown
    assert "learned again" not in shown
    assert f"the examples since release {number} were learned again" in run("rollback", number, "--relearn").stdout
    assert asked("rollback", number, "--promote")["champion"] == number
    marks = {row["release"]: (row["champion"], row["serving"]) for row in asked("releases")}
    assert marks == {0: (False, False), number: (True, True)}


def test_an_export_is_the_release_that_serves_and_no_other_where_that_is_damaged(home, learner, tmp_path):
    number = learned(home)
    out = ("-o", tmp_path / "merged.onnx")
    assert (asked("rollback", number)["release"], asked("release")["target"]) == (number, number + 1)
    asked("rollback", number)  # the newest release is the one that was rolled back
    made = asked("export", *out)
    assert (made["release"], made["serving"], made["champion"]) == (number, True, False)
    assert f"release {number} (serving), 20 examples" in run("export", *out).stdout
    assert f"release {number + 1} (neither serving nor champion)" in run("export", "--release", number + 1, *out).stdout
    home.releases().get(number).path.write_bytes(b"damaged")
    for damaged in ((), ("--release", number)):
        assert "release 1: " in run("export", *damaged, *out).stderr
    assert "release 0 (champion), 0 examples" in run("export", "--release", 0, *out).stdout


def test_diff_shows_what_changed_and_counts_it(home):
    number = learned(home)
    shown = run("diff", 0, number).stdout
    assert "entity_user_id" in shown
    assert "from release 0 to release 1, +20 examples" in shown
    found = asked("diff", 0, number, "--top", 3)
    assert (found["a"], found["b"], len(found["changes"])) == (0, 1, 3)
    assert found["changes"][0]["effect"] < 0
    assert run("diff", 0, 0).stdout.count("calibration/line 0 of 2") == 1


def test_a_journal_without_its_beginning_is_not_replayed(home, tmp_path, monkeypatch):
    (tmp_path / "service.py").write_text(f"import runpy\nRanker = runpy.run_path({SERVICE.rpartition(':')[0]!r})['Ranker']\n")
    with closing(Journal(SqliteLog(home.folder / "journal", 1))) as journal:
        for _ in range(4):
            journal.write(Control("freeze"))
        journal.sweep(2, 1e9, 0, 0.0)
        assert sum(journal.sweep(journal.last(), 1e9, 10**12, 0.0) for _ in range(2)) > 0
    shown = CliRunner().invoke(main, ["replay", "--journal", str(tmp_path)])
    assert shown.exit_code == 1
    assert "is 3: retention has deleted those before it" in shown.stderr


@pytest.mark.parametrize("response", [None, "freeze"])
def test_a_replay_beside_another_reference_says_so_and_fails_where_learning_responded_to_drift(home, tmp_path, response):
    (tmp_path / "service.py").write_text(f"import runpy\nRanker = runpy.run_path({SERVICE.rpartition(':')[0]!r})['Ranker']\n")
    trainer = Trainer(home.definition, home.settings)
    trainer.journal.write(Control(SETTINGS, home.learning() | {"on_drift": response, "reference": "abcd"}, 0.0))
    while trainer.learner.position < trainer.journal.last():
        trainer._learn()
    trainer.save()
    trainer.journal.close()
    trainer._saver.close()
    trainer._lock.release()
    shown = CliRunner().invoke(main, ["replay", "--journal", str(tmp_path), "--json"])
    figures = json.loads(shown.stdout)
    assert figures["tables_equal"] is True
    assert figures["reference_equal"] is (response is None)
    assert shown.exit_code == (response is not None)
    assert ("responded to drift from the reference abcd, and beside the base there is no reference" in shown.stderr) is bool(
        response
    )


def test_diff_shows_an_id_alone(home):
    found = asked("diff", 0, learned(home), "--id", "user_id=5", "--id", "item_id=3")
    assert {change["id"] for change in found["changes"]} == {"user_id=5", "item_id=3"}
    assert run("diff", 0, 1, "--id", "user_id=5").stdout.count("user_id=5") == 10


def test_a_table_never_cuts_an_id(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    name = "customer_id=O-20261130-00000001723"
    change = {"correction": "entity_customer_id", "table": "mean", "feature": "intercept", "id": name, "slot": 1}
    change |= {"effect": 1.0, "before": 0.0, "after": 1.0}
    print_changes({"changes": [change], "tables": [], "a": 0, "b": 1, "examples": 1})
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((0, 9), 1, "there is no release 9"),
        ((0,), 2, "Missing argument 'B'"),
        (("x", 0), 2, "'A': 'x' is not a valid integer from 0 to 1000000000"),
        ((0, 0, "--top", 0), 2, "--top"),
        ((0, 0, "--top", "x"), 2, "'--top': 'x' is not a valid integer of at least 1"),
        ((0, 0, "--id", "user"), 1, "expected column=value"),
        ((0, 0, "--id", "users_id=5"), 1, "did you mean user_id"),
    ],
)
def test_diff_of_what_is_not_there_says_what_is(home, arguments, code, said):
    shown = run("diff", *arguments)
    assert shown.exit_code == code
    assert said in shown.output
