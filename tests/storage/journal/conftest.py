"""Journals in a temporary folder, closed after the test, and a scorer's and a client's view of them."""

import contextlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

STATE = State(3, 5, 7)


@dataclass
class Worker:
    """One process's hold on a journal, with calls as short as their meaning."""

    journal: Journal
    time: float = 100.0

    def score(self, rows=3, time=None):
        """Journal one request and return its number."""
        logit = np.arange(rows, dtype=np.float32)
        columns = {"user_id": np.arange(rows), "vec": np.ones((rows, 2), np.float32)}
        return self.journal.append(Rows(columns, logit, logit + 1, logit + 2, None, STATE, time or self.time))

    def feed(self, request, rows, labels, of=None, time=None):
        """Send feedback for rows of one request and return the outcomes, as text."""
        rows = np.atleast_1d(rows)
        labels = np.broadcast_to(np.asarray(labels, np.float32), rows.shape)
        incarnation = (of or self).journal.incarnation
        keys = np.full(len(rows), incarnation), np.full(len(rows), request), rows
        answer = self.journal.feedback(*keys, labels, time or self.time).result(20)
        return [str(outcome) for outcome in answer.outcomes]


@dataclass
class Home:
    """Opens workers on one journal."""

    folder: object
    workers: list = field(default_factory=list)

    def worker(self, segment_bytes=256 << 20, **settings):
        self.workers.append(Worker(Journal(SqliteLog(self.folder, segment_bytes), **settings)))
        return self.workers[-1]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "journal")
    yield home
    for worker in home.workers:
        with contextlib.suppress(Exception):  # a test may have broken or closed it on purpose
            worker.journal.close()


@pytest.fixture
def records():
    """Read a journal from its start to its end, a few rows at a time."""

    def read(journal, rows=5):
        found, position = [], 0
        while part := journal.read(position, rows):
            found += part
            position = part[-1][0]
        return found

    return read
