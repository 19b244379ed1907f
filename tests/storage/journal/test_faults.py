"""What a journal is for: kill -9 at any moment, a disk that is full for a while, a folder that may not be written."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from riverdelta.core.errors import Unavailable
from riverdelta.core.records import Feedback, Impressions
from riverdelta.learning.joiner import Joiner
from riverdelta.storage.journal import Reader
from riverdelta.storage.log import SqliteLog

PROGRAM = Path(__file__).with_name("mortal.py")


def rows_of(record):
    incarnation = np.broadcast_to(record.incarnation, len(record)).tolist()
    return list(zip(incarnation, record.request.tolist(), record.index.tolist(), strict=True))


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_was_accepted_before_a_kill_is_there_once_with_its_impression(tmp_path, seed):
    command = [sys.executable, str(PROGRAM), str(tmp_path / "journal"), "8", str(seed)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment).stdout
    accepted = {}
    for line in answered.splitlines():
        incarnation, request, labels, outcomes = json.loads(line)
        assert set(outcomes) == {"accepted"}
        accepted |= {(incarnation, request, row): label for row, label in enumerate(labels)}
    assert len(accepted) > 100

    reader = Reader(SqliteLog(tmp_path / "journal"))
    scored, fed, joiner, learned, position = {}, {}, Joiner(), Counter(), 0
    while records := reader.read(position, 1000):
        for sequence, record in records:
            assert sequence == position + 1
            position = sequence
            for key in rows_of(record):
                place = scored if isinstance(record, Impressions) else fed
                assert key not in place, f"{key} is there twice"
                place[key] = position
            if isinstance(record, Feedback):
                assert all(scored[key] < position for key in rows_of(record))
                labels = dict(zip(rows_of(record), record.label.tolist(), strict=True))
                assert all(accepted.get(key, label) == label for key, label in labels.items())
            if (examples := joiner.push(sequence, record)) is not None:
                learned["examples"] += len(examples)
    reader.close()
    assert accepted.keys() <= fed.keys()
    assert (learned["examples"], joiner.unmatched) == (len(fed), 0)
    assert len(list((tmp_path / "journal").glob("*.sqlite"))) > 1


class TestFullDisk:
    @pytest.fixture
    def worker(self, home):
        """A worker whose segment may not grow, as on a full disk, until `free` is called."""
        worker = home.worker(buffer_rows=400)
        worker.feed(worker.score(), 0, 1)
        db = worker.journal.log._writer.newest._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        worker.free = lambda: db.execute("PRAGMA max_page_count = 1000000")
        return worker

    def fill(self, worker):
        """Score until the disk is full and the journal says so."""
        while worker.journal.health().error is None:
            worker.score(rows=100)
            time.sleep(0.01)

    def test_scoring_goes_on_feedback_is_refused_and_the_reason_is_told_once(self, worker, caplog):
        self.fill(worker)
        worker.score(rows=100)
        with pytest.raises(Unavailable, match=r"cannot be written now \(journal segment .* full; check that its disk has room"):
            worker.feed(0, 1, 1)
        assert "full" in worker.journal.health().error
        assert caplog.text.count("the journal cannot be written") == 1

    def test_rows_beyond_what_memory_may_hold_are_dropped_and_counted(self, worker):
        self.fill(worker)
        for _ in range(10):
            worker.score(rows=100)
        health = worker.journal.health()
        assert health.pending_rows <= 400
        assert health.dropped_rows >= 600

    def test_when_there_is_room_again_what_waited_is_stored_and_feedback_is_taken(self, worker, records):
        self.fill(worker)
        last = worker.score(rows=100)
        with pytest.raises(Unavailable):
            worker.feed(last, 0, 1)
        worker.free()
        while worker.journal.health().error is not None:
            time.sleep(0.01)
        assert worker.feed(last, [0, 1], 1) == ["accepted", "accepted"]
        assert worker.journal.health().pending_rows == 0
        found = records(worker.journal)
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))

    def test_feedback_to_another_worker_is_refused_until_there_is_room_and_taken_then(self, worker, home):
        self.fill(worker)
        request, taker = worker.score(rows=100), home.worker(patience_seconds=0.05)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"is alive and has not stored them within 0.05 s; send the feedback again"):
                taker.feed(request, 0, 1, of=worker)
        worker.free()
        while worker.journal.health().error is not None or worker.journal.health().pending_rows:
            time.sleep(0.01)
        assert taker.feed(request, 0, 1, of=worker) == ["accepted"]

    def test_feedback_for_rows_that_were_dropped_meanwhile_is_lost_and_says_so(self, worker):
        self.fill(worker)
        first = worker.score(rows=100)
        for _ in range(5):
            worker.score(rows=100)
        worker.free()
        while worker.journal.health().error is not None:
            time.sleep(0.01)
        assert worker.feed(first, 0, 1) == ["impression_lost"]


LIMITED = """
import resource, signal, sys, time
from pathlib import Path
import numpy as np
from riverdelta.core.errors import Unavailable
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(SqliteLog(Path(sys.argv[1])))
def feed():
    logit = np.zeros(500, np.float32)
    request = journal.append(Rows({"x": logit}, logit, logit, logit, None, State(0, 0, 0), 1.0))
    keys = np.full(500, journal.incarnation), np.full(500, request), np.arange(500)
    return set(map(str, journal.feedback(*keys, logit, 1.0).result().outcomes))
assert feed() == {"accepted"}
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
accepted = 1
try:
    for _ in range(50):
        assert feed() == {"accepted"}
        accepted += 1
    sys.exit("the limit was never reached")
except Unavailable as error:
    assert "cannot be written now" in str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while journal.health().error is not None or journal.health().pending_rows:
    time.sleep(0.01)
assert feed() == {"accepted"}
journal.close()
print(accepted + 1)
"""


def test_a_write_that_the_system_refuses_is_survived_and_leaves_no_half_record(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "journal")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    reader = Reader(SqliteLog(tmp_path / "journal"))
    records = reader.read(0, 10**9)
    reader.close()
    assert [sequence for sequence, _ in records] == list(range(1, len(records) + 1))
    assert sum(isinstance(r, Feedback) for _, r in records) == int(done.stdout)


READ_ONLY = """
import os, sys
from pathlib import Path
from riverdelta.core.errors import Unavailable
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog

if os.getuid() == 0:
    os.setuid(65534)
try:
    Journal(SqliteLog(Path(sys.argv[1]) / "journal"))
except Unavailable as error:
    print(error)
"""


def test_a_folder_that_may_not_be_written_is_named():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", READ_ONLY, folder]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment).stdout
        assert f"the journal folder {folder}/journal cannot be written" in said
