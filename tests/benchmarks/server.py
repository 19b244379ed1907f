"""Server: a real `bentoml serve` of a service file, and what its processes cost."""

import http.client
import os
import socket
import subprocess
import sys
import time

from processes import descendants


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """Serves `service:<name>` of a folder on free ports until the `with` ends."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.port, self.grpc_port = free_port(), free_port()

    def __enter__(self):
        environment = os.environ | {
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "RIVERDELTA_HOME": str(self.folder / "home"),
            "RIVERDELTA_GRPC_PORT": str(self.grpc_port),
        }
        command = [sys.executable, "-m", "bentoml", "serve", f"service:{self.name}", "--host", "127.0.0.1"]
        (self.folder / "bentoml").mkdir(exist_ok=True)
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], cwd=self.folder, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 60
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"{self.name} did not start:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.2)
        found = descendants(self.process.pid)
        self.workers = [p for p, line in found.items() if f"--service-name {self.name} " in f"{line} "]
        self.learners = [p for p, line in found.items() if "riverdelta sidecar" in line]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def _ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path):
        """Return status and body of a GET."""
        return self._request("GET", path, None)

    def post(self, path, body):
        """Return the body of a POST; raises where it is refused."""
        status, answer = self._request("POST", path, body)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {answer[:300]!r}")
        return answer

    def _request(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
