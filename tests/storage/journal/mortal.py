"""A program that is killed again and again: writers on one journal, each dead by SIGKILL at a moment of chance.

Prints one JSON line [incarnation, request, labels, distinct outcomes] for each answer that reached the outside before the kill.
Run: python mortal.py FOLDER ROUNDS SEED
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State


def write(folder, out, seed):
    """Score and feed back for ever, and report each answer through the pipe once it is there."""
    rng = np.random.default_rng(seed)
    journal = Journal(SqliteLog(folder, 150_000), flush_seconds=0.002, flush_rows=32)
    while True:
        rows = int(rng.integers(1, 40))
        logit = rng.normal(size=rows).astype(np.float32)
        request = journal.append(Rows({"user_id": np.arange(rows)}, logit, logit, logit, None, State(0, 0, 0), 1.0))
        if rng.random() < 0.5:
            time.sleep(0.003)
        label = rng.integers(0, 2, rows)
        keys = np.full(rows, journal.incarnation), np.full(rows, request), np.arange(rows)
        answer = journal.feedback(*keys, label.astype(np.float32), 2.0).result()
        line = json.dumps([journal.incarnation, request, label.tolist(), sorted(set(answer.outcomes))])
        # In one piece, being shorter than PIPE_BUF.
        os.write(out, f"{line}\n".encode())


def main(folder, rounds, seed):
    chance = random.Random(seed)
    for number in range(rounds):
        read, written = os.pipe()
        children = []
        for child in range(2):
            if (pid := os.fork()) == 0:
                write(folder, written, seed + 2 * number + child)
            children.append(pid)
        os.close(written)
        time.sleep(chance.uniform(0.01, 0.25))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with os.fdopen(read) as pipe:
            sys.stdout.write(pipe.read())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
