"""Segments: one sequence over many files, uniqueness across them, damage named, retention by whole files."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.records import SETTINGS, Control, Feedback, Impressions, Tick
from riverdelta.storage.log import ERASED, Entry, Named, SqliteLog

#: So small that every commit seals its segment.
TINY = 1


def files(home):
    return sorted(home.folder.glob("*.sqlite"))


def edit(path, statement, *values):
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def swept(journal, behind, max_age=0.0, max_bytes=0, now=10**12):
    """Retire what may be retired, release and delete it; return bytes freed."""
    journal.sweep(behind, max_age, max_bytes, now)
    return sum(journal.sweep(10**9, 10**13, 10**12, now) for _ in range(2))


class TestRotation:
    def test_a_full_segment_gives_way_to_the_next_and_the_sequence_goes_on(self, home, records):
        worker = home.worker(segment_bytes=TINY)
        for _ in range(4):
            assert worker.feed(worker.score(), 0, 1) == ["accepted"]
        assert len(files(home)) >= 4
        assert [sequence for sequence, _ in records(worker.journal)] == list(range(1, 9))

    def test_controls_are_found_without_the_rest_and_the_first_that_is_left_is_known(self, home):
        journal = home.worker(segment_bytes=TINY).journal
        assert (journal.first(), journal.controls(0, 100)) == (1, [])
        for number in range(6):
            journal.write(Control("drift", {"alarms": number}) if number % 2 else Tick(float(number)))
        found = journal.controls(0, 100)
        assert [(sequence, control.arguments["alarms"]) for sequence, control in found] == [(2, 1), (4, 3), (6, 5)]
        assert [sequence for sequence, _ in journal.controls(2, 6)] == [4]
        assert swept(journal, 3, 1e9, 0, 0.0) > 0
        assert journal.first() == 4
        assert [sequence for sequence, _ in journal.controls(0, 100)] == [4, 6]

    def test_a_label_in_a_sealed_segment_still_counts(self, home):
        worker = home.worker(segment_bytes=TINY)
        request = worker.score()
        assert worker.feed(request, 0, 1) == ["accepted"]
        for _ in range(3):
            worker.feed(worker.score(), 0, 1)
        assert worker.feed(request, [0, 0, 1], [1, 0, 1]) == ["duplicate", "conflict", "accepted"]
        worker.feed(worker.score(), 0, 1)
        assert worker.feed(request, [0, 1], 1) == ["duplicate", "duplicate"]

    def test_the_label_that_replaced_another_counts_in_later_segments(self, home):
        worker = home.worker(segment_bytes=TINY, on_conflict="last")
        request = worker.score()
        for label in (1, 0, 1, 0):
            assert worker.feed(request, 0, label) == ["accepted"]
        assert worker.feed(request, 0, 0) == ["duplicate"]

    def test_the_clock_of_ticks_is_carried_into_later_segments(self, home):
        worker = home.worker(segment_bytes=TINY, window_seconds=10.0)
        request = worker.score()
        worker.feed(request, 0, np.nan, time=100.0)
        worker.journal.write(Tick(110.0))
        worker.feed(worker.score(), 0, 1)
        assert worker.feed(request, 0, 1) == ["late"]

    def test_workers_that_rotate_against_each_other_agree_on_every_segment(self, home, records):
        workers = [home.worker(segment_bytes=TINY) for _ in range(3)]
        for _ in range(3):
            requests = [worker.score() for worker in workers]
            for owner, request in zip(workers, requests, strict=True):
                outcomes = [taker.feed(request, 0, 1, of=owner)[0] for taker in workers]
                assert sorted(outcomes) == ["accepted", "duplicate", "duplicate"]
        found = records(workers[0].journal)
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
        assert len([r for _, r in found if isinstance(r, Feedback)]) == 9

    def test_a_writer_that_died_between_sealing_and_the_next_segment_is_made_up_for(self, home, records):
        worker = home.worker()
        worker.feed(worker.score(), 0, 1)
        edit(files(home)[0], "UPDATE meta SET value = 1 WHERE key = 'sealed'")
        assert worker.feed(worker.score(), 0, 1) == ["accepted"]
        assert [path.name for path in files(home)] == ["000001.sqlite", "000002.sqlite"]
        assert [sequence for sequence, _ in records(worker.journal)] == [1, 2, 3, 4]

    def test_half_a_segment_that_a_dead_process_left_is_passed_over(self, home):
        home.folder.mkdir()
        (home.folder / ".new-x").mkdir()
        (home.folder / ".new-x" / "000001.sqlite").write_bytes(b"half")
        worker = home.worker()
        assert worker.feed(worker.score(), 0, 1) == ["accepted"]


class TestDamage:
    @pytest.fixture
    def written(self, home):
        """A closed journal of three pairs of records."""
        worker = home.worker()
        for _ in range(3):
            worker.feed(worker.score(), 0, 1)
        worker.journal.close()
        return home

    def test_a_flipped_bit_is_named_with_its_file_and_record_and_what_comes_before_it_is_read(self, written):
        edit(files(written)[0], "UPDATE record SET payload = zeroblob(length(payload)) WHERE sequence = 4")
        journal = written.worker().journal
        assert len(journal.read(0, rows=1)) == 1
        with pytest.raises(Corrupt, match=r"record 4 in .*000001.sqlite does not match its digest; nothing after it is read"):
            journal.read(3, rows=100)

    def test_a_bad_record_does_not_keep_feedback_from_being_taken(self, written):
        edit(files(written)[0], "UPDATE record SET payload = zeroblob(9) WHERE sequence = 4")
        worker = written.worker()
        assert worker.feed(worker.score(), 0, 1) == ["accepted"]

    def test_a_record_that_is_no_record_is_named(self, written):
        with closing(SqliteLog(written.folder)) as log, log.transaction() as transaction:
            transaction.append(Entry.of("tick", 1, b"{}"))
        with pytest.raises(Corrupt, match=r"journal record 7 in .*000001.sqlite: 2 bytes are not a journal record"):
            written.worker().journal.read(6, rows=1)

    def test_a_record_in_another_s_place_is_named(self, written):
        edit(files(written)[0], "UPDATE OR REPLACE record SET sequence = 2 WHERE sequence = 4")
        with pytest.raises(Corrupt, match=r"record 2 in .*000001.sqlite does not match its digest"):
            written.worker().journal.read(1, rows=1)

    def test_a_reader_that_is_ahead_of_the_last_record_is_told_that_some_are_lost(self, written):
        edit(files(written)[0], "DELETE FROM record WHERE sequence > 4")
        journal = written.worker().journal
        assert journal.read(4, rows=1) == []
        with pytest.raises(Corrupt, match=r"ends at record 4, but its reader has read up to 6; restore .*000001.sqlite"):
            journal.read(6, rows=1)

    @pytest.mark.parametrize(
        ("table", "column", "value"),
        [("meta", "value", b"x"), ("block", "requests", b"x"), ("fed", "label", "x"), ("meta", "value", 2**63 - 1)],
    )
    def test_a_value_that_is_none_of_its_kind_is_named_with_its_file(self, written, table, column, value):
        edit(files(written)[0], f"UPDATE {table} SET {column} = ?", value)

        def feed():
            keys = (np.array([n]) for n in (written.workers[0].journal.incarnation, 0, 0))
            written.worker().journal.feedback(*keys, np.ones(1, np.float32), 1.0).result(20)

        with pytest.raises((Corrupt, Unavailable), match=r"000001.sqlite has .* as its '\w+'; it is damaged"):
            feed()

    def test_damage_is_named_with_the_segment_that_has_it_and_not_the_newest(self, home, records):
        worker = home.worker(segment_bytes=TINY)
        for _ in range(3):
            worker.feed(worker.score(), 0, 1)
        worker.journal.close()
        edit(files(home)[1], "DROP TABLE record")
        with pytest.raises(Corrupt, match=r"000002.sqlite is damaged: no such table: record"):
            records(home.worker().journal)

    def test_a_missing_record_is_named(self, written):
        edit(files(written)[0], "DELETE FROM record WHERE sequence = 4")
        with pytest.raises(Corrupt, match="lacks record 4"):
            written.worker().journal.read(0, rows=100)

    def test_a_missing_segment_is_named(self, home, records):
        worker = home.worker(segment_bytes=TINY)
        for _ in range(4):
            worker.feed(worker.score(), 0, 1)
        worker.journal.close()
        # The first two hold what opened the journal and the first pair.
        files(home)[2].unlink()
        with pytest.raises(Corrupt, match="lacks record"):
            records(home.worker().journal)

    def test_a_learner_that_stands_before_the_oldest_segment_is_told_what_is_missing(self, home):
        worker = home.worker(segment_bytes=TINY)
        for _ in range(4):
            worker.feed(worker.score(), 0, 1)
        swept(worker.journal, behind=6)
        with pytest.raises(Corrupt, match=r"journal records 2 to \d are no longer in"):
            worker.journal.read(1, rows=100)
        assert worker.journal.read(0, rows=100)

    @pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
    def test_a_file_that_is_no_segment_is_named(self, home, content):
        home.folder.mkdir()
        (home.folder / "000001.sqlite").write_bytes(content)
        with pytest.raises(Corrupt, match=r"000001.sqlite is damaged: .*; restore the file, or move it away"):
            home.worker()

    def test_a_truncated_segment_is_refused_by_name(self, written):
        path = files(written)[0]
        os.truncate(path, 3 * 4096)
        with pytest.raises(Corrupt, match=r"000001\.sqlite"):
            written.worker().journal.read(0, rows=100)

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(Unavailable, match=r"the journal folder .*file/journal cannot be written"):
            SqliteLog(tmp_path / "file" / "journal")

    def test_a_folder_that_disappears_is_refused_and_does_not_come_back_empty(self, written):
        log = SqliteLog(written.folder, TINY)
        for path in written.folder.glob("*.sqlite*"):
            path.unlink()
        with pytest.raises(Corrupt, match="no longer has a segment"):
            log.refresh()
        log.close()


def test_a_copy_that_somebody_left_in_the_folder_is_none_of_its_segments(home):
    home.worker()
    for name in ("000001-old.sqlite", "0x.sqlite", "1.5.sqlite"):
        (home.folder / name).write_bytes(b"")
    with closing(SqliteLog(home.folder)) as log:
        assert log.last() == 0


@pytest.mark.parametrize("first", [10.0, None])
def test_a_showing_of_0_1_matures_by_the_first_window_on_record_whatever_the_rules_are_later(home, first):
    worker = home.worker()
    request = worker.score()
    worker.feed(request, [0, 1], np.nan, time=100.0)
    edit(files(home)[0], "UPDATE fed SET due = NULL")
    settings = {"on_conflict": "first", "window_seconds": first}
    worker.journal.write(Control(SETTINGS, settings))
    worker.journal.write(Control(SETTINGS, settings | {"window_seconds": 1_000.0}))
    worker.journal.write(Tick(200.0))
    assert worker.feed(request, 0, 1) == ["late" if first else "accepted"]
    worker.journal.write(Tick(5_000.0))
    assert worker.feed(request, 1, 1) == ["late" if first else "accepted"]


def test_retention_of_segments_of_one_record_each_leaves_no_more_files_than_there_were(home):
    worker = home.worker(segment_bytes=TINY)
    for _ in range(30):
        worker.feed(worker.score(), 0, 1)
    counts = []
    for _ in range(6):
        worker.journal.sweep(worker.journal.last(), 0.0, 0, 10**12)
        counts.append(len(files(home)))
    assert counts[-1] < counts[0]
    assert counts[-1] <= 8


class TestRetention:
    @pytest.fixture
    def worker(self, home):
        """Five sealed segments: one of the opening, and one for each of the pairs of records 1-2, 3-4, 5-6, 7-8."""
        worker = home.worker(segment_bytes=TINY)
        for _ in range(4):
            worker.feed(worker.score(), 0, 1)
        return worker

    def test_what_the_learner_still_needs_stays_however_old_and_large(self, home, worker, records):
        swept(worker.journal, behind=4)
        assert [sequence for sequence, _ in records(worker.journal)] == [5, 6, 7, 8]

    def test_what_is_young_and_small_stays(self, worker):
        assert worker.journal.sweep(behind=8, max_age=3600.0, max_bytes=10**9, now=os.stat(__file__).st_mtime) == 0

    def test_the_newest_segment_stays(self, home, worker):
        newest = files(home)[-1]
        swept(worker.journal, behind=10**9)
        assert files(home)[0] == newest
        assert worker.feed(worker.score(), 0, 1) == ["accepted"]

    def test_segments_go_while_all_are_too_large_and_no_further(self, home, worker):
        before, size = files(home), worker.journal.size()
        assert swept(worker.journal, behind=8, max_age=10**9, max_bytes=size - 1, now=0.0) > 0
        assert [path for path in before if path not in files(home)] == before[:1]

    def test_what_is_retired_takes_no_feedback_and_stays_until_all_that_it_took_is_saved(self, home, worker, records):
        def sweep(behind, needed=lambda spans: False):
            worker.journal.sweep(behind, 10**12, 10**9, 0.0, needed)
            return records(worker.journal)[0][0]

        worker.journal.sweep(behind=4, max_age=0.0, max_bytes=0, now=10**12)
        retired = worker.journal.last()
        assert worker.feed(0, 0, 1) == ["expired"]
        worker.feed(3, 1, 1)
        assert [sweep(retired - 1), sweep(retired - 1)] == [1, 1]
        # A row that was shown before has its window yet to close: nothing is released.
        assert [sweep(retired, bool), sweep(10**9, bool)] == [1, 1]
        worker.feed(3, 0, 1)
        released = worker.journal.last()
        # Released at this moment, it stays until a restart cannot begin before it any more.
        assert [sweep(retired), sweep(released - 1)] == [1, 1]
        assert sweep(released) == 5

    def test_a_worker_that_never_rests_answers_expired_for_what_another_process_deleted(self, home, worker):
        other = home.worker(segment_bytes=1 << 30)
        request = other.score()
        assert other.feed(request, 0, 1) == ["accepted"]
        swept(worker.journal, behind=8)
        assert set(other.feed([0, 0], [0, 1], 1, of=worker)) == {"expired"}
        assert other.feed(request, 1, 1) == ["accepted"]

    def test_feedback_for_what_was_deleted_is_expired_in_every_worker(self, home, worker):
        other = home.worker(segment_bytes=TINY)
        swept(worker.journal, behind=4)
        worker.feed(worker.score(), 0, 1)
        assert worker.feed(0, 0, 1) == ["expired"]
        assert other.feed(0, 0, 1, of=worker) == ["expired"]
        assert worker.feed(2, 1, 1) == ["accepted"]

    @pytest.mark.parametrize("incarnation", [99, 99 << 40 | 7])
    def test_an_id_of_an_incarnation_that_the_journal_has_never_seen_is_lost(self, home, incarnation):
        unknown = np.array([incarnation]), np.array([0]), np.array([0])
        worker = home.worker()
        assert worker.journal.feedback(*unknown, np.ones(1, np.float32), 1.0).result(5).outcomes == ["impression_lost"]

    def test_a_worker_lets_go_of_deleted_files_when_it_opens_the_next(self, home, worker):
        swept(worker.journal, behind=8)
        worker.feed(worker.score(), 0, 1)
        open_files = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        assert not [name for name in open_files if name.startswith(f"{home.folder}/000001")]


def test_impressions_and_feedback_of_any_size_are_read_in_order(home, records):
    worker = home.worker(segment_bytes=200_000, flush_rows=64)
    rng = np.random.default_rng(0)
    for rows in rng.integers(1, 900, 12).tolist():
        worker.feed(worker.score(rows=rows), np.arange(rows), 1)
    for step in (1, 100, 10**6):
        found = records(worker.journal, rows=step)
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
        counted = {kind: sum(len(r) for _, r in found if isinstance(r, kind)) for kind in (Impressions, Feedback)}
        assert len(set(counted.values())) == 1
    assert len(files(home)) > 1


def test_a_segment_whose_names_had_no_contents_is_upgraded_in_place(home):
    worker = home.worker()
    worker.feed(worker.score(), 0, 1)
    worker.journal.close()
    edit(files(home)[0], "CREATE TABLE named (name TEXT PRIMARY KEY, incarnation INTEGER, request INTEGER) WITHOUT ROWID")
    edit(files(home)[0], "INSERT INTO named VALUES ('mine', ?, 0)", worker.journal.incarnation)
    with closing(SqliteLog(home.folder)) as log:
        assert log.named("mine") == Named((worker.journal.incarnation, 0), b"")
        with log.transaction() as transaction:
            transaction.name("theirs", Named((worker.journal.incarnation, 1), b"content"))
        assert log.named("theirs") == Named((worker.journal.incarnation, 1), b"content")


def test_a_damaged_name_is_named(home):
    worker = home.worker()
    with worker.journal.log.transaction() as transaction:
        transaction.name("mine", Named((7, 1), b"content"))
    edit(files(home)[0], "UPDATE named SET content = 'text'")
    with pytest.raises(Corrupt, match=r"000001\.sqlite has .* as its 'named'; it is damaged"):
        worker.journal.log.named("mine")


def test_rows_stay_erased_when_another_process_begins_a_segment_in_the_middle(tmp_path, monkeypatch):
    with closing(SqliteLog(tmp_path, TINY)) as one, closing(SqliteLog(tmp_path, TINY)) as two:
        for log in (one, two):
            with log.transaction() as transaction:
                transaction.index(7, np.array([[len(files_of(tmp_path)), 1]]), transaction.append(Entry.of("rows", 1, b"x")))
        now = one._writer._now

        def late(refresh=False):
            with two.transaction() as transaction:
                transaction.append(Entry.of("tick", 1, b"x"))
            return now(refresh)

        monkeypatch.setattr(one._writer, "_now", late)
        one.erase({}, [(7, 1, 0)])
        assert two.find((7, 1)).fed == {0: ERASED}


def files_of(folder):
    return list(folder.glob("*.sqlite"))
