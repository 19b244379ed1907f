"""Records the golden homes of a version: `python tests/golden/record.py 0.2`, once, when the version is released.

Each home holds what its journal can hold (impressions, labels that are repeated, replaced and late, ticks, every command), a
checkpoint of all of it, releases, and in `open.json` the ids of a request without feedback.
"""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry
from scorer import KINDS, columns, definition, settings

from riverdelta.dataplane import DataPlane
from riverdelta.operator import Operator
from riverdelta.trainer import Trainer


class Recording:
    """One service and its learner on a clock of their own."""

    def __init__(self, folder):
        self.now = 1_000.0
        made, self.settings = definition(folder), settings(folder)
        self.plane = DataPlane(made, self.settings, clock=lambda: self.now, registry=CollectorRegistry())
        self.trainer = Trainer(made, self.settings, clock=lambda: self.now)
        self.operator = Operator(self.trainer.home, self.plane.journal, lambda: self.now)

    def score(self, seed, rows=16):
        answer = self.plane.score(columns(rows, seed)[0], trace=f"{seed:032x}")
        return [f"{answer.impressions}.{i}" for i in range(rows)]

    def send(self, names, labels):
        asyncio.run(self.plane.feedback(names, np.asarray(labels, np.float32), source=7))

    def step(self, seconds=1.0):
        self.now += seconds
        while self.trainer.step():
            pass

    def teach(self, seeds):
        silence = self.settings.labels == "silence"
        for seed in seeds:
            names, label = self.score(seed), columns(16, seed)[1]
            if silence:
                self.send(names, np.full(16, np.nan))
                clicked = np.flatnonzero(label)
                self.send([names[i] for i in clicked[::2]], label[clicked[::2]])
                self.step(40.0 if seed % 3 == 0 else 1.0)
                self.send([names[i] for i in clicked], label[clicked])
            else:
                self.send(names[:12], label[:12])
                self.send(names[:4], label[:4])
                self.send(names[4:8], 1.0 - label[4:8])
                self.step()

    def run(self):
        self.teach(range(6))
        self.operator.release()
        self.teach(range(6, 12))
        self.operator.freeze()
        self.teach(range(12, 14))
        self.operator.resume()
        self.teach(range(14, 18))
        self.operator.promote(1)
        self.teach(range(18, 20))
        self.operator.rollback(1, relearn=True)
        self.teach(range(20, 24))
        self.operator.release()
        self.step()
        names = self.score(99)
        self.step()
        self.trainer.save()
        self.trainer.close()
        self.plane.close()
        return names


def main(version):
    for kind, given in KINDS.items():
        folder = Path(__file__).parent / version / kind
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        given = {**given, "segment_bytes": 100_000, "keep_releases": 2}
        (folder / "settings.json").write_text(json.dumps(given, indent=1) + "\n")
        (folder / "open.json").write_text(json.dumps(Recording(folder).run(), indent=1) + "\n")
        for left in ("serve.lock", "sidecar.lock", ".prepare", "journal/turn"):
            (folder / "ranker" / left).unlink(missing_ok=True)
    os.sync()


if __name__ == "__main__":
    main(sys.argv[1])
