"""One holder at a time, and writers that queue."""

import os
import subprocess
import sys
import threading

import pytest

from riverdelta.core.errors import Locked
from riverdelta.core.locks import Lock, Turn, alone, shared

HOLDER = """
import os, sys
from pathlib import Path
from riverdelta.core.locks import Lock
lock = Lock(Path(sys.argv[1]), "the learner")
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `sidecar.lock`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "sidecar.lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert int(process.stdout.readline()) == process.pid
    yield process
    process.kill()
    process.communicate()


def test_a_second_holder_is_refused_with_the_first_one_s_pid_and_a_kill_frees_the_lock(tmp_path, holder):
    path = tmp_path / "sidecar.lock"
    with pytest.raises(
        Locked, match=rf"the learner of x is in use by process {holder.pid} \(.*sidecar.lock\); stop that process"
    ):
        Lock(path, "the learner of x")
    holder.kill()
    holder.wait()
    lock = Lock(path, "the learner of x")
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_lock_can_be_taken_again_after_its_release(tmp_path):
    for _ in range(2):
        Lock(tmp_path / "deep" / "lock", "it").release()


def test_turns_never_overlap(tmp_path):
    inside, most = 0, 0

    def act():
        nonlocal inside, most
        turn = Turn(tmp_path / "turn")
        for _ in range(50):
            with turn.taken():
                inside += 1
                most = max(most, inside)
                inside -= 1
        turn.close()

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_turn_is_given_up_after_an_error(tmp_path):
    turn, other = Turn(tmp_path / "turn"), Turn(tmp_path / "turn")
    with pytest.raises(KeyError), turn.taken():
        raise KeyError
    with other.taken():
        pass
    turn.close()
    other.close()


def test_many_may_share_a_lock_that_nobody_has_alone(tmp_path):
    path = tmp_path / "lock"
    with shared(path), shared(path), alone(path) as free:
        assert not free
    with alone(path) as free, alone(path) as second:
        assert (free, second) == (True, False)


def test_one_that_waits_to_be_alone_begins_when_the_others_have_left(tmp_path):
    path, order = tmp_path / "lock", []

    def act():
        with alone(path, wait=True) as free:
            order.append(free)

    with shared(path):
        waiting = threading.Thread(target=act)
        waiting.start()
        waiting.join(0.05)
        order.append("left")
    waiting.join()
    assert order == ["left", True]
