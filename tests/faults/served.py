"""Served: a whole server on one home, with clients over HTTP, whose processes are killed -9 alone or all at once."""

import contextlib
import http.client
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from verdict import judge

from riverdelta.core.errors import Unavailable
from riverdelta.core.settings import Settings
from riverdelta.lab.client import Http
from riverdelta.lab.server import serving
from riverdelta.storage.home import Home
from small_scorers import TASKS, definition, labels, request

TESTS = Path(__file__).parents[1]
#: All is saved so often that kills fall into it, and segments are small; none is swept, so that all can be learned again.
QUICK = {"checkpoint_seconds": 0.5, "release_seconds": 2.0, "keep_releases": 2, "segment_bytes": 1_000_000}
USERS = np.arange(50)
#: How long a list waits for more feedback.
WINDOW_SECONDS = 1.0


class Line(Http):
    """A kept-alive connection that knows its own port, by which a worker's connections are told apart."""

    def call(self, *given):
        if self._connection.sock is None:
            self._connection.connect()
        self.own_port = self._connection.sock.getsockname()[1]
        return super().call(*given)


class Client(threading.Thread):
    """Scores and feeds back; feedback that got no answer is sent again until it gets one."""

    def __init__(self, served, seed):
        super().__init__(daemon=True)
        self.served, self.rng = served, np.random.default_rng(seed)
        self.outcomes, self.unanswered, self.requests, self.position = {}, [], 0, 0
        self._line, self._of = None, None

    def run(self):
        while not self.served.ending.wait(0.02) or self.unanswered:
            server = self.served.up.wait(0.1) and self.served.server
            if not server:
                continue
            if self._of is not server:
                self._line, self._of = Line(server.port, self.served.lists and self.rng.random() < 0.5), server
            try:
                self._exchange()
            except (OSError, http.client.HTTPException) as error:
                self.served.failed(server, getattr(self._line, "own_port", 0), f"{type(error).__name__}: {error}")

    def _exchange(self, rows=3):
        if not self.unanswered:
            columns = request(self.rng, rows, USERS)
            self.requests += 1
            _, impressions, _ = self._line.score(columns)
            self.unanswered.append(([f"{impressions}.{i}" for i in range(rows)], labels(self.rng, self.served.task, columns)))
        names, label = self.unanswered[-1]
        self.requests += 1
        outcomes, self.position = self._line.feedback(names, label)
        self.unanswered.pop()
        self.outcomes |= {n: (o, y) for n, o, y in zip(names, outcomes, label.tolist(), strict=True)}


class Served:
    """A home below `folder` that is served again and again; `failures` are requests that failed beside any killed worker."""

    def __init__(self, folder, task, seed=0, clients=3):
        folder.mkdir()
        self.folder, self.task, self.rng = folder, task, np.random.default_rng(seed)
        #: Some connections say that a list is complete; the others leave it to its window.
        self.lists = TASKS[task][0].lists
        self.settings = {**QUICK, **({"window_seconds": WINDOW_SECONDS} if self.lists else {})}
        self.environment = {f"RIVERDELTA_{name.upper()}": str(value) for name, value in self.settings.items()}
        self.environment |= {"SCORER_TASK": task, "SCORER_FOLDER": str(folder)}
        self.server, self.up, self.ending = None, threading.Event(), threading.Event()
        self.kills = dict.fromkeys(("server", "starting", "worker", "learner"), 0)
        self.failures, self.of_killed = [], 0
        self._dead, self._cut = set(), set()
        self.clients = [Client(self, [seed, i]) for i in range(clients)]
        for client in self.clients:
            client.start()

    def failed(self, server, port, why):
        """Note a request that failed: one to a killed process, or one that should have been answered."""
        if server.process.pid in self._dead or (server.process.pid, port) in self._cut:
            self.of_killed += 1
        else:
            self.failures.append(why)

    def life(self, alone=("worker", "learner"), chance=0.5):
        """Serve, kill some of `alone` one by one, and then every process at once, while requests are on their way."""
        with self._serving() as server:
            for kind in alone:
                if self.rng.random() < chance:
                    self._pause()
                    self.kill_one(server, kind)
            self._pause()
            self.kill_all(server.process.pid)
        self.kills["server"] += 1

    def stillborn(self, seconds):
        """Kill every process of a server at a moment of its first `seconds`; false where it was up before."""
        before = {child.pid for child in psutil.Process().children()}

        def strike():
            for child in psutil.Process().children():
                if child.pid not in before:
                    self.kill_all(child.pid)

        timer = threading.Timer(float(self.rng.uniform(0, seconds)), strike)
        timer.start()
        with contextlib.suppress(Unavailable), self._serving():
            timer.join()
        timer.join()
        self.kills["server"] += 1
        self.kills["starting"] += 1

    def kill_one(self, server, kind):
        """Kill a worker, with the requests that it holds, or the learner."""
        fits = {"worker": ("worker.service", "--service-name Ranker "), "learner": ("riverdelta sidecar",)}[kind]
        for process in psutil.Process(server.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if all(part in " ".join(process.cmdline()) for part in fits):
                    process.suspend()
                    held = [c.raddr.port for c in process.net_connections("tcp") if c.raddr and c.laddr.port == server.port]
                    self._cut |= {(server.process.pid, port) for port in held}
                    process.kill()
                    self.kills[kind] += 1
                    return

    def kill_all(self, pid):
        """Stop a process and all below it, so that none sees another end, then kill them."""
        self._dead.add(pid)
        self.up.clear()
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped = [psutil.Process(pid)]
            stopped[0].suspend()
            while new := [p for p in stopped[0].children(recursive=True) if p not in stopped]:
                for process in new:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.suspend()
                stopped += new
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(stopped, timeout=10)

    def verdict(self, patience=120.0):
        """Serve once more in peace until every client has its answers and all is learned and saved, and judge."""
        with self._serving() as server:
            self.ending.set()
            for client in self.clients:
                client.join(patience)
            assert not any(client.is_alive() or client.unanswered for client in self.clients), "a client got no answer"
            deadline = time.monotonic() + patience
            last = max(client.position for client in self.clients)
            # A list is learned when its window ends, which is at a later record.
            while (said := server.status()["learning"])["position"] < last or said.get("lists", {}).get("items"):
                assert time.monotonic() < deadline, f"the learner does not catch up: {said}"
                time.sleep(0.1)
        made, settings = definition(self.folder, self.task), Settings.load(home=self.folder / "state", **self.settings)
        home, whole = Home(made, settings), self.folder / "whole"
        shutil.copytree(home.folder / "journal", whole / made.name / "journal")
        shutil.copy(home.folder / "definition.json", whole / made.name)
        ids = home.ids()
        # A repetition of what was taken before its answer got lost is a duplicate.
        taken = {name: label for c in self.clients for name, (o, label) in c.outcomes.items() if o in ("accepted", "duplicate")}
        accepted = {ids.parse(name): label for name, label in taken.items()}
        return judge(made, settings, whole, accepted, self.failures)

    def impressions_lost(self):
        """How many rows were scored and gone with their worker before they were durable: their feedback was not accepted."""
        return sum(outcome == "impression_lost" for client in self.clients for outcome, _ in client.outcomes.values())

    @contextlib.contextmanager
    def _serving(self):
        with serving(TESTS, "scorer_service:Ranker", self.folder / "state", self.environment) as server:
            self.server = server
            self.up.set()
            try:
                yield server
            finally:
                self.up.clear()

    def _pause(self):
        time.sleep(float(self.rng.uniform(0.1, 1.5)))
