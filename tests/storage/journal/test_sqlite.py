"""The journal as its users see it: what each piece of feedback becomes, and what the learner reads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from riverdelta.core.errors import ConfigurationError, Unavailable
from riverdelta.core.records import Control, Feedback, Impressions, Tick
from riverdelta.storage.journal import Rows
from riverdelta.storage.journal.ids import Ids
from riverdelta.storage.registry import State

SHOWN = np.nan


def labels_of(records):
    """Every journalled label, in order."""
    return [x for _, r in records if isinstance(r, Feedback) for x in r.label.tolist()]


def test_an_impression_and_its_feedback_are_read_back_in_order(home, records):
    worker = home.worker()
    request = worker.score(rows=3)
    assert worker.feed(request, [2, 0], [1, 0]) == ["accepted", "accepted"]
    (first, rows), (second, feedback) = records(worker.journal)
    assert (first, second, worker.journal.last()) == (1, 2, 2)
    assert isinstance(rows, Impressions)
    assert rows.request.tolist() == [request] * 3
    assert rows.columns["vec"].shape == (3, 2)
    assert (rows.release[0], rows.swap[0], rows.position[0], rows.time[0]) == (3, 5, 7, 100.0)
    assert [x[:, 0].tolist() for x in (rows.base, rows.corrected, rows.served)] == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert isinstance(feedback, Feedback)
    assert feedback.index.tolist() == [2, 0]
    assert feedback.label.tolist() == [1, 0]
    assert not feedback.late.any()


def test_who_sent_feedback_is_journalled_with_each_item(home, records):
    worker, nobody = home.worker(), 0
    request = worker.score(rows=4)
    for row, source in ((2, -(2**63)), (0, 2**63 - 1), (1, None)):
        given = {} if source is None else {"source": source}
        keys = np.array([[worker.journal.incarnation], [request], [row]])
        worker.journal.feedback(*keys, np.ones(1, np.float32), 1.0, **given).result(20)
    rest = worker.feed(request, [3, 0], [1, 1])
    sources = [source for _, record in records(worker.journal) if isinstance(record, Feedback) for source in record.source]
    assert (sources, rest) == ([-(2**63), 2**63 - 1, nobody, nobody], ["accepted", "duplicate"])


def test_weights_and_times_are_journalled_with_the_label_that_counts_and_never_decide(home, records):
    worker = home.worker(on_conflict="last")
    request = worker.score(rows=3)

    def feed(row, label, **given):
        keys = np.array([[worker.journal.incarnation], [request], [row]])
        return str(worker.journal.feedback(*keys, np.float32([label]), 1.0, **given).result(20).outcomes[0])

    two, event = np.float32([2]), np.array([1e9])
    assert feed(0, 1, weight=two) == "accepted"
    assert feed(0, 1, weight=np.float32([3])) == "duplicate"
    assert feed(0, 0, weight=np.float32([0.5]), event=event) == "accepted"
    assert feed(1, 1) == "accepted"
    kept = [r for _, r in records(worker.journal) if isinstance(r, Feedback)]
    assert [r.weights.item() for r in kept] == [2.0, 0.5, 1.0]
    assert [r.event is None for r in kept] == [True, False, True]
    assert kept[1].events.tolist() == [1e9]


def test_a_source_that_is_no_int64_harms_its_sender_alone(home):
    worker = home.worker()
    request = worker.score()
    keys = np.array([[worker.journal.incarnation], [request], [0]])
    with pytest.raises(OverflowError):
        worker.journal.feedback(*keys, np.ones(1, np.float32), 1.0, source=2**63)
    assert worker.feed(request, 0, 1) == ["accepted"]


def test_only_the_first_label_of_a_row_is_journalled(home, records):
    worker = home.worker()
    request = worker.score()
    assert worker.feed(request, 0, 1) == ["accepted"]
    assert worker.feed(request, [0, 0, 1], [1, 0, 1]) == ["duplicate", "conflict", "accepted"]
    assert labels_of(records(worker.journal)) == [1, 1]


def test_the_same_row_twice_in_one_call_counts_once(home, records):
    worker = home.worker()
    assert worker.feed(worker.score(), [1, 1, 1], [1, 1, 0]) == ["accepted", "duplicate", "conflict"]
    assert labels_of(records(worker.journal)) == [1]


@pytest.mark.parametrize(
    ("policy", "outcomes", "journalled"),
    [
        ("first", ["accepted", "conflict", "duplicate"], [0]),
        ("last", ["accepted", "accepted", "accepted"], [0, 1, 0]),
        ("max", ["accepted", "accepted", "conflict"], [0, 1]),
    ],
)
def test_on_conflict_decides_which_label_counts(home, records, policy, outcomes, journalled):
    worker = home.worker(on_conflict=policy)
    request = worker.score()
    assert [worker.feed(request, 0, label)[0] for label in (0, 1, 0)] == outcomes
    assert labels_of(records(worker.journal)) == journalled


def test_an_unknown_policy_is_refused_by_name(home):
    with pytest.raises(ConfigurationError, match="on_conflict is 'newest'; expected one of first, last, max"):
        home.worker(on_conflict="newest")


def test_a_row_that_the_request_did_not_have_is_out_of_range(home):
    worker = home.worker()
    assert worker.feed(worker.score(rows=3), [2, 3, 999_999_999], 1) == ["accepted", "out_of_range", "out_of_range"]


def test_a_genuine_id_whose_rows_never_became_durable_is_lost(home):
    worker = home.worker()
    worker.score()
    assert worker.feed(77, 0, 1) == ["impression_lost"]


def test_a_client_that_hangs_up_disturbs_nobody(home, records):
    worker = home.worker()
    request = worker.score()
    key = np.array([worker.journal.incarnation]), np.array([request])
    futures = [worker.journal.feedback(*key, np.array([row]), np.ones(1, np.float32), 1.0) for row in range(3)]
    assert not any(future.cancel() for future in futures)
    assert [future.result(5).outcomes for future in futures] == [["accepted"]] * 3
    assert worker.feed(request, 0, 1) == ["duplicate"]


def test_impressions_become_durable_without_feedback(home, records):
    worker = home.worker(flush_seconds=0.001)
    worker.score(rows=4)
    while not (found := records(worker.journal)):
        time.sleep(0.001)
    assert len(found[0][1]) == 4


def test_a_full_block_does_not_wait_for_the_flush_interval(home, records):
    worker = home.worker(flush_seconds=3600.0, flush_rows=10)
    for _ in range(4):
        worker.score(rows=3)
    while not (found := records(worker.journal)):
        time.sleep(0.001)
    assert len(found[0][1]) >= 10


def test_closing_makes_everything_durable_and_refuses_what_comes_later(home, records):
    worker, reader = home.worker(flush_seconds=3600.0), home.worker()
    worker.score(rows=2)
    worker.journal.close()
    assert len(records(reader.journal)[0][1]) == 2
    with pytest.raises(Unavailable, match="closed"):
        worker.feed(0, 0, 1)


def test_ticks_and_controls_take_their_place_in_the_sequence(home, records):
    worker = home.worker()
    worker.feed(worker.score(), 0, 1)
    assert worker.journal.write(Tick(5.0)) == 3
    assert worker.journal.write(Control("drift", {"alarms": 1}, 6.0)) == 4
    assert [r for _, r in records(worker.journal)[2:]] == [Tick(5.0), Control("drift", {"alarms": 1}, 6.0)]


def test_every_opening_has_an_incarnation_of_its_own(home):
    assert len({home.worker(segment_bytes=1).journal.incarnation for _ in range(5)}) == 5


def test_workers_share_one_sequence_and_one_memory_of_what_was_fed(home, records):
    workers = [home.worker() for _ in range(3)]
    requests = [worker.score(rows=3) for worker in workers]
    sent = [(taker, owner, row) for taker in workers for owner in workers for row in range(3)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = pool.map(lambda s: s[0].feed(requests[workers.index(s[1])], s[2], 1, of=s[1])[0], sent)
        assert sorted(outcomes) == ["accepted"] * 9 + ["duplicate"] * 18
    found = records(workers[0].journal)
    assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
    assert len(labels_of(found)) == 9


def test_rows_that_make_no_block_are_dropped_and_keep_nobody_waiting(home, caplog):
    worker = home.worker(flush_seconds=0.2)
    worker.score()
    bad = np.zeros(2, np.float32)
    columns = {"user_id": np.array([object(), object()]), "vec": np.zeros((2, 2), np.float32)}
    worker.journal.append(Rows(columns, bad, bad, bad, None, State(0, 0, 0), 1.0))
    assert worker.feed(0, 0, 1) == ["impression_lost"]
    assert worker.journal.health().dropped_rows == 5
    assert "5 rows are dropped" in caplog.text
    assert worker.feed(worker.score(), 0, 1) == ["accepted"]


def test_an_id_goes_the_whole_way(home):
    worker, ids = home.worker(), Ids(b"k" * 32)
    name = ids.issue(worker.journal.incarnation, worker.score())
    incarnation, request, row = ids.parse(f"{name}.1")
    assert incarnation == worker.journal.incarnation
    assert worker.feed(request, row, 1) == ["accepted"]


class TestSilence:
    """With a window, shown rows mature by ticks, and a label after that is late."""

    def test_a_label_within_the_window_is_accepted(self, home):
        worker = home.worker(window_seconds=10.0)
        request = worker.score()
        assert worker.feed(request, 0, SHOWN, time=100.0) == ["accepted"]
        worker.journal.write(Tick(109.9))
        assert worker.feed(request, 0, 1) == ["accepted"]

    def test_after_the_window_a_positive_is_late_and_journalled_a_negative_is_late_and_not(self, home, records):
        worker = home.worker(window_seconds=10.0)
        request = worker.score()
        worker.feed(request, [0, 1], SHOWN, time=100.0)
        worker.journal.write(Tick(110.0))
        assert worker.feed(request, [0, 1], [1, 0]) == ["late", "late"]
        assert worker.feed(request, [0, 1], [1, 0]) == ["duplicate", "duplicate"]
        feedback = records(worker.journal)[-1][1]
        assert (feedback.index.tolist(), feedback.label.tolist(), feedback.late.tolist()) == ([0], [1.0], [True])

    def test_a_clock_that_goes_back_does_not_unmature(self, home):
        worker = home.worker(window_seconds=10.0)
        request = worker.score()
        worker.feed(request, 0, SHOWN, time=100.0)
        worker.journal.write(Tick(120.0))
        worker.journal.write(Tick(101.0))
        assert worker.feed(request, 0, 1) == ["late"]

    def test_a_showing_stored_after_a_later_tick_has_its_window_from_that_tick_on(self, home):
        worker = home.worker(window_seconds=10.0)
        request = worker.score()
        worker.journal.write(Tick(500.0))
        worker.feed(request, 0, SHOWN, time=100.0)
        assert worker.feed(request, 0, 1) == ["accepted"]

    def test_a_row_that_is_shown_twice_or_after_its_label_is_a_duplicate(self, home):
        worker = home.worker(window_seconds=10.0)
        request = worker.score()
        assert worker.feed(request, [0, 0, 1, 1], [SHOWN, SHOWN, 1, SHOWN]) == ["accepted", "duplicate"] * 2

    def test_only_the_clock_of_ticks_counts(self, home):
        worker = home.worker(window_seconds=0.001)
        request = worker.score()
        worker.feed(request, 0, SHOWN, time=100.0)
        assert worker.feed(request, 0, 1, time=10**9) == ["accepted"]


def test_many_threads_append_while_feedback_commits(home, records):
    worker, accepted = home.worker(flush_rows=16), []

    def act():
        for _ in range(20):
            accepted.append(worker.feed(worker.score(rows=2), [0, 1], [1, 0]))

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted == [["accepted"] * 2] * 80
    found = records(worker.journal, rows=50)
    assert sum(len(r) for _, r in found if isinstance(r, Impressions)) == 160
    assert sorted(labels_of(found)) == [0] * 80 + [1] * 80
