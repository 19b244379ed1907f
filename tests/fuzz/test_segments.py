"""The journal's files: whatever becomes of them, what is read is what was written, up to an error that names the file."""

import contextlib
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt, Unavailable
from riverdelta.core.records import Tick, encode
from riverdelta.storage.journal import Journal, Reader, Rows
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

WHOLE = settings.get_profile("fuzz")
#: Each example opens a journal of three files.
FUZZ = settings(WHOLE, max_examples=max(WHOLE.max_examples // 4, 1))
EDITS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1 << 18), st.integers(0, 255)), min_size=1, max_size=4)
NAMES = ["000001.sqlite", "000002.sqlite", "000003.sqlite", "000003.sqlite-wal"]
FILES = st.sampled_from(NAMES)
PAGE = 4096
VALUES = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=6), st.binary(max_size=40))
NUMBERS = st.integers(1, 3)


def fill(folder):
    """Write three segments, the first two sealed, the last one with what it holds still in its write-ahead log."""
    journal = Journal(SqliteLog(folder, 50_000))
    for n in range(6):
        logit = np.arange(20, dtype=np.float32)
        columns = {"user": np.arange(20) + n, "vec": np.ones((20, 2), np.float32)}
        request = journal.append(Rows(columns, logit, logit + 1, logit + 2, None, State(3, 5, 7), 100.0 + n))
        keys = np.full(9, journal.incarnation), np.full(9, request), np.arange(9)
        journal.feedback(*keys, np.ones(9, np.float32), 100.0).result(20)
    journal.write(Tick(200.0))
    return journal


def read(folder):
    """Every record to the end, or to the error that ends them, and that error's message."""
    found, reader = [], None
    try:
        reader = Reader(SqliteLog(folder))
        while part := reader.read(found[-1][0] if found else 0, 1):
            found += part
    except (Corrupt, Unavailable) as error:
        return found, str(error)
    finally:
        if reader is not None:
            reader.close()
    return found, ""


class Written:
    """The journal's files by name, as a process that was killed leaves them, its records, and how many sealed files hold."""

    def __init__(self, files, records, sealed):
        self.files, self.records, self.sealed = files, records, sealed


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("journal") / "journal"
    journal = fill(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in NAMES and path.stat().st_size}
    journal.close()
    records, error = read(folder)
    assert (error, sorted(files), len(records)) == ("", NAMES, 13)
    (folder / NAMES[2]).unlink()
    return Written(files, [encode(record) for _, record in records], len(read(folder)[0]))


@pytest.fixture(scope="session")
def lay(written):
    """lay(files, change): a folder that holds these files, in memory where the system has such a place."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as parent:
        folder = Path(parent) / "journal"

        def lay(files, change=None):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
            if change is not None:
                change(folder)
            return folder

        yield lay


@pytest.fixture(scope="session")
def place(lay, written, bounded):
    """place(files, change): read them, and see that nothing is missing but after an error, or at the very end."""

    def place(files, change=None):
        folder = lay(files, change)
        with bounded():
            found, error = read(folder)
        assert str(folder) in error if error else len(found) >= written.sealed
        assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
        assert [encode(record) for _, record in found] == written.records[: len(found)]
        return len(found), error

    return place


def test_undamaged_files_give_every_record(place, written):
    assert place(written.files) == (13, "")


@settings(FUZZ)
@given(FILES, EDITS)
def test_a_damaged_file_gives_the_records_before_the_damage(place, written, damage, name, edits):
    place({**written.files, name: damage(written.files[name], edits)})


@settings(FUZZ)
@given(FILES, st.integers(0, 400), st.integers(0, 7), st.integers(0, 40))
def test_a_flip_in_the_head_of_a_page_gives_the_records_before_it(place, written, name, at, bit, page):
    data = bytearray(written.files[name])
    data[(page * PAGE + at) % len(data)] ^= 1 << bit
    place({**written.files, name: bytes(data)})


@settings(FUZZ)
@given(FILES, FILES, st.integers(0, 40), st.integers(0, 40), st.integers(1, 3))
def test_pages_in_each_other_s_place_give_the_records_before_them(place, written, name, other, to, of, count):
    data, source = bytearray(written.files[name]), written.files[other]
    start, end = (page * PAGE % max(len(data) - PAGE, PAGE) for page in (to, of))
    data[start : start + count * PAGE] = source[end : end + count * PAGE]
    place({**written.files, name: bytes(data)})


ROWS = st.integers(1, 14)
STATEMENTS = [
    "UPDATE record SET payload = :value WHERE sequence = :at",
    "UPDATE record SET digest = :value WHERE sequence = :at",
    "UPDATE record SET rows = :value WHERE sequence = :at",
    "UPDATE record SET payload = (SELECT payload FROM record WHERE sequence = :other) WHERE sequence = :at",
    "UPDATE record SET digest = (SELECT digest FROM record WHERE sequence = :other) WHERE sequence = :at",
    "UPDATE OR REPLACE record SET sequence = :other WHERE sequence = :at",
    "DELETE FROM record WHERE sequence = :at",
]
SCHEMAS = [
    "DROP TABLE record",
    "DROP TABLE meta",
    "DROP TABLE record; CREATE TABLE record (sequence INTEGER PRIMARY KEY, rows, payload)",
    "DROP TABLE record; CREATE TABLE record (sequence, rows, payload, digest); INSERT INTO record VALUES ('1', 'x', 2, NULL)",
    "DELETE FROM meta WHERE key = 'first'",
]


def edit(number, script, **values):
    """What runs an SQL script, or one statement with values, on a segment."""

    def change(folder):
        db = sqlite3.connect(folder / f"{number:06d}.sqlite")
        if values:
            with db, contextlib.suppress(sqlite3.IntegrityError):  # what the file itself refuses leaves it whole
                db.execute(script, values)
        else:
            db.executescript(script)
        db.close()

    return change


@settings(FUZZ)
@given(NUMBERS, st.sampled_from(STATEMENTS), ROWS, ROWS, VALUES)
def test_a_record_whose_parts_are_others_is_refused_by_name(place, written, number, statement, at, other, value):
    place(written.files, edit(number, statement, at=at, other=other, value=value))


@settings(FUZZ)
@given(NUMBERS, st.sampled_from(["first", "sealed", "incarnations", "tick", "swept"]), VALUES)
def test_a_fact_that_is_none_of_its_kind_is_refused_by_name(place, written, number, key, value):
    place(written.files, edit(number, "UPDATE meta SET value = :value WHERE key = :key", key=key, value=value))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("script", SCHEMAS)
def test_a_segment_of_another_schema_is_refused_by_name(place, written, number, script):
    assert f"{number:06d}.sqlite" in place(written.files, edit(number, script))[1]


INDEX = [
    "UPDATE meta SET value = :value WHERE key IN ('incarnations', 'tick', 'swept')",
    "UPDATE meta SET value = :value WHERE key = 'sealed'",
    "UPDATE block SET requests = :value",
    "UPDATE OR REPLACE block SET incarnation = :value",
    "UPDATE OR REPLACE block SET first = :value",
    "UPDATE OR REPLACE fed SET row = :value",
    "UPDATE fed SET label = :value",
    "UPDATE fed SET shown = :value",
]


@settings(FUZZ)
@given(NUMBERS, st.sampled_from(INDEX), VALUES)
def test_feedback_to_a_journal_whose_index_is_damaged_is_judged_or_refused(lay, written, bounded, number, statement, value):
    folder = lay(written.files, edit(number, statement, value=value))
    with bounded():
        try:
            journal = Journal(SqliteLog(folder), on_conflict="max", window_seconds=5.0)
        except (Corrupt, Unavailable) as error:
            assert str(folder) in str(error)  # noqa: PT017
            return
        keys = np.ones(4, np.int64), np.array([0, 3, 5, 99]), np.arange(7, 11)
        answers = [journal.feedback(*keys, np.full(4, label, np.float32), 300.0) for label in (0, 1, np.nan)]
        for answer in answers:
            refused = answer.exception(30)
            assert str(folder) in str(refused) if refused else len(answer.result().outcomes) == 4
            assert refused is None or isinstance(refused, Unavailable)
        journal.close()
