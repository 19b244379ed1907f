"""Folders that may not be used: every command names the path in one line, and says by its exit code whether a restart helps."""

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from riverdelta.cli.main import main
from riverdelta.core.settings import Settings
from riverdelta.learning.service import load
from riverdelta.storage.home import Home
from riverdelta.storage.registry import FolderRegistry

SERVICE = f"{Path(__file__).parents[2] / 'service' / 'service.py'}:Ranker"
COMMANDS = {
    "releases": [],
    "freeze": [],
    "rotate-key": [],
    "impression": ["AAAA.0"],
    "diff": ["0", "0"],
    "export": ["-o", "made.onnx"],
    "backup": ["copy"],
    "sidecar": [],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    made = Home(load(SERVICE), Settings.load())
    made.prepare()
    made.ids()
    return made


def run(command, *arguments):
    done = CliRunner().invoke(main, [command, "--service", SERVICE, *map(str, arguments)])
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    return done.exit_code, line


def refused(number, path):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(path))

    return refuse


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 78), (errno.EROFS, 78), (errno.EIO, 1)])
def test_a_home_that_cannot_be_read_is_named(home, monkeypatch, command, number, code):
    path = home.folder / "releases" / "index.json"
    monkeypatch.setattr(FolderRegistry, "read", refused(number, path))
    found, line = run(command, *COMMANDS[command])
    assert found == code
    assert str(path) in line
    assert os.strerror(number) in line


@pytest.mark.parametrize("command", ["releases", "freeze", "diff", "sidecar"])
@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 78), (errno.EROFS, 78), (errno.ENOSPC, 1)])
def test_a_home_that_cannot_be_written_is_named(home, monkeypatch, command, number, code):
    monkeypatch.setattr("riverdelta.storage.home.alone", refused(number, home.folder / ".prepare"))
    found, line = run(command, *COMMANDS[command])
    assert (found, str(home.folder) in line, os.strerror(number) in line) == (code, True, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_home_that_is_a_file_is_no_home(home, monkeypatch, tmp_path, command):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "file"))
    found, line = run(command, *COMMANDS[command])
    assert found in (1, 78)
    assert str(tmp_path / "file") in line


def test_a_learner_that_its_service_starts_below_a_file_ends_with_a_wrong_configuration(home, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RIVERDELTA_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("riverdelta.cli.sidecar._watch_stdin", lambda stopping: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run("sidecar", "--end-with-stdin")[0] == os.EX_CONFIG


@pytest.mark.parametrize("command", ["export", "backup"])
def test_a_place_that_cannot_be_written_is_named(home, tmp_path, command):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "made"
    found, line = run(command, *(["-o", place] if command == "export" else [place]))
    assert found == 78
    assert str(tmp_path / "file") in line
