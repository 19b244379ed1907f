"""Retention: parts are retired by their age, whatever a wrong clock has dated them."""

from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from riverdelta.storage.log import Entry, SqliteLog
from riverdelta.storage.log.retention import Part, Retention

NOTHING = Retention({}, {}, {})


def retired(written, now, max_age=100.0):
    """The parts that retention retires of those written to at these times; the last one grows."""
    parts = [Part(number, 10 * number, size=1, written=at) for number, at in enumerate(written)]
    found, _ = NOTHING.step(parts, 10**9, max_age, 10**9, now, lambda spans: False)
    return sorted(found.retired)


def test_a_part_that_is_dated_in_the_future_is_as_old_as_the_one_after_it():
    # The clock was a year ahead while the second part was written.
    assert retired([10.0, 3e7, 20.0, 990.0, 1_000.0], now=1_000.0) == [0, 1, 2]
    assert retired([3e7, 3e7, 3e7], now=1_000.0) == []
    assert retired([3e7, 880.0, 1_000.0], now=1_000.0) == [0, 1]


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6), st.data(), st.floats(0, 1e6))
def test_a_wrong_date_never_retires_more_nor_keeps_a_part_longer_than_the_next_one(times, data, late):
    written, now = sorted(times), max(times)
    at = data.draw(st.integers(0, len(written) - 2))
    wrong = [*written[:at], now + late, *written[at + 1 :]]
    found, true = retired(wrong, now), retired(written, now)
    assert set(found) <= set(true)
    assert set(true) - set(found) <= {at, at - 1} or at == len(written) - 2


def test_a_text_goes_with_the_last_segment_that_noted_it(tmp_path):
    with closing(SqliteLog(tmp_path, segment_bytes=60_000)) as log:
        for number, texts in enumerate([{5: "ann", 6: "bob"}, {6: "bob"}, {}, {}]):
            with log.transaction() as transaction:
                transaction.note(texts, 100)
                transaction.append(Entry.of("k", 1, bytes([number]) * 70_000))
        assert dict(log.texts([5, 6])) == {5: "ann", 6: "bob"}
        left = []
        for _ in range(12):
            log.sweep(log.last(), 1e-9, 1, 1e12, lambda spans: False)
            if not left or left[-1] != dict(log.texts([5, 6])):
                left.append(dict(log.texts([5, 6])))
        assert left[-1] == {}
        assert all(5 not in found for found in left[1:])
