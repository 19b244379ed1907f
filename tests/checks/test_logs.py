"""The laws of a log hold for both of ours, and bite: each broken one is caught, and the law that catches it is named."""

from collections import defaultdict
from contextlib import contextmanager

import pytest

from riverdelta.checks import LawBroken, MemoryLog, check_log
from riverdelta.storage.log import SqliteLog


def shared(kind):
    """What opens a log in memory: the same one for the same folder."""
    logs = defaultdict(lambda: kind(part_records=3))
    return logs.__getitem__


def sqlite(kind=SqliteLog):
    return lambda folder: kind(folder, segment_bytes=60_000)


@pytest.mark.parametrize("open_log", [sqlite(), shared(MemoryLog)], ids=["sqlite", "memory"])
def test_the_laws_hold(open_log):
    check_log(open_log)


class KeepsWhatFailed(MemoryLog):
    @contextmanager
    def transaction(self):
        with super().transaction() as transaction:
            try:
                yield transaction
            finally:
                self._known.maps[1].update(self._known.maps[0])


class LosesTheLastGroupWhenOneFails(MemoryLog):
    @contextmanager
    def transaction(self):
        try:
            with super().transaction() as transaction:
                yield transaction
        except Exception:
            del self._entries[-1:]
            raise


class Reorders(MemoryLog):
    def read(self, after, rows):
        found = super().read(after, rows)
        payloads = sorted((stored.payload for stored in found), reverse=True)
        return [stored._replace(payload=payload) for stored, payload in zip(found, payloads, strict=True)]


class ForgetsLast(MemoryLog):
    def last(self):
        return super().last() if self.first() == 1 else len(self._entries)


class SweepsTooMuch(MemoryLog):
    def sweep(self, behind, max_age, max_bytes, now, needed):
        return super().sweep(behind + 10, max_age, max_bytes, now, needed)


class SweepsWhatIsNeeded(MemoryLog):
    def sweep(self, behind, max_age, max_bytes, now, needed):
        return super().sweep(behind, max_age, max_bytes, now, lambda spans: False)


class NeverSweeps(MemoryLog):
    def sweep(self, *limits):
        return 0


class FeedsOncePerRow(MemoryLog):
    def feed(self, fed):
        super().feed({key: known for key, known in fed.items() if key not in self._known})


class LetsReadersRunAhead(MemoryLog):
    def read(self, after, rows):
        return super().read(min(after, self.last()), rows)


class WakesNobody(MemoryLog):
    def wait(self, after, seconds):
        return False


class ReadsItsOwnCopy(SqliteLog):
    """What another hold wrote is there once this one writes itself."""

    _known = 0

    def read(self, after, rows):
        return [stored for stored in super().read(after, rows) if stored.sequence <= self._known]

    @contextmanager
    def transaction(self):
        with super().transaction() as transaction:
            yield transaction
            self._known = transaction.last()


BROKEN = {
    KeepsWhatFailed: "a_failed_group_leaves_nothing",
    LosesTheLastGroupWhenOneFails: "a_failed_group_leaves_nothing",
    Reorders: "records_come_back_in_order",
    ForgetsLast: "retention_deletes",
    SweepsTooMuch: "retention_deletes",
    SweepsWhatIsNeeded: "retention_deletes",
    NeverSweeps: "retention_deletes",
    FeedsOncePerRow: "the_index_finds",
    LetsReadersRunAhead: "a_reader_out_of_bounds",
    WakesNobody: "a_record_wakes_who_waits",
    ReadsItsOwnCopy: "records_come_back_in_order",
}


@pytest.mark.parametrize(("broken", "law"), BROKEN.items(), ids=[broken.__name__ for broken in BROKEN])
def test_a_broken_log_is_named_with_the_law_it_breaks(broken, law):
    with pytest.raises(LawBroken, match=law):
        check_log(sqlite(broken) if issubclass(broken, SqliteLog) else shared(broken))
