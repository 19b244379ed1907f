"""Feedback that reaches one process before the rows of another are in the journal: it waits while they may still come."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from riverdelta.core.errors import Unavailable
from riverdelta.core.records import Feedback, Impressions

#: A pause that no test sits out.
NEVER = 3600.0

SCORER = """
import sys, time
from pathlib import Path
import numpy as np
from riverdelta.storage.journal import Journal, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

journal = Journal(SqliteLog(Path(sys.argv[1])), flush_seconds=float(sys.argv[2]), flush_rows=10**6)
logit = np.zeros(2, np.float32)
for _ in sys.stdin:
    print(journal.incarnation, journal.append(Rows({"x": logit}, logit, logit, logit, None, State(0, 0, 0), 1.0)), flush=True)
"""


class Scorer:
    """A process that scores a request whenever it is asked to, and flushes after a pause of its own."""

    def __init__(self, folder, flush_seconds):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCORER, str(folder), str(flush_seconds)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)

    def score(self):
        """Return the incarnation and the request of two rows."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return tuple(map(int, self.process.stdout.readline().split()))

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def scorer(home):
    made = []

    def make(flush_seconds):
        made.append(Scorer(home.folder, flush_seconds))
        return made[-1]

    yield make
    for each in made:
        each.kill()
        each.process.stdin.close()
        each.process.stdout.close()


def send(worker, *rows, label=1):
    """Send one call of feedback for rows (incarnation, request, row); return what it will be answered with."""
    keys = np.array(rows, np.int64).reshape(-1, 3)
    return worker.journal.feedback(*keys.T, np.full(len(keys), label, np.float32), 1.0)


def outcomes(future):
    return [str(outcome) for outcome in future.result(20).outcomes]


def wait(condition):
    while not condition():
        time.sleep(0.001)


def test_not_one_of_several_hundred_labels_is_lost_to_the_slow_flush_of_another_process(home, scorer, records):
    slow, taker = scorer(0.3), home.worker()
    answers = [send(taker, (*slow.score(), 0)) for _ in range(400)]
    assert [outcomes(answer) for answer in answers] == [["accepted"]] * 400
    found = records(taker.journal, rows=100)
    places = {kind: sum(len(r) for _, r in found if isinstance(r, kind)) for kind in (Impressions, Feedback)}
    assert places == {Impressions: 800, Feedback: 400}


def test_feedback_is_lost_as_soon_as_the_process_that_scored_is_killed(home, scorer):
    slow, taker = scorer(NEVER), home.worker(patience_seconds=NEVER)
    row = (*slow.score(), 0)
    answer = send(taker, row)
    wait(lambda: taker.journal._held)
    assert not answer.done()
    slow.kill()
    assert outcomes(answer) == outcomes(send(home.worker(patience_seconds=NEVER), row)) == ["impression_lost"]


def test_a_process_that_lives_and_does_not_flush_puts_the_whole_call_off(home, records):
    slow, taker = home.worker(flush_seconds=NEVER), home.worker(patience_seconds=0.05)
    theirs, mine = slow.score(), taker.score()
    both = (slow.journal.incarnation, theirs, 0), (taker.journal.incarnation, mine, 0)
    for _ in range(2):
        with pytest.raises(
            Unavailable, match=r"is alive and has not stored them within 0\.05 s; send the feedback again"
        ) as error:
            send(taker, *both).result(20)
        assert error.value.retry_after > 0
    assert not [r for _, r in records(taker.journal) if isinstance(r, Feedback)]
    slow.journal.close()  # makes everything durable
    assert outcomes(send(taker, *both)) == ["accepted", "accepted"]


def test_feedback_that_waits_keeps_nobody_else_waiting(home):
    slow, taker = home.worker(flush_seconds=NEVER), home.worker(patience_seconds=NEVER)
    theirs = slow.score()
    held = [send(taker, (slow.journal.incarnation, theirs, row)) for row in range(3)]
    for _ in range(10):
        assert taker.feed(taker.score(), 0, 1) == ["accepted"]
    assert not any(answer.done() for answer in held)
    slow.feed(slow.score(), 0, 1)  # takes along what waits
    assert [outcomes(answer) for answer in held] == [["accepted"]] * 3


def test_calls_for_rows_of_several_processes_wait_for_the_last_of_them(home):
    scorers, taker = [home.worker(flush_seconds=NEVER) for _ in range(3)], home.worker(patience_seconds=NEVER)
    rows = [(scorer.journal.incarnation, scorer.score(), 0) for scorer in scorers]
    answer = send(taker, *rows)
    for scorer in scorers:
        assert not answer.done()
        scorer.feed(scorer.score(), 0, 1)
    assert outcomes(answer) == ["accepted"] * 3


def test_calls_that_waited_for_one_row_are_judged_in_the_order_in_which_they_came(home):
    slow, taker = home.worker(flush_seconds=NEVER), home.worker(patience_seconds=NEVER)
    row = slow.journal.incarnation, slow.score(), 0
    answers = [send(taker, row, label=label) for label in (1, 1, 0)]
    slow.feed(slow.score(), 0, 1)
    assert [outcomes(answer) for answer in answers] == [["accepted"], ["duplicate"], ["conflict"]]


def test_rows_that_a_living_process_gave_up_are_lost_once_it_has_stored_later_ones(home):
    slow, taker = home.worker(flush_seconds=NEVER, buffer_rows=4), home.worker(patience_seconds=NEVER)
    given_up, kept = slow.score(), slow.score()
    assert slow.journal.health().dropped_rows == 3
    answers = [send(taker, (slow.journal.incarnation, request, 0)) for request in (given_up, kept)]
    wait(lambda: len(taker.journal._held) == 2)
    slow.feed(slow.score(rows=1), 0, 1)
    assert [outcomes(answer) for answer in answers] == [["impression_lost"], ["accepted"]]


def test_rows_that_this_process_gave_up_are_lost_at_once(home):
    worker = home.worker(flush_seconds=NEVER, buffer_rows=4, patience_seconds=NEVER)
    given_up, _ = worker.score(), worker.score()
    assert worker.feed(given_up, 0, 1) == ["impression_lost"]


def test_feedback_for_rows_beyond_the_next_block_waits_for_theirs(home):
    worker = home.worker(flush_seconds=NEVER, flush_rows=10**9, patience_seconds=NEVER)
    requests = [worker.score(rows=16_000) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        for answer in [pool.submit(worker.feed, request, 0, 1) for request in reversed(requests)]:
            assert answer.result(20) == ["accepted"]


def test_closing_waits_for_nobody_and_says_that_the_rows_may_still_come(home):
    slow, taker = home.worker(flush_seconds=NEVER), home.worker(patience_seconds=NEVER)
    row = slow.journal.incarnation, slow.score(), 0
    answer = send(taker, row)
    wait(lambda: taker.journal._held)
    taker.journal.close()
    with pytest.raises(Unavailable, match="has not stored them before this one stops; send the feedback again"):
        answer.result(0)
    slow.journal.close()
    assert outcomes(send(home.worker(), row)) == ["accepted"]


def test_a_process_that_is_asked_to_stop_waits_for_nobody_and_goes_on_with_what_it_has(home):
    slow, taker = home.worker(flush_seconds=NEVER), home.worker(patience_seconds=NEVER)
    row = slow.journal.incarnation, slow.score(), 0
    before = send(taker, row)
    wait(lambda: taker.journal._held)
    taker.journal.leave()
    for answer in (before, send(taker, row)):
        with pytest.raises(Unavailable, match="before this one stops"):
            answer.result(20)
    assert taker.feed(taker.score(), 0, 1) == ["accepted"]


def test_a_process_that_closed_its_journal_counts_as_gone(home):
    gone, taker = home.worker(), home.worker(patience_seconds=NEVER)
    gone.journal.close()
    assert outcomes(send(taker, (gone.journal.incarnation, 0, 0))) == ["impression_lost"]


def test_what_dead_processes_leave_is_cleared_away_by_the_next_that_opens_the_journal(home, scorer):
    dead = scorer(NEVER)
    incarnation, _ = dead.score()
    alive = home.folder / "alive"
    assert [path.name for path in alive.iterdir()] == [str(incarnation)]
    dead.kill()
    worker = home.worker()
    assert [path.name for path in alive.iterdir()] == [str(worker.journal.incarnation)]
    worker.journal.close()
    assert not list(alive.iterdir())


def test_a_writer_that_outlives_many_others_is_never_taken_for_dead(home):
    first = home.worker(flush_seconds=NEVER)
    for _ in range(5):
        home.worker().journal.close()
    answer = send(home.worker(patience_seconds=NEVER), (first.journal.incarnation, first.score(), 0))
    first.journal.close()
    assert outcomes(answer) == ["accepted"]
