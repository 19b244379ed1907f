"""The supervisor: a child that ends is started again, and never outlives its parent.

The learner itself is killed in tests/e2e/test_kills.py; here a shell script stands in for the interpreter.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from riverdelta.bento import sidecar
from riverdelta.bento.sidecar import Supervisor

PLUGINS = Path(__file__).parents[2] / "plugins"


def wait(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing came of it within {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """script(text): what runs in the learner's place; it finds `log`, a file beside it."""

    def make(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\nlog={tmp_path}/log\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return tmp_path / "log"

    return make


@pytest.fixture
def supervisor():
    made = Supervisor("service:Ranker")
    yield made
    if made._thread.is_alive():
        made.stop()


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def test_a_child_that_ends_is_started_again_with_growing_pauses(script, supervisor, monkeypatch):
    monkeypatch.setattr(sidecar, "_FIRST_WAIT", 0.02)
    log = script('date +%s.%N >> "$log"; exit 3')
    supervisor.start()
    wait(lambda: len(lines(log)) >= 4)
    supervisor.stop()
    starts = [float(line) for line in lines(log)]
    assert starts[3] - starts[2] >= 0.08
    assert supervisor.pid is None


def test_a_child_that_is_not_configured_right_is_not_started_again(script, supervisor, monkeypatch, caplog):
    monkeypatch.setattr(sidecar, "_FIRST_WAIT", 0.0)
    log = script(f'echo . >> "$log"; exit {os.EX_CONFIG}')
    supervisor.start()
    supervisor._thread.join(10)
    assert not supervisor._thread.is_alive()
    assert lines(log) == ["."]
    assert caplog.messages == [
        "learning stops: the learner's configuration is invalid (see its error above); fix it and restart"
    ]
    assert supervisor.pid is None
    supervisor.stop()


def test_after_a_long_life_the_first_pause_counts_again(script, supervisor, monkeypatch, caplog):
    monkeypatch.setattr(sidecar, "_FIRST_WAIT", 0.02)
    monkeypatch.setattr(sidecar, "_WELL_SECONDS", 0.0)
    log = script('echo . >> "$log"; exit 3')
    supervisor.start()
    wait(lambda: len(lines(log)) >= 3)
    supervisor.stop()
    assert set(caplog.messages) == {"the learner ended with code 3; it is restarted in 0.0 s"}


def test_the_child_is_told_which_service_and_that_it_ends_with_its_parent(script, supervisor):
    log = script('echo "$@" >> "$log"; exec sleep 60')
    supervisor.start()
    wait(lambda: lines(log))
    assert lines(log) == ["-m riverdelta sidecar --service service:Ranker --end-with-stdin"]
    assert supervisor.pid is not None


def test_stopping_asks_the_child_to_save_first(script, supervisor):
    log = script('trap \'echo saved >> "$log"; exit 0\' TERM; echo up >> "$log"; while true; do sleep 0.02; done')
    supervisor.start()
    wait(lambda: lines(log))
    supervisor.stop()
    assert lines(log) == ["up", "saved"]
    assert supervisor.pid is None


def test_a_child_that_does_not_stop_is_killed(script, supervisor, monkeypatch):
    monkeypatch.setattr(sidecar, "_STOP_SECONDS", 0.2)
    log = script('trap "" TERM; echo up >> "$log"; while true; do sleep 0.02; done')
    supervisor.start()
    wait(lambda: lines(log))
    supervisor.stop()
    assert supervisor.pid is None


def test_an_interpreter_that_is_gone_is_reported_and_tried_again(script, supervisor, monkeypatch, caplog):
    monkeypatch.setattr(sidecar, "_FIRST_WAIT", 0.02)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    supervisor.start()
    wait(lambda: caplog.text.count("the learner cannot be started") >= 2)


def test_the_childs_input_closes_when_the_parent_is_killed(tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho up >> {tmp_path}/log\ncat > /dev/null\necho ended >> {tmp_path}/log\n")
    stand_in.chmod(0o755)
    parent = (
        f"import sys, time; sys.path.insert(0, {str(PLUGINS)!r}); from riverdelta.bento.sidecar import Supervisor; "
        f"sys.executable = {str(stand_in)!r}; Supervisor('a:B').start(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    wait(lambda: lines(tmp_path / "log") == ["up"], 30)
    process.kill()
    process.wait()
    wait(lambda: lines(tmp_path / "log") == ["up", "ended"])
