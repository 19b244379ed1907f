"""The laws of a log: functions of two holds on a new log, which raise `LawBroken` with what they found."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from riverdelta.checks.law import LawBroken, equal, laws_of, refused
from riverdelta.core.errors import Corrupt
from riverdelta.core.hashing import id64
from riverdelta.storage.log import ERASED, Entry, Fed, Log, Named

_REQUESTS = 20
#: Names that a careless backend takes for one: other case, spaces, composed and decomposed letters, letters that look alike.
_NAMES = ("mine", "Mine", "mine ", "caf\u00e9", "cafe\u0301", "\u0441af\u00e9", "7", "07", "x" * 128)


def records_come_back_in_order(one: Log, two: Log) -> None:
    """Positions count from 1 without a gap, and every hold reads the same bytes there, however many rows it asks for."""
    equal("first and last of an empty log", (two.first(), two.last(), two.read(0, 9)), (1, 0, []))
    payloads = [bytes([n]) * 300 for n in range(24)]
    for n, payload in enumerate(payloads):
        with (one, two)[n % 2].transaction() as transaction:
            equal("append", transaction.append(Entry.of("k", 1, payload)), n + 1)
            equal("last inside the transaction", transaction.last(), n + 1)
        equal("the last of both holds", (one.last(), two.last()), (n + 1, n + 1))
        reader = (two, one)[n % 2]
        equal("what the other hold reads", [s.payload for s in reader.read(n, 1)], [payload])
    for rows in (1, 7, 1000):
        equal(f"read by {rows} rows", _all(two, rows), list(enumerate(payloads, 1)))
    if len(one.read(0, 5)) > 5:
        raise LawBroken("read returned more than 5 records of one row; expected at most 5, the number of rows asked for")


def a_failed_group_leaves_nothing(one: Log, two: Log) -> None:
    """An error inside a transaction undoes all of it and nothing else; the next record takes the same position."""
    _score(one, 7, 0)

    def found(log: Log) -> object:
        index = log.find((7, 0)), log.find((7, 1)), log.named("mine"), log.fact("tick"), log.flushed(7)
        return _all(log, 9), log.last(), index

    before = found(two)
    with suppress(InterruptedError), one.transaction() as transaction:
        transaction.index(7, np.array([[1, 2]]), transaction.append(Entry.of("k", 1, b"never")))
        transaction.feed({(7, 0, 0): Fed(1.0), (7, 1, 0): Fed(0.0)})
        transaction.name("mine", Named((7, 1), b"never"))
        transaction.put("tick", 9.0)
        raise InterruptedError
    for log in (one, two):
        equal("a log after it", found(log), before)
    _score(one, 7, 1)
    equal("the next position", two.last(), 2)


def a_group_reads_its_own_writes(one: Log, two: Log) -> None:
    """Inside a transaction the index has what was written there; other holds have it after the transaction."""
    with one.transaction() as transaction:
        sequence = transaction.append(Entry.of("k", 3, b"rows"))
        transaction.index(7, np.array([[4, 2], [6, 1]]), sequence)
        transaction.feed({(7, 4, 1): Fed(1.0, 2.0, 3.0)})
        transaction.name("mine", Named((7, 4), b"content"))
        transaction.put("settings", '{"a": 1}')
        inside = transaction.find((7, 4)), transaction.named("mine"), transaction.fact("settings")
    outside = two.find((7, 4)), two.named("mine"), two.fact("settings")
    equal("the index inside the transaction", inside, outside)


def the_index_finds_what_was_written(one: Log, two: Log) -> None:
    """Every hold finds requests with their rows and labels, names and facts; the newest value counts."""
    places = [_score(one, incarnation, number) for number in range(_REQUESTS) for incarnation in (7, 8)]
    with two.transaction() as transaction:
        transaction.feed({(7, 3, 0): Fed(None, 1.0, float("inf")), (7, 3, 1): Fed(0.0)})
    with one.transaction() as transaction:
        transaction.feed({(7, 3, 0): Fed(1.0, 1.0)})
        for number, name in enumerate(_NAMES):
            transaction.name(name, Named((7, number), name.encode()))
        fed = transaction.append(Entry.of("fed", 1, b"labels"))
        for tick in (1.5, 2.5):
            transaction.put("tick", tick)
    for log in (one, two):
        found = log.find((7, 3))
        known = None if found is None else (found.rows, dict(found.fed), found.retired)
        equal("a request", known, (2, {0: Fed(1.0, 1.0), 1: Fed(0.0)}, False))
        never = log.find((7, _REQUESTS)), log.find((9, 0)), log.locate((9, 0))
        equal("requests that were never scored", never, (None, None, None))
        equal("the positions of requests", [log.locate((i, n)) for n in range(_REQUESTS) for i in (7, 8)], places)
        equal("the newest request of each", [log.flushed(i) for i in (7, 8, 9)], [_REQUESTS - 1, _REQUESTS - 1, -1])
        expected = [Named((7, number), name.encode()) for number, name in enumerate(_NAMES)]
        equal("names", [log.named(name) for name in (*_NAMES, "theirs", "")], [*expected, None, None])
        equal("facts", (log.fact("tick"), log.fact("settings"), log.fact("incarnations")), (2.5, "{}", 0))
        equal("records by kind", (log.places("rows", 1, 4), log.places("k", 0, 99)), ([2, 3], []))
        equal("records that may have fed a request", log.fed_up_to({7: 3}, "fed"), [fed])
        equal("records that may have fed nothing", log.fed_up_to({}, "fed"), [])


def many_writers_share_one_order(one: Log, two: Log) -> None:
    """Concurrent transactions each observe all that were committed before, and no two take the same position."""

    def count(log: Log) -> None:
        for _ in range(6):
            with log.transaction() as transaction:
                transaction.put("incarnations", transaction.fact("incarnations") + 1)
                transaction.append(Entry.of("k", 1, str(transaction.fact("incarnations")).encode()))

    with ThreadPoolExecutor() as pool:
        list(pool.map(count, (one, two, one, two)))
    expected = [(n, str(n).encode()) for n in range(1, 25)]
    equal("what both holds read", (_all(one, 9), _all(two, 9)), (expected, expected))


def a_reader_out_of_bounds_is_refused(one: Log, two: Log) -> None:
    """A reader beyond the newest record is refused, because it would miss the next one; a reader at the newest gets nothing."""
    _score(one, 7, 0)
    equal("what comes after the newest", two.read(1, 9), [])
    with refused("a reader at 2 of a log of 1 record", Corrupt):
        two.read(2, 9)


def a_record_wakes_who_waits(one: Log, two: Log) -> None:
    """A wait ends with the record that it is for, whichever hold wrote it, or when its time is up."""
    equal("a wait for nothing", (one.wait(0, 0.0), one.wait(0, 0.02)), (False, False))
    for n, writer in enumerate((one, two)):
        found = list[bool]()
        waiting = threading.Thread(target=lambda n=n, found=found: found.append(one.wait(n, 60.0)))
        waiting.start()
        _score(writer, 7, n)
        waiting.join(10.0)
        equal(f"a wait of the first hold for a record of the {('first', 'second')[n]}", found, [True])
    equal("a wait for a record that exists", two.wait(0, 0.0), True)


def incarnations_live_until_they_leave(one: Log, two: Log) -> None:
    """Every hold knows which incarnations have entered and not left."""
    for log, incarnation in ((one, 7), (two, 8)):
        with log.transaction():
            log.enter(incarnation)
    equal("the incarnations that live", [two.lives(i) for i in (7, 8, 9)], [True, True, False])
    one.leave(7)
    equal("the incarnations that live after one left", [two.lives(i) for i in (7, 8)], [False, True])
    two.leave(8)


def what_is_erased_is_gone_for_every_hold(one: Log, two: Log) -> None:
    """Records are replaced at their positions; erased rows keep no feedback, and names and texts are unknown; others stay."""
    for number in range(4):
        _score(one, 7, number, str(number))
    with one.transaction() as transaction:
        transaction.feed({(7, 1, 0): Fed(1.0), (7, 1, 1): Fed(0.0), (7, 2, 0): Fed(1.0)})
        transaction.note({5: "ann", 6: "bob"}, 2)
        transaction.note({8: "cleo"}, 2)
    equal("texts, of which 2 are noted", (dict(two.texts([5, 6, 8]))), {5: "ann", 6: "bob"})
    for _ in range(2):
        two.erase({2: Entry.of("rows", 1, b"left")}, [(7, 1, 0)], [(7, 1)], [5])
        two.scrub()
    for log in (one, two):
        equal("records", [(s, p == bytes(300)) for s, p in _all(log, 9)], [(1, True), (2, False), (3, True), (4, True)])
        found, other = log.find((7, 1)), log.find((7, 2))
        fed = found and dict(found.fed), other and dict(other.fed)
        equal("the feedback of an erased row and of others", fed, ({0: ERASED, 1: Fed(0.0)}, {0: Fed(1.0)}))
        named = [n for n in range(4) if log.named(str(n)) is not None]
        equal("the requests that still have their names", named, [0, 2, 3])
        equal("the texts that are left", dict(log.texts([5, 6])), {6: "bob"})
    equal("the next position", _score(one, 7, 4), 5)


def retention_deletes_what_is_done_with_and_no_more(one: Log, two: Log) -> None:
    """Retention deletes the oldest records, none after `behind`; their requests are retired, then unknown; facts stay."""
    behind = _REQUESTS // 2
    for n in range(_REQUESTS):
        _score(one, 7, n, str(n))
    with one.transaction() as transaction:
        transaction.put("tick", 3.0)

    def sweep(behind: int, old: bool, needed: bool = False) -> int:
        freed = sum(one.sweep(behind, -1.0 if old else 1e15, 1 << 60, 1e12, lambda spans: needed) for _ in range(3))
        two.refresh()
        return freed

    equal("bytes freed of what is still to be read", (sweep(0, old=True), two.first()), (0, 1))
    equal("bytes freed of what has just been retired", (sweep(behind, old=True), two.first()), (0, 1))
    retired = [n for n in range(_REQUESTS) if (found := two.find((7, n))) and found.retired]
    if not retired or retired != list(range(len(retired))) or len(retired) > behind:
        raise LawBroken(f"with all records up to {behind} old, the requests {retired} were retired; expected the oldest")
    equal("bytes freed while rows are needed", sweep(_REQUESTS, old=False, needed=True), 0)
    _score(one, 7, _REQUESTS)
    if not sweep(two.last(), old=False):
        raise LawBroken(f"sweep freed 0 bytes of {two.size()}; expected the first records to go, which are old and not needed")
    first = two.first()
    equal("the oldest record that is left", first, len(retired) + 1)
    equal("what is left", [s for s, _ in _all(two, 9)], list(range(first, two.last() + 1)))
    equal("a deleted request", (two.find((7, 0)), two.locate((7, 0))), (None, None))
    equal("the newest request that was deleted", dict(two.swept()), {7: len(retired) - 1})
    names = [n for n in range(_REQUESTS) if two.named(str(n)) == Named((7, n), str(n).encode())]
    equal("the requests that are found by name", names, list(range(len(retired), _REQUESTS)))
    outlived = [n for n in range(_REQUESTS) if two.outlived(str(n))]
    equal("the names whose requests were deleted", (outlived, two.outlived("theirs")), (retired, False))
    two.erase({}, ids=[id64("0")])
    equal("an erased name whose request was deleted", (one.outlived("0"), one.outlived("1")), (False, True))
    kept = two.find((7, len(retired)))
    equal("the oldest request that is left", None if kept is None else kept.rows, 2)
    equal("facts and the newest of each", (two.fact("tick"), two.last(), two.flushed(7)), (3.0, _REQUESTS + 1, _REQUESTS))
    with refused("a reader of what is deleted", Corrupt):
        two.read(first - 2, 9)
    equal("the position after retention", _score(two, 7, _REQUESTS + 1, "0"), _REQUESTS + 2)
    equal("a name that was given again after its request was deleted", one.named("0"), Named((7, _REQUESTS + 1), b"0"))


LAWS = laws_of(globals())


def in_a_folder(open_log: Callable[[Path], Log], law: Callable[..., None]) -> None:
    """Check one law of the log that `open_log` opens in a new folder, and that the records are there when it is reopened."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checked"
        with closing(open_log(place)) as one, closing(open_log(place)) as two:
            law(one, two)
            last = one.last()
        with closing(open_log(place)) as again:
            equal("the newest position after reopening", again.last(), last)


def _score(log: Log, incarnation: int, number: int, name: str | None = None) -> int:
    with log.transaction() as transaction:
        sequence = transaction.append(Entry.of("rows", 2, bytes(300)))
        transaction.index(incarnation, np.array([[number, 2]]), sequence)
        if name is not None:
            transaction.name(name, Named((incarnation, number), name.encode()))
    return sequence


def _all(log: Log, rows: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while part := log.read(found[-1][0] if found else 0, rows):
        found += [(stored.sequence, stored.payload) for stored in part]
        if [s for s, _ in found] != list(range(found[0][0], found[0][0] + len(found))):
            raise LawBroken(f"records are read as {[s for s, _ in found]}; expected each once, in order, without a gap")
    return found
