"""Sidecar: starts the learning process and keeps it running."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any

import bentoml

from riverdelta.bento.guard import Policy, set_guard

_log = logging.getLogger(__name__)
_FIRST_WAIT, _LONGEST_WAIT, _STOP_SECONDS = 0.5, 30.0, 20.0
#: After a child has run this long, the next pause is `_FIRST_WAIT` again.
_WELL_SECONDS = 60.0


class Supervisor:
    """Runs `riverdelta sidecar` as a child process and restarts it, with growing pauses, until `stop`.

    A child that ends with `os.EX_CONFIG` would fail again, so it is not restarted; scoring continues without it. The child's
    standard input is a pipe from this process: if this process dies, the pipe closes and the child stops.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="riverdelta-sidecar", daemon=True)

    @property
    def pid(self) -> int | None:
        """The child's process id, or None if it is not running."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start the child."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the child to save its state and end; kill it if it does not within 20 seconds."""
        self._stopping.set()
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _log.error("the learner (pid %d) did not stop within %.0f s and is killed", child.pid, _STOP_SECONDS)
                child.kill()
        self._thread.join()

    def _keep_alive(self) -> None:
        wait = _FIRST_WAIT
        command = [sys.executable, "-m", "riverdelta", "sidecar", "--service", self.target, "--end-with-stdin"]
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                child = self._child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment())
                if self._stopping.is_set():  # `stop` was called before this child existed
                    child.terminate()
                with child:
                    code = child.wait()
            except OSError as error:
                code = -1
                _log.error("the learner cannot be started: %s", error)
            if self._stopping.is_set():
                return
            if code == os.EX_CONFIG:
                _log.error("learning stops: the learner's configuration is invalid (see its error above); fix it and restart")
                return
            if time.monotonic() - started >= _WELL_SECONDS:
                wait = _FIRST_WAIT
            _log.error("the learner ended with code %d; it is restarted in %.1f s", code, wait)
            self._stopping.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def environment() -> dict[str, str]:
    """Return the environment of a child process: the same import path, without this worker's metrics files."""
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def service_of(cls: type) -> Any:
    """Return the BentoML service that runs the learner beside a decorated class."""
    supervisor = Supervisor(f"{cls.__module__}:{cls.__name__}")

    def learner(self: Any) -> dict[str, int | None]:
        """Return the process id of the learner."""
        return {"pid": supervisor.pid}

    body = {
        "__module__": cls.__module__,
        "start": bentoml.on_startup(lambda self: supervisor.start()),
        "stop": bentoml.on_shutdown(lambda self: supervisor.stop()),
        "learner": bentoml.api(learner),
    }
    shell = type(f"{cls.__name__}Sidecar", (), body)
    # Only probes may call it: BentoML unpickles any request that reaches a dependency's socket.
    set_guard(shell, Policy())
    return bentoml.service(name=f"{cls.__name__}Sidecar", workers=1)(shell)
