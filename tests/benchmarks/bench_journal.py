"""How long a piece of feedback takes to be durable, and how many rows a second are read and joined.

Feedback: each writer is a process that scores 8 rows, sends their labels and waits for the answer, as fast as it can.
Reading: blocks of 1,024 rows (3 ids, 16 floats) and their feedback, read with digests checked, and joined.
Run: python tests/benchmarks/bench_journal.py [--writers 4] [--calls 400] [--json FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from riverdelta.learning.joiner import Joiner
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

BLOCK_ROWS, BLOCKS, READ_ROWS = 1024, 300, 8192


def exchange(journal, rows):
    """Journal one request and its feedback, and return how long the feedback took in seconds."""
    logit = np.zeros(rows, np.float32)
    columns = {name: np.arange(rows) for name in ("user_id", "item_id", "place_id")}
    columns["item_vec"] = np.ones((rows, 16), np.float32)
    request = journal.append(Rows(columns, logit, logit, logit, None, State(0, 0, 0), 1.0))
    start = time.perf_counter()
    keys = np.full(rows, journal.incarnation), np.full(rows, request), np.arange(rows)
    outcomes = journal.feedback(*keys, np.ones(rows, np.float32), 1.0).result().outcomes
    assert set(outcomes) == {"accepted"}
    return time.perf_counter() - start


def write(folder, calls):
    journal = Journal(SqliteLog(folder))
    seconds = [exchange(journal, 8) for _ in range(calls)]
    journal.close()
    print(json.dumps(seconds[calls // 10 :]))


def feedback_latency(folder, writers, calls):
    """Return p50 and p99 of the feedback of several processes on one journal, in milliseconds."""
    command = [sys.executable, __file__, "--write", str(folder), "--calls", str(calls)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(writers)]
    seconds = np.concatenate([json.loads(process.communicate()[0]) for process in processes])
    return [round(float(x), 2) for x in np.percentile(seconds, [50, 99]) * 1e3]


def read_and_join(folder):
    """Return rows a second of one core: of the whole way, and of reading alone. Best of three."""
    journal = Journal(SqliteLog(folder))
    write_seconds = sum(exchange(journal, BLOCK_ROWS) for _ in range(BLOCKS))
    whole, reading = [], []
    for _ in range(3):
        joiner, position, rows, read, start = Joiner(), 0, 0, 0.0, time.thread_time()
        while True:
            began = time.thread_time()
            records = journal.read(position, READ_ROWS)
            read += time.thread_time() - began
            if not records:
                break
            for position, record in records:
                rows += len(joiner.push(position, record) or ())
        assert rows == BLOCK_ROWS * BLOCKS
        whole.append(rows / (time.thread_time() - start))
        reading.append(rows / read)
    journal.close()
    return round(max(whole)), round(max(reading)), round(BLOCK_ROWS * BLOCKS / write_seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write, options.calls)
        sys.exit()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for writers in (1, options.writers):
            place = Path(folder) / str(writers)
            figures[f"feedback_p50_ms_{writers}"], figures[f"feedback_p99_ms_{writers}"] = feedback_latency(
                place, writers, options.calls
            )
        names = "read_and_join_rows_per_second", "read_rows_per_second", "feedback_rows_per_second"
        figures |= dict(zip(names, read_and_join(Path(folder) / "reading"), strict=True))
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures) + "\n")
