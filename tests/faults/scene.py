"""Scene: a worker that scores and takes feedback without a pause, beside a learner that is killed again and again."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import lives
import numpy as np
from points import POINTS
from prometheus_client import CollectorRegistry

from riverdelta.checkpoint import CheckpointStore
from riverdelta.dataplane import DataPlane
from riverdelta.events import Feedback
from riverdelta.journal.segments import Segments
from riverdelta.trainer import Trainer


@dataclass(frozen=True)
class Verdict:
    """What came of it: feedback accepted and learned, lost and doubled; arrays that differ from an undisturbed run's."""

    accepted: int
    examples: int
    lost: int
    doubled: int
    unmatched: int
    differing: tuple[str, ...]
    position: int
    last: int
    failures: tuple[str, ...]


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

    def __init__(self, folder, labels="explicit", seed=0):
        self.folder, self.labels, self.rng = folder, labels, np.random.default_rng(seed)
        (folder / "archive").mkdir(parents=True)
        self.definition, self.settings = lives.definition(folder), lives.settings(folder / "home", labels)
        self.plane = DataPlane(self.definition, self.settings, registry=CollectorRegistry())
        self.accepted, self.failures = set(), []
        self._stopping = threading.Event()
        self._user = threading.Thread(target=self._use)
        command = [sys.executable, str(Path(lives.__file__)), str(folder), labels]
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

    def verdict(self):
        """End the use, let the learner catch up and save, and compare it with one that nobody disturbed."""
        self._quiet()
        self.live({"peace": True})
        saved = CheckpointStore(self.folder / "home" / "ranker" / "checkpoints").load()
        records, last = self._records()
        labels = Counter(key for record in records for key in labelled(record))
        whole, state = self._undisturbed()
        # A trial needs releases that a run without kills may have kept, and is none of what is learned.
        names = sorted(name for name in state.keys() | saved.arrays.keys() if not name.startswith("contest/"))
        same = [n in state and n in saved.arrays and identical(state[n], saved.arrays[n]) for n in names]
        counts = whole.joiner
        return Verdict(
            accepted=len(self.accepted),
            examples=whole.examples,
            lost=len(self.accepted - labels.keys()),
            doubled=sum(n - 1 for n in labels.values()) + len(labels.keys() - self.accepted),
            unmatched=counts.unmatched,
            differing=tuple(n for n, equal in zip(names, same, strict=True) if not equal),
            position=saved.position,
            last=last,
            failures=tuple(self.failures),
        )

    def _use(self):
        while not self._stopping.is_set():
            try:
                self._exchange()
            except Exception as error:  # whatever it is, it is a request that failed
                self.failures.append(f"{type(error).__name__}: {error}")
            self._stopping.wait(0.008)

    def _exchange(self):
        """Score, send labels in two parts, and repeat some: as they were, and as their opposite."""
        rows = int(self.rng.integers(2, 16))
        floats = self.rng.normal(size=(2, rows)).astype(np.float32)
        answer = self.plane.score({"user": self.rng.integers(0, 30, rows), "x": floats[0], "shop": floats[1]})
        names = [f"{answer.impressions}.{i}" for i in range(rows)]
        label = (self.rng.random(rows) < 0.5 + 0.4 * np.tanh(floats[1])).astype(np.float32)
        if self.labels == "silence":
            self._send(names, np.full(rows, np.nan, np.float32))
            clicked = np.flatnonzero(label)
            self._send([names[i] for i in clicked], label[clicked])
            return
        half = rows // 2
        self._send(names[:half], label[:half])
        self._send(names, label)
        self._send(names[:half], 1 - label[:half])

    def _send(self, names, labels):
        if names:
            answer = asyncio.run(self.plane.feedback(names, labels))
            taken = [name for name, o in zip(names, answer.outcomes, strict=True) if o == "accepted"]
            if not np.isnan(labels).any():
                twice = self.accepted.intersection(keys := {self.plane._ids.parse(name) for name in taken})
                assert not twice, f"accepted twice: {twice}"
                self.accepted |= keys

    def _quiet(self):
        if not self._stopping.is_set():
            self._stopping.set()
            self._user.join()
            self.plane.close()

    def _records(self):
        """Every record that there ever was, from what is there and what was swept, in one folder for the replay."""
        journal = self.folder / "whole" / "ranker" / "journal"
        shutil.copytree(self.folder / "home" / "ranker" / "journal", journal)
        for part in sorted((self.folder / "archive").iterdir()):
            if not (journal / part.name).exists():
                shutil.copy(part, journal / part.name)
        for shared in journal.glob("*-shm"):
            shared.unlink()
        segments, records, position = Segments(journal, self.settings.segment_bytes), [], 0
        while part := segments.read(position, 65_536):
            assert [s for s, _ in part] == list(range(position + 1, position + 1 + len(part)))
            records += [record for _, record in part]
            position = part[-1][0]
        segments.close()
        return records, position

    def _undisturbed(self):
        """The learner, and all of its state, of one life over the whole journal with a clock at which nothing is due."""
        once = self.settings.model_copy(update={"home": self.folder / "whole"})
        trainer = Trainer(self.definition, once, clock=lambda: 0.0)
        while trainer.step():
            pass
        assert trainer.paused is None, trainer.paused
        trainer.journal.close()
        trainer._lock.release()
        beside = {f"{prefix}{name}": a for prefix, part in trainer._told_of() for name, a in part.state().items()}
        return trainer.learner, trainer.learner.state() | beside


def labelled(record):
    """The keys of the rows that a record labels."""
    if not isinstance(record, Feedback):
        return []
    at = ~np.isnan(record.label)
    parts = record.incarnation[at], record.request[at], record.index[at]
    return list(zip(*(part.tolist() for part in parts), strict=True))


def identical(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
