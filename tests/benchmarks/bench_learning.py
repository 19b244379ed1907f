"""How many examples a second are learned on one core, from journal blocks to updated tables, and by the kernels alone.

Seconds are those of the core, so that a neighbour's work does not count.
Target: 500,000 from the journal and 3 million in the kernels, for calibration + linear (3 ids) + entity (16 floats); the gate
takes less than 12 % of the time from journal to tables.
Run: python tests/benchmarks/bench_learning.py [--json FILE]
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from riverdelta import Calibration, Entity, Linear, Schema, Stack
from riverdelta.core.losses import LOG_LOSS
from riverdelta.corrections import calibration, entity_kernels, linear_kernels
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.prequential import Prequential
from riverdelta.learning.joiner import Joiner
from riverdelta.learning.learner import Learner
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

SCHEMA = Schema.of({"user_id": "int64", "item_id": "int64", "place_id": "int64", "item_vec": "float32[16]"})
CORRECTIONS = (Calibration(), Linear("user_id", "item_id", "place_id"), Entity("user_id", on=["item_vec"]))
REQUEST_ROWS, BLOCK_ROWS, READ_ROWS = 32, 1024, 8192


def new_stack():
    stack = Stack([c.clone() for c in CORRECTIONS])
    stack.bind(SCHEMA)
    return stack


def draw(rows, users, seed=0):
    """Return columns with the ids of a catalogue (few often, many seldom), base logits and labels."""
    rng = np.random.default_rng(seed)
    sizes = {"user_id": users, "item_id": 8_000, "place_id": 500}
    columns = {name: (size * rng.random(rows) ** 3).astype(np.int64) * 2_654_435_761 for name, size in sizes.items()}
    vectors = rng.normal(size=(sizes["item_id"], 16)).astype(np.float32)
    columns["item_vec"] = vectors[columns["item_id"] // 2_654_435_761]
    base = rng.normal(-1, 1, (rows, 1)).astype(np.float32)
    label = (rng.random(rows) < LOG_LOSS.inverse_link(base)[:, 0]).astype(np.float32)
    return columns, base, label


def write(folder, rows, users, feedback_rows):
    """Write a journal as a worker does: blocks of impressions, then their feedback in groups of `feedback_rows`."""
    columns, base, label = draw(rows, users)
    journal = Journal(SqliteLog(folder))
    for start in range(0, rows, BLOCK_ROWS):
        numbers = []
        for at in range(start, min(start + BLOCK_ROWS, rows), REQUEST_ROWS):
            part = slice(at, at + REQUEST_ROWS)
            logit = base[part, 0]
            state = State(0, 0, 0)
            numbers.append(
                journal.append(Rows({n: c[part] for n, c in columns.items()}, logit, logit, logit, None, state, 0.0))
            )
        request, index = (a.ravel() for a in np.meshgrid(numbers, np.arange(REQUEST_ROWS), indexing="ij"))
        for at in range(0, len(request), feedback_rows):
            part = slice(at, at + feedback_rows)
            incarnation = np.full(len(request[part]), journal.incarnation)
            journal.feedback(incarnation, request[part], index[part], label[start:][part], 1.0).result()
    return journal


def asking():
    """Return what lies between two readings of the clock with nothing between them, in seconds."""
    return float(np.median([-(time.thread_time() - time.thread_time()) for _ in range(1000)]))


class TimedGate(Gate):
    """A gate that knows how long it took, without what asking the clock takes: that is no part of learning.

    The clock is asked once more before, for the first reading after other work takes several times as long as the next.
    """

    seconds, asked = 0.0, asking()

    def update(self, *arguments):
        time.thread_time()
        start = time.thread_time()
        super().update(*arguments)
        self.seconds += time.thread_time() - start - self.asked

    def note(self, position):
        time.thread_time()
        start = time.thread_time()
        super().note(position)
        self.seconds += time.thread_time() - start - self.asked


def from_journal(journal, rows):
    """Read and learn the whole journal once; return seconds of reading and of learning, and those of the gate within."""
    gate = TimedGate()
    learner = Learner(new_stack(), Joiner(), Prequential(), gate)
    reading = learning = 0.0
    while True:
        start = time.thread_time()
        records = journal.read(learner.position, READ_ROWS)
        reading += time.thread_time() - start
        if not records:
            assert learner.examples == rows
            return reading, learning, gate.seconds
        start = time.thread_time()
        for sequence, record in records:
            learner.push(sequence, record)
        learning += time.thread_time() - start


@contextmanager
def timed_kernels():
    """Time the compiled kernels of the three corrections while they learn."""
    spent = {}
    places = {"calibration": (calibration, "_learn"), "linear": (linear_kernels, "learn"), "entity": (entity_kernels, "learn")}
    kernels = {name: getattr(*place) for name, place in places.items()}

    def timed(name, kernel):
        def run(*arguments):
            start = time.thread_time()
            made = kernel(*arguments)
            spent[name] = spent.get(name, 0.0) + time.thread_time() - start
            return made

        return run

    for name, kernel in kernels.items():
        setattr(*places[name], timed(name, kernel))
    try:
        yield spent
    finally:
        for name, kernel in kernels.items():
            setattr(*places[name], kernel)


def in_memory(rows, users):
    """Learn blocks that are in memory; return seconds of the stack and of each kernel within it."""
    columns, base, label = draw(rows, users, seed=1)
    stack, weight = new_stack(), np.ones(rows, np.float32)
    with timed_kernels() as spent:
        start = time.thread_time()
        for at in range(0, rows, READ_ROWS):
            part = slice(at, at + READ_ROWS)
            stack.learn({n: c[part] for n, c in columns.items()}, base[part], label[part], weight[part])
        return time.thread_time() - start, spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40 * 8192)
    parser.add_argument("--users", type=int, default=10_000, help="more users miss the processor's caches more often")
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    figures = {"rows": options.rows, "users": options.users}
    in_memory(READ_ROWS, options.users)
    for feedback_rows in (1024, 64):
        with tempfile.TemporaryDirectory() as folder:
            journal = write(Path(folder), options.rows, options.users, feedback_rows)
            *best, gate = min(
                (from_journal(journal, options.rows) for _ in range(options.repeat)), key=lambda run: sum(run[:2])
            )
            journal.close()
        name = f"journal_feedback_{feedback_rows}"
        figures[f"{name}_per_second"] = options.rows / sum(best)
        figures[f"{name}_reading_share"] = best[0] / sum(best)
        figures[f"{name}_gate_share"] = gate / sum(best)
        print(
            f"journal to tables, {feedback_rows:>4} labels a record: {options.rows / sum(best):>10,.0f} examples a second "
            f"({best[0] / sum(best):.0%} of it reading, {gate / sum(best):.1%} the gate)"
        )
    seconds, spent = min((in_memory(options.rows, options.users) for _ in range(options.repeat)), key=lambda run: run[0])
    kernels = sum(spent.values())
    figures |= {"stack_per_second": options.rows / seconds, "kernels_per_second": options.rows / kernels}
    print(f"stack, blocks in memory:                  {options.rows / seconds:>10,.0f} examples a second")
    print(f"kernels alone:                            {options.rows / kernels:>10,.0f} examples a second")
    for name, share in spent.items():
        figures[f"kernel_{name}_per_second"] = options.rows / share
        print(f"  {name:<39} {options.rows / share:>10,.0f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
