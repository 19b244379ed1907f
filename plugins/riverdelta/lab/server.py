"""Server: `bentoml serve` as a child process, for the demo and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riverdelta.core.errors import Unavailable
from riverdelta.lab.client import FAILURES, Http

_START_SECONDS, _STOP_SECONDS = 120.0, 30.0


@dataclass(frozen=True)
class Server:
    """A running service: its process, its ports and its log file."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    log: Path

    def status(self) -> dict[str, Any]:
        """Return GET /status."""
        with contextlib.closing(Http(self.port)) as http:
            return http.status()

    def stop(self) -> int:
        """Stop the service by SIGTERM, as an operator would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def serving(folder: Path, target: str, home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve `target` (module:Class) from `folder` on free loopback ports until the block ends.

    Raises `Unavailable` with the end of its log if it does not become ready.
    """
    port, grpc_port = free_port(), free_port()
    log = home.parent / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "RIVERDELTA_HOME": str(home),
        "RIVERDELTA_GRPC_PORT": str(grpc_port),
        "BENTOML_DO_NOT_TRACK": "True",
        # Its own metrics files: two servers with one BentoML home would delete each other's.
        "BENTOML_HOME": str(home.parent / "bentoml"),
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings, **(environment or {})},
        )
    server = Server(process, port, grpc_port, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(*FAILURES, ValueError):
            if server.status()["sidecar"]["alive"]:
                return
        time.sleep(0.1)
    tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-15:])
    raise Unavailable(f"the service did not become ready (exit code {server.process.poll()}); the end of {server.log}:\n{tail}")
