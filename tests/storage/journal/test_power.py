"""A power cut: of the log any part since the last sync may be missing or wrong, and all that was accepted before is there."""

import contextlib
import shutil
import sqlite3

import numpy as np
import pytest

from riverdelta.core.records import Feedback, encode
from riverdelta.storage.journal import Journal, Reader
from riverdelta.storage.log import SqliteLog

#: What a frame of the log takes: its header and one page.
FRAME = 24 + 4096


class Cut:
    """A journal as it was at its last two syncs, `before` and `after` as (file, log) of the newest segment, and what was there.

    `start` is where the log differs first: nothing before it may be missing, because it was synced.
    """

    def __init__(self, home, copy, restart):
        worker = home.worker(segment_bytes=60_000)
        while len(worker.journal.log._writer._open) < 3:
            worker.feed(worker.score(), [0, 1], 1)
        self.told = worker.score()
        worker.feed(self.told, [0, 2], [1, 0])
        if restart:  # what was in the log is in the file now, and the log is written anew from its beginning
            worker.journal.log._writer.newest._db.execute("PRAGMA wal_checkpoint(RESTART)")
        # FULL: each commit is synced, or the cuts below would say nothing of a real one.
        assert worker.journal.log._writer.newest._db.execute("PRAGMA synchronous").fetchone() == (2,)
        self.path = worker.journal.log._writer.newest.path
        self.before, self.kept = self._now(worker)
        worker.feed(self.told, 1, 1)
        self.after, self.all = self._now(worker)
        assert worker.journal.log._writer.newest.path == self.path
        assert len(self.all) == len(self.kept) + 1
        self.incarnation, self.copy = worker.journal.incarnation, copy
        self.start = 0 if restart else len(self.before[1])
        shutil.copytree(self.path.parent, copy)

    def _now(self, worker):
        files = self.path.read_bytes(), self.path.with_name(f"{self.path.name}-wal").read_bytes()
        return files, [(s, encode(r)) for s, r in worker.journal.read(worker.journal.log._writer.newest.first - 1, 10**6)]

    def put(self, log):
        """Make the copy's newest segment that of before, with this log; nothing remembers another."""
        path = self.copy / self.path.name
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        path.write_bytes(self.before[0])
        path.with_name(f"{path.name}-wal").write_bytes(log)
        return path

    def records(self, log):
        """What the newest segment holds with this log, read as plainly as can be: there are thousands of logs."""
        with contextlib.closing(sqlite3.connect(self.put(log))) as db:
            db.execute("PRAGMA synchronous=OFF")
            return db.execute("SELECT sequence, payload FROM record ORDER BY sequence").fetchall()

    def goes_on(self, log):
        """Open the whole journal with this log: nothing is missing, and of what was fed just what was lost is taken again."""
        lost = self.records(log) == self.kept
        self.put(log)
        journal = Journal(SqliteLog(self.copy, 60_000))
        try:
            keys = np.full(2, self.incarnation), np.full(2, self.told), np.array([0, 1])
            outcomes = journal.feedback(*keys, np.ones(2, np.float32), 200.0).result(20).outcomes
            assert list(map(str, outcomes)) == ["duplicate", "accepted" if lost else "duplicate"]
        finally:
            journal.close()
        reader, found = Reader(SqliteLog(self.copy, 60_000)), []
        while part := reader.read(found[-1][0] if found else 0, 10**6):
            found += part
        reader.close()
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
        assert len(found) == self.all[-1][0]
        assert isinstance(found[-1][1], Feedback)
        # The feedback may have gone into a segment after this one, which the next cut must not find.
        for path in self.copy.glob("*.sqlite*"):
            if path.name[:6] > self.path.name[:6]:
                path.unlink()


@pytest.fixture
def cut(home, tmp_path, request):
    return Cut(home, tmp_path / "copy", getattr(request, "param", False))


def test_a_log_cut_at_any_byte_after_the_last_sync_keeps_all_that_was_accepted_before(cut):
    log = cut.after[1]
    assert len(log) > cut.start
    for at in range(cut.start, len(log)):
        assert cut.records(log[:at]) == cut.kept, f"cut at {at} of {len(log)}"
    assert cut.records(log) == cut.all
    for at in (cut.start, cut.start + 24, cut.start + FRAME, len(log) - FRAME, len(log) - 1, len(log)):
        cut.goes_on(log[:at])


@pytest.mark.parametrize("cut", [False, True], indirect=True, ids=["log_goes_on", "log_begins_anew"])
@pytest.mark.parametrize("torn", ["zeros", "garbage", "what was there before"])
def test_a_log_with_anything_in_place_of_its_end_keeps_all_that_was_accepted_before(cut, torn):
    log, rng = cut.after[1], np.random.default_rng(0)
    for at in sorted({*range(cut.start, len(log), 211), *range(cut.start or 32, len(log), FRAME), len(log) - 1}):
        rest = len(log) - at
        end = {"zeros": bytes(rest), "garbage": rng.bytes(rest), "what was there before": cut.before[1][at:]}[torn]
        assert cut.records(log[:at] + end) in (cut.kept, cut.all)
    cut.goes_on(log[: cut.start + 32] + rng.bytes(len(log) - cut.start - 32))
