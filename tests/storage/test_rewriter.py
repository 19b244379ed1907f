"""Records in the places of others: read with their digests, and found or forgotten by the index."""

from contextlib import closing

import numpy as np
import pytest

from riverdelta.core.records import Tick, encode
from riverdelta.storage.log import Entry, SqliteLog
from riverdelta.storage.log.rewriter import Rewriter


def entry(text):
    return Entry.of("impressions", 2, text)


@pytest.fixture
def folder(tmp_path):
    """A log of six records in several segments, each with the rows of one request."""
    with closing(SqliteLog(tmp_path / "log", segment_bytes=1)) as log:
        for request in range(6):
            with log.transaction() as transaction:
                place = transaction.append(entry(b"before %d" % request))
                transaction.index(7, np.array([[request, 2]]), place)
    return tmp_path / "log"


def test_what_was_replaced_is_read_in_its_place_and_the_rest_is_as_it_was(folder):
    with closing(Rewriter(folder)) as rewriter:
        rewriter.write({2: entry(b"after"), 6: entry(b"last")}, set())
    with closing(SqliteLog(folder)) as log:
        found, after = [], 0
        while records := log.read(after, 1):
            found += [each.payload for each in records]
            after = records[-1].sequence
        assert found == [b"before 0", b"after", b"before 2", b"before 3", b"before 4", b"last"]
        assert log.locate((7, 1)) == 2
        assert log.find((7, 1)).rows == 2


def test_a_request_that_is_forgotten_is_not_found_any_more(folder):
    with closing(Rewriter(folder)) as rewriter:
        rewriter.write({3: Entry.of("tick", 1, encode(Tick(0.0)))}, {(7, 2)})
    with closing(SqliteLog(folder)) as log:
        assert log.locate((7, 2)) is None
        assert log.find((7, 2)) is None
        assert log.locate((7, 3)) == 4
        assert log.places("tick", 0, 7) == [3]


def test_the_time_of_writing_stays_as_retention_goes_by_it(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.sqlite")}
    assert len(before) > 1
    with closing(Rewriter(folder)) as rewriter:
        rewriter.write({1: entry(b"after")}, set())
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.sqlite")} == pytest.approx(before, rel=1e-12)
