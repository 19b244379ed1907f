"""Page: what prometheus_client makes of the same files, to the last digit, whatever comes, changes and goes."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from riverdelta.metrics import Page

#: A process that sets and counts at random when it is told to: each line it reads is how many labels there may be. Its values
#: add up exactly, so that it is no matter whose come first.
WORKER = """
import math, random, sys
from prometheus_client import Counter, Gauge, Histogram, Summary
rng = random.Random(int(sys.argv[1]))
counter = Counter("done", 'Things done, with a "quote", a \\\\ and a\\nnew line', ["of"])
plain = Counter("plain", "Without labels")
histogram = Histogram("took_seconds", "Time", ["of"], buckets=(0.1, 0.25, 1, 10))
summary = Summary("size", "Size", ["of"])
modes = ("all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent", "livemostrecent")
gauges = [Gauge(f"level_{mode}", "Level", ["of", "with_le"], multiprocess_mode=mode) for mode in modes]
values = [0.0, 1.0, -3.5, 0.25, 1e6, 1234567.0, 12345678.5, 1e300, 5e-324, math.inf, -math.inf]
for line in sys.stdin:
    for _ in range(60):
        of = rng.choice(["", "a b", 'q"uote', "back\\\\slash", "new\\nline", "é", "# HELP", *map(str, range(int(line)))])
        kind = rng.randrange(4)
        if kind == 0:
            counter.labels(of).inc(rng.choice([1, 0.5, 1e6]))
            plain.inc()
        elif kind == 1:
            histogram.labels(of).observe(rng.choice([0.0, 0.125, 0.25, 5.0, 1e9]))
        elif kind == 2:
            summary.labels(of).observe(rng.choice([0.5, 2.0]))
        else:
            rng.choice(gauges).labels(of, "+Inf").set(rng.choice(values))
            rng.choice(gauges).labels(of, "1")
    print("done", flush=True)
"""


class Worker:
    def __init__(self, folder, seed):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(seed)],
            env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def work(self, labels=3):
        print(labels, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def workers(tmp_path):
    started = [Worker(tmp_path, seed) for seed in range(3)]
    yield started
    for worker in started:
        worker.end()


def expected(folder):
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry).decode()


def parts(page):
    """A page's lines by the heading that they stand below, in no order."""
    found, heading = {}, ""
    for line in page.splitlines():
        if line.startswith("# "):
            heading = line
            assert heading not in found
            found[heading] = set()
        else:
            assert line not in found[heading]
            found[heading].add(line)
    return found


def test_it_says_what_prometheus_client_says_while_series_and_workers_come_and_go(workers, tmp_path):
    page = Page(tmp_path)
    for turn in range(12):
        for worker in workers[: 1 + turn % 3]:
            worker.work(labels=turn)
        if turn == 7:
            workers[2].end()
            mark_process_dead(workers[2].process.pid, str(tmp_path))
            workers[2] = Worker(tmp_path, 9)
        text = page.text().decode()
        assert parts(text) == parts(expected(tmp_path))
        assert parts(Page(tmp_path).text().decode()) == parts(text)
    assert text.count("\n") > 200


def test_a_histogram_s_buckets_come_in_order_then_its_count_and_its_sum(workers, tmp_path):
    workers[0].work()
    lines = [line for line in Page(tmp_path).text().decode().splitlines() if line.startswith("took_seconds")]
    names = [line.partition("{")[0].removeprefix("took_seconds_") for line in lines[:7]]
    assert names == ["bucket"] * 5 + ["count", "sum"]
    assert ['le="0.1"' in lines[0], 'le="0.25"' in lines[1], 'le="+Inf"' in lines[4]] == [True] * 3


def test_nothing_new_gives_the_same_page_and_an_empty_folder_an_empty_one(workers, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Page(empty).text() == b""
    workers[1].work()
    page = Page(tmp_path)
    assert page.text() == page.text() != b""


def test_a_file_that_was_only_just_made_is_left_out(workers, tmp_path):
    workers[0].work()
    page = Page(tmp_path)
    before = page.text()
    (tmp_path / "counter_1.db").write_bytes(bytes(1 << 16))
    (tmp_path / "gauge_all_2.db").write_bytes(b"")
    assert page.text() == before
