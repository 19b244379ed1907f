"""How long a learner takes from its start until it has learned a whole journal again: no checkpoint, the breaker and drift on.

The stack is calibration + linear (3 ids) + entity (16 floats); the time is that of the wall, from the first line of start-up.
Target: 1 million examples in under 5 seconds.
Run: python tests/benchmarks/bench_recovery.py [--rows N] [--json FILE]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import onnx
from bench_learning import BLOCK_ROWS, CORRECTIONS, write

from riverdelta.core.features import Schema
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition
from riverdelta.sidecar import Trainer
from riverdelta.storage.home import Home

BASE = """<ir_version: 8, opset_import: ["" : 17]>
ranker (float[N, 16] item_vec) => (float[N] logit) { logit = ReduceMean<axes = [1], keepdims = 0>(item_vec) }"""
LABELS_A_RECORD = (1024, 64)


def recover(folder, rows, labels):
    """Write a journal of `rows` examples, and return the seconds until a fresh learner has learned it."""
    path = folder / "ranker.onnx"
    onnx.save(onnx.parser.parse_model(BASE), path)
    columns = Schema.of(dict.fromkeys(("user_id", "item_id", "place_id"), "int64"))
    definition = Definition("ranker", path, "logit", columns=columns, corrections=CORRECTIONS)
    settings = Settings.load(home=folder / "home", grpc_port=0)
    Home(definition, settings).prepare()
    write(folder / "home" / "ranker" / "journal", rows, 20_000, labels).close()
    start = time.perf_counter()
    trainer = Trainer(definition, settings)
    last = trainer.journal.last()
    while trainer.learner.position < last:
        trainer.step()
    seconds = time.perf_counter() - start
    assert trainer.learner.examples == rows, trainer.learner.examples
    trainer.close()
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many examples, rounded up to whole blocks")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    found, rows = {}, -(-given.rows // BLOCK_ROWS) * BLOCK_ROWS
    for labels in LABELS_A_RECORD:
        with tempfile.TemporaryDirectory() as folder:
            seconds = recover(Path(folder), rows, labels)
        found[labels] = {"rows": rows, "seconds": seconds}
        print(f"{rows:,} examples, {labels:>4} labels a record: {seconds:6.2f} s, {rows / seconds / 1e6:.3f} million/s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
