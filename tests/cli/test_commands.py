"""Small commands: what they print, and how they fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import helper, save

from riverdelta.cli.main import main
from riverdelta.core.locks import Lock
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home

ROOT = Path(__file__).parents[2]
SERVICE = f"{ROOT / 'service' / 'service.py'}:Ranker"

#: A classifier of one tree that splits once.
STUMP = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_missing_value_tracks_true": [0, 0, 0],
    "class_treeids": [0, 0],
    "class_nodeids": [1, 2],
    "class_ids": [1, 1],
    "class_weights": [-1.0, 1.0],
    "classlabels_int64s": [0, 1],
    "base_values": [0.1],
    "post_transform": "LOGISTIC",
}


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_inspect_lists_tensors_with_shape_and_maker():
    shown = run("inspect", ROOT / "service" / "ranker.onnx")
    assert shown.exit_code == 0
    assert "user_id" in shown.output
    assert "float32[N, 8]" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    assert re.search(r"embedding_3 +float32\[N, 8\] +Gather +tap", shown.output)
    outputs = shown.output[shown.output.index("outputs") :].splitlines()[1:]
    assert outputs[0].startswith("logit   float32[N] Add     logit='logit'; it is from")


@pytest.mark.parametrize("output", ["y", "probabilities", "probabilities_of_the_model", "p" * 60])
def test_inspect_in_80_columns_loses_no_part_of_a_line_to_write(output, tmp_path):
    nodes = [helper.make_node("TreeEnsembleClassifier", ["x"], ["label", output], domain="ai.onnx.ml", **STUMP)]
    x, label = (helper.make_tensor_value_info(*one) for one in [("x", 1, ["N", 5]), ("label", 7, ["N"])])
    graph = helper.make_graph(nodes, "stump", [x], [label, helper.make_tensor_value_info(output, 1, ["N", 2])])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    save(helper.make_model(graph, ir_version=8, opset_imports=sets), tmp_path / "stump.onnx")
    shown = run("inspect", tmp_path / "stump.onnx").output
    shown = shown[shown.index("outputs") : shown.index("N is the batch axis")]
    assert max(map(len, shown.splitlines())) <= 80
    (start,) = (found.start() for found in re.finditer(r"\buse\b", shown.splitlines()[0]))
    used = "".join(line[start:].strip(" ") for line in shown.splitlines()[1:]).replace(" ", "")
    assert f"probability='{output}[1]';proved:itisalwaysfrom0to1" in used


def test_inspect_as_json_has_the_place_and_the_line_to_write_of_each_tensor():
    found = {tensor["name"]: tensor for tensor in json.loads(run("inspect", ROOT / "service" / "ranker.onnx", "--json").output)}
    assert (found["user_id"]["place"], found["user_id"]["use"]) == ("input", "id column")
    assert (found["logit"]["place"], found["logit"]["write"]) == ("output", "logit='logit'")
    assert found["embedding_3"]["write"] == "taps={'embedding_3': 'embedding_3'}"
    taps = json.loads(run("inspect", ROOT / "service" / "ranker.onnx", "--taps", "--json").output)
    assert "embedding_3" in [tensor["name"] for tensor in taps]
    assert {tensor["type"][:5] for tensor in taps} == {"float", "int64", "bool["}


def test_inspect_of_what_is_no_model_is_one_line_and_no_traceback(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    shown = run("inspect", tmp_path / "bad.onnx")
    assert shown.exit_code == 1
    assert shown.output.startswith("Error: ")
    assert "bad.onnx" in shown.output


def test_export_writes_one_file_that_runs_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    Home(load(SERVICE), Settings.load()).prepare()
    shown = run("export", "--service", SERVICE, "-o", tmp_path / "one" / "merged.onnx")
    assert shown.exit_code == 0, shown.output
    assert "release 0 (champion), 0 examples" in shown.output
    onnxruntime.InferenceSession(str(tmp_path / "one" / "merged.onnx"), providers=["CPUExecutionProvider"])


def test_a_backup_of_a_relative_home_prints_a_restore_line_that_works_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVERDELTA_HOME", "state")
    home = Home(load(SERVICE), Settings.load())
    home.prepare()
    shown = run("backup", "copy", "--service", SERVICE)
    here, there = tmp_path.resolve() / "state" / "ranker", tmp_path.resolve() / "copy"
    assert shown.stdout.endswith(f"mv {here} {here}.old && cp -a {there} {here}\n"), shown.output


@pytest.mark.parametrize(
    "command",
    [
        ("release",),
        ("releases",),
        ("diff", 0, 0),
        ("promote", 0),
        ("rollback",),
        ("freeze",),
        ("resume",),
        ("rotate-key",),
        ("forget", "user=ann"),
        ("export", "-o", "merged.onnx"),
        ("impression", "AAAAAAAAAAAAAAAAAAAAAA.0"),
        ("backup", "copy"),
        ("sidecar",),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("there", ["nothing", "an empty home"])
def test_a_command_in_the_wrong_folder_names_it_and_makes_nothing(tmp_path, monkeypatch, command, there):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RIVERDELTA_HOME", raising=False)
    if there == "an empty home":
        (tmp_path / ".riverdelta").mkdir()
    monkeypatch.setattr(Trainer, "run", lambda *_: None)  # or a learner would run for ever
    before = sorted(tmp_path.rglob("*"))
    shown = run(*command, "--service", SERVICE)
    assert shown.exit_code == 1
    assert shown.output.startswith(f"Error: {tmp_path}/.riverdelta/ranker is not the home of a scorer; start the service once")
    assert "export RIVERDELTA_HOME=" in shown.output
    assert sorted(tmp_path.rglob("*")) == before


def test_no_command_that_needs_a_home_is_left_out_above():
    needs = {name for name in main.list_commands(None) if "--service" in run(name, "--help").output} - {"reference", "rebase"}
    (tried,) = (
        mark.args[1]
        for mark in test_a_command_in_the_wrong_folder_names_it_and_makes_nothing.pytestmark
        if mark.args[0] == "command"
    )
    assert needs == {command[0] for command in tried}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:Ranker", "nowhere.py is not a file"),
        ("no_such_module:Ranker", f"no module 'no_such_module' in {Path.cwd()} or among the installed packages"),
        (f"{ROOT / 'service' / 'service.py'}:Rankr", "is not a scorer"),
        (f"{ROOT / 'service' / 'train.py'}", "has 0 scorers"),
    ],
)
def test_a_service_that_is_not_there_is_refused_with_the_next_step(target, message):
    shown = run("export", "--service", target)
    assert shown.exit_code == 1
    assert message in shown.output


@pytest.mark.parametrize("events", ["0", "-3", "many"])
def test_a_number_of_events_that_is_none_is_refused(events):
    shown = run("demo", "--events", events)
    assert shown.exit_code == 2
    assert "or all" in shown.output


def test_replay_of_a_folder_without_a_service_says_what_is_missing(tmp_path):
    shown = run("replay", "--journal", tmp_path)
    assert shown.exit_code == 1
    assert "has no service.py" in shown.output


def test_replay_of_a_folder_without_a_journal_makes_nothing(tmp_path):
    shutil.copytree(ROOT / "service", tmp_path, dirs_exist_ok=True)
    shown = run("replay", "--journal", tmp_path)
    assert shown.exit_code == 1
    assert f"{tmp_path}/state/ranker is not the home of a scorer" in shown.output
    assert not (tmp_path / "state").exists()


def test_a_learner_of_another_stack_ends_with_one_message_and_a_code_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    shutil.copytree(ROOT / "service", tmp_path / "shop")
    Home(load(SERVICE), Settings.load()).prepare()
    service = tmp_path / "shop" / "service.py"
    service.write_text(service.read_text().replace("forget=0.98", "forget=0.9"))
    shown = run("sidecar", "--service", f"{service}:Ranker")
    assert shown.exit_code == os.EX_CONFIG
    assert shown.output.count("Error: ") == 1
    assert "learned with another definition" in shown.output


def test_a_learner_beside_another_one_ends_with_the_code_of_what_may_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    home = Home(load(SERVICE), Settings.load())
    home.prepare()
    lock = Lock(home.folder / "sidecar.lock", "the learner")
    shown = run("sidecar", "--service", SERVICE)
    lock.release()
    assert (shown.exit_code, f"in use by process {os.getpid()}" in shown.output) == (1, True)


def test_a_wrong_setting_is_one_line(monkeypatch):
    monkeypatch.setenv("RIVERDELTA_MAX_ROWS", "zero")
    shown = run("export", "--service", SERVICE)
    assert shown.exit_code == 1
    assert "RIVERDELTA_MAX_ROWS is 'zero'" in shown.output


def test_a_service_is_named_to_a_command_as_to_bentoml(tmp_path):
    shutil.copytree(ROOT / "service", tmp_path / "shop")
    command = [Path(sys.executable).with_name("riverdelta"), "releases", "--service", "shop.service:Ranker"]
    environment = os.environ | {"RIVERDELTA_HOME": str(tmp_path / "state")}
    Home(load(f"{tmp_path / 'shop' / 'service.py'}:Ranker"), Settings.load(home=tmp_path / "state")).prepare()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "champion" in done.stdout


WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Missing())
from riverdelta.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "--journal", "nowhere"), "has no service.py"),
        (("replay", "--events", 10), "pip install 'riverdelta[train]'"),
    ],
)
def test_what_needs_pytorch_says_how_to_install_it_and_a_journal_is_replayed_without(arguments, said):
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
