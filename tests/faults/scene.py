"""Scene: a worker that scores and takes feedback without a pause, beside a learner that is killed again and again."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import lives
import numpy as np
from points import POINTS
from prometheus_client import CollectorRegistry
from verdict import judge

from riverdelta.serving.dataplane import DataPlane
from riverdelta.storage.home import Home
from small_scorers import definition, labels, request

#: The user rests while the learner has more records than this before it, so that on a slow machine it catches up too.
_AHEAD = 100


def plans(kills, seed, moments=0.3):
    """Return `kills` plans: named points in a shuffled order, each as often as the others, and random moments between."""
    rng = np.random.default_rng(seed)
    found = []
    points = []
    while len(found) < kills:
        if rng.random() < moments:
            found.append({"seconds": round(float(rng.uniform(0.02, 0.6)), 3)})
            continue
        points = points or rng.permutation(POINTS).tolist()
        found.append({"point": points.pop(), "nth": int(rng.integers(1, 4))})
    return found


class Scene:
    """A home in `folder` with one worker in this process and lives of its learner in another."""

    def __init__(self, folder, labels="explicit", seed=0, task="binary"):
        self.folder, self.labels, self.task, self.rng = folder, labels, task, np.random.default_rng(seed)
        (folder / "archive").mkdir(parents=True)
        self.definition, self.settings = definition(folder, task), lives.settings(folder / "home", labels, task)
        self.plane = DataPlane(self.definition, self.settings, registry=CollectorRegistry())
        self.home = Home(self.definition, self.settings)
        self.accepted, self.failures, self._position = {}, [], 0
        #: The ids of users, the user of each row, and the seconds between two exchanges.
        self.users, self.of, self.pause = np.arange(30), {}, 0.02
        self._stopping = threading.Event()
        self._user = threading.Thread(target=self._use)
        command = [sys.executable, str(Path(lives.__file__)), str(folder), labels, task]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        self._lives = subprocess.Popen(command, **pipes)

    def __enter__(self):
        self._user.start()
        return self

    def __exit__(self, *_):
        self._quiet()
        with self._lives:
            self._lives.stdin.close()
            self._lives.wait(60)

    def start(self, plan):
        """Begin a life without waiting for its end."""
        self._lives.stdin.write(json.dumps(plan) + "\n")
        self._lives.stdin.flush()

    def ended(self):
        """Wait for the end of the life that was begun, and return its report."""
        report = json.loads(self._lives.stdout.readline())
        assert report["hit"] != "failed", "a life of the learner ended with an error"
        return report

    def live(self, plan):
        """One life, from its beginning to its end."""
        self.start(plan)
        return self.ended()

    def verdict(self, forgotten=None, since=None):
        """End the use, let the learner catch up and save, and compare it with one that nobody disturbed.

        The rows of the user `forgotten` may be missing. That one begins with the home `since`, if given.
        """
        self._quiet()
        self.live({"peace": True})
        # Every record that there ever was: what is there, and what was swept.
        whole = self.folder / "whole"
        journal = whole / self.definition.name / "journal"
        shutil.copytree(self.home.folder / "journal", journal)
        shutil.copy(self.home.folder / "definition.json", whole / self.definition.name)
        for part in sorted((self.folder / "archive").iterdir()):
            if not (journal / part.name).exists():
                shutil.copy(part, journal / part.name)
        if since is not None:
            shutil.copytree(since, whole / self.definition.name, dirs_exist_ok=True)
        gone = {key for key, user in self.of.items() if user == forgotten}
        return judge(self.definition, self.settings, whole, self.accepted, self.failures, gone)

    def _use(self):
        while not self._stopping.is_set():
            try:
                self._exchange()
            except Exception as error:  # whatever it is, it is a request that failed
                self.failures.append(f"{type(error).__name__}: {error}")
            self._stopping.wait(self.pause)
            while not self._stopping.is_set() and self._position - self.home.read_status().get("position", 0) > _AHEAD:
                self._stopping.wait(0.05)

    def _exchange(self):
        """Score, send labels in two parts, and repeat some: as they were, and as another."""
        rows = int(self.rng.integers(2, 16))
        columns = request(self.rng, rows, self.users)
        answer = self.plane.score(columns)
        names = [f"{answer.impressions}.{i}" for i in range(rows)]
        self.of |= zip(map(self.plane._ids.parse, names), columns["user"].tolist(), strict=True)
        label = labels(self.rng, self.task, columns)
        if self.labels == "silence":
            self._send(names, np.full(rows, np.nan, np.float32))
            clicked = np.flatnonzero(label)
            self._send([names[i] for i in clicked], label[clicked])
            return
        half = rows // 2
        self._send(names[:half], label[:half])
        self._send(names, label, complete=self.definition.loss.lists)
        self._send(names[:half], (label[:half] + 1) % len(self.definition.loss.classes or ("no", "yes")))

    def _send(self, names, labels, **more):
        if names:
            answer = asyncio.run(self.plane.feedback(names, labels, **more))
            self._position = answer.position
            if not np.isnan(labels).any():
                given = zip(names, labels.tolist(), answer.outcomes, strict=True)
                # A positive that is late is journalled too.
                taken = {self.plane._ids.parse(name): label for name, label, o in given if o in ("accepted", "late")}
                twice = self.accepted.keys() & taken.keys()
                assert not twice, f"accepted twice: {twice}"
                self.accepted |= taken

    def _quiet(self):
        if not self._stopping.is_set():
            self._stopping.set()
            self._user.join()
            self.plane.close()
