"""What impressions that wait for feedback cost the learner: memory, checkpoints, and the rate at which late labels are learned.

A worker scores rows with a wide vector and the learner reads them. Half of the rows get their label in the order of scoring,
and half in a random one. Memory is that of the learner's process over what it takes with nothing waiting.
Run: python tests/benchmarks/bench_waiting.py [--rows N] [--width D] [--memory BYTES] [--json FILE]
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from prometheus_client import CollectorRegistry

from riverdelta import Calibration, Linear
from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.serving.dataplane import DataPlane
from riverdelta.sidecar import Trainer

BASE = """<ir_version: 8, opset_import: ["" : 17]>
ranker (float[N] x) => (float[N] logit) { logit = Identity(x) }"""
REQUEST_ROWS = 1_000


def scorer(folder, width, memory):
    path = folder / "ranker.onnx"
    if not path.exists():
        onnx.save(onnx.parser.parse_model(BASE), path)
    definition = Definition(
        "ranker", path, "logit", columns=Schema.of({"vec": f"float32[{width}]"}), corrections=[Calibration(), Linear("vec")]
    )
    return definition, Settings.load(home=folder / "home", grpc_port=0, breaker="off", waiting_bytes=memory)


def score(folder, rows, width, memory):
    """Score the rows in a process of its own, and keep the ids."""
    plane = DataPlane(*scorer(folder, width, memory), registry=CollectorRegistry())
    rng, ids = np.random.default_rng(0), []
    for _ in range(rows // REQUEST_ROWS):
        vec = rng.normal(size=(REQUEST_ROWS, width)).astype(np.float32)
        ids.append(plane.score({"x": vec[:, 0], "vec": vec}).impressions)
    plane.close()
    (folder / "ids.json").write_text(json.dumps(ids))


def feed(folder, width, memory, kind):
    """Label the half of the rows that is meant, in a process of its own."""
    plane = DataPlane(*scorer(folder, width, memory), registry=CollectorRegistry())
    names = [f"{i}.{row}" for i in json.loads((folder / "ids.json").read_text()) for row in range(REQUEST_ROWS)]
    order = np.arange(0, len(names), 2) if kind == "in order" else 1 + 2 * np.random.default_rng(1).permutation(len(names) // 2)
    for part in np.array_split(order, max(1, len(order) // REQUEST_ROWS)):
        answer = asyncio.run(plane.feedback([names[i] for i in part], (part % 3 == 0).astype(np.float32)))
        assert set(answer.outcomes) == {"accepted"}
    plane.close()


def elsewhere(function, *arguments):
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def memory_used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def catch_up(trainer):
    """Step until all is learned; return the seconds, and the longest step while a checkpoint was written."""
    last, start, longest = trainer.journal.last(), time.perf_counter(), 0.0
    while trainer.learner.position < last:
        writing, begun = trainer._saver.writing, time.perf_counter()
        trainer.step()
        longest = max(longest, time.perf_counter() - begun) if writing else longest
    return time.perf_counter() - start, longest


def measure(folder, rows, width, memory):
    started = Trainer(*scorer(folder, width, memory))
    started.save()
    nothing = memory_used()
    elsewhere(score, folder, rows, width, memory)
    catch_up(started)
    started.save()
    found = {
        "rows": rows,
        "impressions_bytes": rows * width * 4,
        "checkpoint_bytes": max(path.stat().st_size for path in (started.home.folder / "checkpoints").iterdir()),
        "memory_bytes": memory_used() - nothing,
    }
    for kind in ("in order", "at random"):
        elsewhere(feed, folder, width, memory, kind)
        before = started.learner.examples
        seconds, longest = catch_up(started)
        found[kind] = {"labels_per_second": (started.learner.examples - before) / seconds, "longest_step_while_saving": longest}
    found |= {"learned": started.learner.examples, "unmatched": started.learner.joiner.unmatched}
    found["memory_bytes_after_labels"] = memory_used() - nothing
    started.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--memory", type=int, default=64 << 20, help="RIVERDELTA_WAITING_BYTES")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.rows, given.width, given.memory)
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
