"""A learner that lives many times: each life is a fork that is killed at a named point, at a moment, or ends in peace.

Each line of input is a plan: {"point": name, "nth": n}, {"seconds": s} or {"peace": true}; with
"erasing" points count from the start of an erasure on. For each, one line comes out:
{"pid", "position" (where it began), "hit" (the point that it died at, "moment", "peace" or "failed")}.
LABELS are explicit or silence, or kept: explicit, and retention deletes nothing. TASK is a key of `small_scorers.TASKS`.
Run: python lives.py FOLDER LABELS TASK
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
from points import Points
from prometheus_client import CollectorRegistry

from riverdelta.core.settings import Settings
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer, trainer
from riverdelta.sidecar.eraser import Eraser
from riverdelta.storage.log import SqliteLog
from small_scorers import TASKS, definition

#: A life that does not come to its point within this time is killed where it is.
PATIENCE_SECONDS = 15.0


def settings(home, labels, task):
    """All that is saved is saved every few hundredths of a second, and segments are small and soon swept."""
    window = {"labels": "silence", "window_seconds": 0.2, "keep_negatives": 0.5} if labels == "silence" else {}
    if TASKS[task][0].lists:
        window = {"window_seconds": 60.0}  # every list is declared complete before
    return Settings.load(
        home=home,
        grpc_port=0,
        flush_seconds=0.005,
        swap_min_seconds=0.01,
        follow_seconds=0.01,
        checkpoint_seconds=0.05,
        release_seconds=0.12,
        keep_releases=2,
        segment_bytes=500_000,
        journal_max_age_seconds=3600.0 if labels == "kept" else 0.5,
        max_updates_per_entity=60,
        **window,
    )


def live(folder, labels, task, plan, out):
    """One life; returns only where it ends in peace."""

    def told(point):
        os.write(out, point.encode())

    points = Points(plan.get("point"), plan.get("nth", 1), told, folder / "archive")
    points.install()
    if plan.get("erasing"):
        points.begin_with(Eraser, "_erase")
        points.begin_with(SqliteLog, "scrub")
    trainer._TICK_SECONDS = 0.05
    learner = Trainer(definition(folder, task), settings(folder / "home", labels, task))
    os.write(out, f"{learner.learner.position}\n".encode())
    if plan.get("peace"):
        learner.close()
        told("peace")
        return
    learner.run(lambda: False)


def outlive(folder, labels, task, plan):
    """Start a life, wait for its end, and return what is known of it."""
    read, written = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            live(folder, labels, task, plan, written)
        except BaseException:
            traceback.print_exc()
            os.write(written, b"failed")
        os._exit(0)
    os.close(written)
    end = time.monotonic() + plan.get("seconds", 120.0 if plan.get("peace") else PATIENCE_SECONDS)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    position, _, hit = said.rpartition("\n")
    return {"pid": pid, "position": int(position or -1), "hit": hit or "moment"}


def warm(folder, labels, task):
    """Load and compile on a home of its own all that a life uses: every life has it from the start."""
    with tempfile.TemporaryDirectory() as apart:
        given, rows = settings(Path(apart), labels, task), 64
        plane = DataPlane(definition(folder, task), given, registry=CollectorRegistry())
        columns = {"user": np.arange(rows), "x": np.ones(rows, np.float32), "shop": np.ones(rows, np.float32)}
        answer = plane.score(columns)
        asyncio.run(plane.feedback([f"{answer.impressions}.{i}" for i in range(rows)], np.ones(rows, np.float32)))
        Trainer(definition(folder, task), given).close()
        plane.close()


def main(folder, labels, task):
    warm(folder, labels, task)
    for line in sys.stdin:
        print(json.dumps(outlive(folder, labels, task, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
