"""Records the golden homes of a version: `python tests/golden/record.py 0.2`, once, when the version is released.

Each home holds what its journal can hold (rows of two workers, scored by ever newer tables; labels that are repeated, replaced
or late, and those of several requests in one record; ticks; every command), two checkpoints, releases, labels that no
checkpoint has yet, and in `last.json` a request without feedback, ids of it by two keys, and its scores.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from scorer import COMMON, KINDS, columns, definition, settings

from riverdelta.learning.commands import Freeze, Promote, Release, Resume, Rollback
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.operator import Operator
from riverdelta.storage.journal.ids import rotate_key

ROWS = 48
#: So many requests later some labels come.
LATE = 5


class Recording:
    """One service of two workers and its learner on a clock of their own."""

    def __init__(self, folder):
        self.now = 1_000.0
        self.made, self.settings = definition(folder), settings(folder)
        self.planes = [self.worker() for _ in range(2)]
        self.trainer = Trainer(self.made, self.settings, clock=lambda: self.now)
        self.operator = Operator(self.trainer.home, self.planes[0].journal, lambda: self.now)
        self.scored = {}

    def worker(self):
        return DataPlane(self.made, self.settings, clock=lambda: self.now, registry=CollectorRegistry())

    def score(self, seed):
        plane = self.planes[seed % 2]
        plane.follower.follow()
        propensity = np.full(ROWS, 0.5) if seed % 5 == 0 else None
        answer = plane.score(columns(ROWS, seed)[0], propensity, trace=f"{seed:032x}" if seed % 3 else None)
        time.sleep(0.05)  # longer than a worker keeps rows to itself
        self.scored[seed] = [f"{answer.impressions}.{i}" for i in range(ROWS)]
        return answer

    def names(self, seed, rows):
        return [self.scored[seed][i] for i in rows], columns(ROWS, seed)[1][rows]

    def send(self, *parts, source=7):
        """Send the names and labels of several requests at once."""
        names = [name for some, _ in parts for name in some]
        labels = np.concatenate([np.asarray(labels, np.float32) for _, labels in parts])
        return asyncio.run(self.planes[0].feedback(names, labels, source)).outcomes

    def step(self, seconds=1.0):
        self.now += seconds
        while self.trainer.step():
            pass

    def explicit(self, seed):
        rows = np.arange(ROWS)
        now = [self.names(seed, rows[:36])]
        if seed - LATE in self.scored:
            now.append(self.names(seed - LATE, rows[36:44]))
        self.send(*now, source=seed % 3)
        names, label = self.names(seed, rows[:8])
        self.send((names[:4], label[:4]), (names[4:], 1.0 - label[4:]))
        self.step()

    def silent(self, seed):
        rows, label = np.arange(40), columns(ROWS, seed)[1]
        clicked = np.flatnonzero(label[:40])
        self.send((self.names(seed, rows)[0], np.full(40, np.nan)), self.names(seed, np.arange(40, 44)))
        self.send(self.names(seed, clicked[::3]))
        self.step(11.0)
        parts = [self.names(seed, clicked[1::3])]
        if seed - LATE in self.scored:
            before = np.flatnonzero(columns(ROWS, seed - LATE)[1])
            parts.append(self.names(seed - LATE, before[2::3]))
        self.send(*parts)

    def teach(self, seeds):
        for seed in seeds:
            self.score(seed)
            (self.silent if self.settings.labels == "silence" else self.explicit)(seed)

    def run(self):
        self.teach(range(6))
        self.operator.ask(Release())
        self.teach(range(6, 12))
        self.operator.ask(Freeze())
        self.teach(range(12, 14))
        self.operator.ask(Resume())
        self.teach(range(14, 18))
        self.operator.ask(Promote(release=1))
        self.teach(range(18, 20))
        self.trainer.save()
        self.operator.ask(Rollback(release=1, relearn=True))
        self.teach(range(20, 24))
        self.trainer.save()
        last = 60 if self.settings.labels == "explicit" else 30
        self.teach(range(24, last))
        self.operator.ask(Release())
        self.step()
        self.score(98)
        rotate_key(self.trainer.home.key_path, self.now, window_seconds=1e12)
        self.planes[1].close()
        self.planes[1] = self.worker()  # issues by the new key
        answer = self.score(99)
        self.step()
        self.trainer.save()
        self.trainer.close()
        assert self.send((self.names(last - 1, np.arange(44, ROWS))[0], np.ones(4))) == ["accepted"] * 4
        for plane in self.planes:
            plane.close()
        return {"ids": self.scored[98] + self.scored[99], "seed": 99, "scores": answer.scores.tolist()}


def main(version):
    for kind, given in KINDS.items():
        folder = Path(__file__).parent / version / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text(json.dumps({**COMMON, **given}, indent=1) + "\n")
        (folder / "last.json").write_text(json.dumps(Recording(folder).run(), indent=1) + "\n")
        for left in ("serve.lock", "sidecar.lock", ".prepare", "journal/turn"):
            (folder / "ranker" / left).unlink(missing_ok=True)
    os.sync()


if __name__ == "__main__":
    main(sys.argv[1])
