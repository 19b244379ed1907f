"""The laws of a log hold for both of ours, and bite: each broken one is caught, and the law that catches it is named."""

from collections import defaultdict
from contextlib import contextmanager
from unicodedata import normalize

from mutants import broken_by, each_law_has_its_own, each_of

from riverdelta.checks import MemoryLog, parametrize_with_checks
from riverdelta.storage.log import SqliteLog


def shared(kind):
    """What opens a log in memory: the same one for the same folder."""
    logs = defaultdict(lambda: kind(part_records=3))
    return logs.__getitem__


def sqlite(kind=SqliteLog):
    return lambda folder: kind(folder, segment_bytes=60_000)


@parametrize_with_checks([sqlite(), shared(MemoryLog)])
def test_the_laws_hold(check):
    check()


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


class CannotSayItsSize(MemoryLog):
    size = None


class HidesItsOwnWrites(MemoryLog):
    def named(self, name):
        return getattr(self._known, "maps", [self._known])[-1].get(name.encode())


class TakesOneNameForAnother(MemoryLog):
    def name(self, name, named):
        super().name(normalize("NFC", name), named)

    def named(self, name):
        return super().named(normalize("NFC", name))


class KeepsNames(MemoryLog):
    def __init__(self, part_records=64):
        super().__init__(part_records)
        self._names = {}

    def name(self, name, named):
        self._names.setdefault(name, named)
        super().name(name, named)

    def named(self, name):
        return super().named(name) or (self._names.get(name) if self.swept() else None)


class ErasesNoFeedback(MemoryLog):
    def erase(self, entries, rows=(), requests=(), ids=()):
        super().erase(entries, (), requests, ids)


class ErasesNoTexts(MemoryLog):
    def erase(self, entries, rows=(), requests=(), ids=()):
        super().erase(entries, rows, requests)


class ErasesNoNames(MemoryLog):
    def erase(self, entries, rows=(), requests=(), ids=()):
        super().erase(entries, rows, (), ids)


class NotesTextsWithoutEnd(MemoryLog):
    def note(self, texts, most):
        super().note(texts, 10**9)


class AppendsNotReplaces(MemoryLog):
    def erase(self, entries, rows=(), requests=(), ids=()):
        super().erase({}, rows, requests, ids)
        self._entries += [(entry, 0.0) for entry in entries.values()]


class ForgetsWhatItOutlived(MemoryLog):
    def outlived(self, name):
        return False


class CountsForItself:
    """Each hold has facts of its own."""

    def __init__(self, log):
        self._log, self._own = log, {}

    def __getattr__(self, name):
        return getattr(self._log, name)

    @contextmanager
    def transaction(self):
        with self._log.transaction() as inner:
            yield OwnFacts(inner, self._own)


class OwnFacts:
    def __init__(self, inner, own):
        self._inner, self._own = inner, own

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def put(self, name, value):
        self._own[name] = value
        self._inner.put(name, value)

    def fact(self, name):
        return self._own.get(name, self._inner.fact(name))


class KeepsWhoLeft(MemoryLog):
    def leave(self, incarnation):
        pass


def each_for_itself(folder, logs=defaultdict(MemoryLog)):  # noqa: B006 - shared on purpose
    return CountsForItself(logs[folder])


def opener(kind):
    open_log = sqlite(kind) if issubclass(kind, SqliteLog) else shared(kind)

    def opened(folder):
        return open_log(folder)

    opened.__name__ = kind.__name__
    return opened


BROKEN = {
    "its_methods_are_those_of_the_contract": [opener(CannotSayItsSize)],
    "records_come_back_in_order": [opener(Reorders), opener(ReadsItsOwnCopy)],
    "a_failed_group_leaves_nothing": [opener(KeepsWhatFailed), opener(LosesTheLastGroupWhenOneFails)],
    "a_group_reads_its_own_writes": [opener(HidesItsOwnWrites)],
    "the_index_finds_what_was_written": [opener(FeedsOncePerRow), opener(TakesOneNameForAnother)],
    "many_writers_share_one_order": [each_for_itself],
    "a_reader_out_of_bounds_is_refused": [opener(LetsReadersRunAhead)],
    "a_record_wakes_who_waits": [opener(WakesNobody)],
    "incarnations_live_until_they_leave": [opener(KeepsWhoLeft)],
    "what_is_erased_is_gone_for_every_hold": [
        opener(kind) for kind in (ErasesNoFeedback, ErasesNoTexts, ErasesNoNames, NotesTextsWithoutEnd, AppendsNotReplaces)
    ],
    "retention_deletes_what_is_done_with_and_no_more": [
        opener(kind)
        for kind in (ForgetsLast, SweepsTooMuch, SweepsWhatIsNeeded, NeverSweeps, KeepsNames, ForgetsWhatItOutlived)
    ],
}


@each_of(BROKEN)
def test_a_broken_log_breaks_the_law(law, mutant):
    assert law in broken_by(mutant)


def test_every_law_has_a_mutant_of_its_own():
    each_law_has_its_own(BROKEN, opener(MemoryLog))
