"""Names: a request has one owner, whichever process, life or failure comes between; its rows are found by their ids."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.errors import Corrupt, InvalidInput, Unavailable
from riverdelta.core.hashing import id64
from riverdelta.core.records import Impressions, RequestName, Tick, encode
from riverdelta.learning.erased import Erased, Subject
from riverdelta.storage.journal import Outcome, Rows
from riverdelta.storage.journal.erasure import erase
from riverdelta.storage.journal.names import Answered, Resolver, RowName, check_name, content_digest, hashed
from riverdelta.storage.log import Entry, Named
from riverdelta.storage.registry import State

STATE = State(3, 5, 7)


def rows(name, count=3, row_ids=None, mark=0.0):
    logit = np.arange(count, dtype=np.float32) + np.float32(mark)
    hashes = None if row_ids is None else hashed(row_ids)
    content = Answered(content_digest({"x": logit}, hashes), STATE, logit, logit, hashes).encode()
    return Rows({"x": logit}, logit, logit, logit, None, STATE, 100.0, name=RequestName(name, row_ids), content=content)


def claimed(worker, *given, **more):
    """Claim a name and return its owner, and whether that is the new request."""
    number, owner = worker.journal.claim(rows(*given, **more))
    found = owner.result(20)
    return found, found.request == (worker.journal.incarnation, number)


def impressions(records, journal):
    return [record for _, record in records(journal) if isinstance(record, Impressions)]


def test_a_name_is_durable_when_it_is_answered_and_its_rows_are_found_by_every_process(home, records):
    one, two = home.worker(flush_seconds=60.0), home.worker(flush_seconds=60.0)
    owner, mine = claimed(one, "order-1", row_ids=("a", "b", "c"))
    assert mine
    resolver = Resolver(two.journal.log)
    assert resolver.find(RowName("order-1", "b")) == (*owner.request, 1)
    assert resolver.find(RowName("order-1", index=2)) == (*owner.request, 2)
    assert resolver.find(RowName("order-1", "d")) is Outcome.OUT_OF_RANGE
    assert resolver.find(RowName("order-1", index=3)) is Outcome.OUT_OF_RANGE
    assert resolver.find(RowName("order-2")) is Outcome.BAD_ID
    with pytest.raises(InvalidInput, match="the request 'order-1' has 3 rows; say which one is meant: add its row_id"):
        resolver.find(RowName("order-1"))
    (record,) = impressions(records, two.journal)
    assert record.names == {owner.request[1]: RequestName("order-1", ("a", "b", "c"))}


def test_the_later_of_two_requests_of_one_name_leaves_nothing_and_those_beside_it_stay(home, records):
    worker = home.worker(flush_seconds=0.05)
    first = worker.journal.claim(rows("same"))
    plain = worker.score()
    again, other = worker.journal.claim(rows("same", mark=1.0)), worker.journal.claim(rows("other"))
    owners = [owner.result(20).request[1] for _, owner in (first, again, other)]
    assert owners == [first[0], first[0], other[0]]
    assert worker.feed([first[0]] * 1, 0, 1) == ["accepted"]
    assert worker.feed(plain, 0, 1) == ["accepted"]
    assert worker.feed(again[0], 0, 1) == ["impression_lost"]
    kept = [number for record in impressions(records, worker.journal) for number in record.request.tolist()]
    assert kept == [number for number in (first[0], plain, other[0]) for _ in range(3)]


def test_a_thousand_requests_of_few_names_in_two_processes_get_one_owner_each(home, records):
    workers, names = [home.worker(), home.worker()], [f"n{n}" for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: (names[n % 20], claimed(workers[n % 2 ^ n // 20 % 2], names[n % 20])), range(400)))
    owners = {(name, owner.request) for name, (owner, _) in found}
    assert len(owners) == len(names)
    assert sum(mine for _, (_, mine) in found) == len(names)
    kept = [name.request_id for record in impressions(records, workers[0].journal) for name in record.names.values()]
    assert sorted(kept) == sorted(names)


def test_a_name_outlives_its_process_and_goes_with_its_rows(home):
    worker = home.worker(segment_bytes=1)
    owner, _ = claimed(worker, "order-1")
    worker.journal.close()
    again = home.worker(segment_bytes=1)
    assert claimed(again, "order-1")[0].request == owner.request
    for _ in range(2):
        again.feed(again.score(), 0, 1)
    again.journal.sweep(1, -1.0, 1 << 60, 1e12)
    assert Resolver(again.journal.log).find(RowName("order-1", index=0)) == (*owner.request, 0)
    assert again.feed(owner.request[1], 0, 1, of=worker) == ["expired"]
    for _ in range(2):
        again.journal.sweep(10**9, 1e13, 1 << 60, 1e12)
    assert Resolver(again.journal.log).find(RowName("order-1", index=0)) is Outcome.EXPIRED
    assert Resolver(again.journal.log).find(RowName("order-2", index=0)) is Outcome.BAD_ID
    assert claimed(again, "order-1")[1]


def test_a_name_that_cannot_be_stored_is_refused_and_free_again(home, monkeypatch, records):
    worker = home.worker()
    with monkeypatch.context() as patch:
        patch.setattr(worker.journal.log, "transaction", lambda: (_ for _ in ()).throw(OSError("no space left on device")))
        _, owner = worker.journal.claim(rows("order-1"))
        with pytest.raises(Unavailable, match="no space left"):
            owner.result(20)
    assert claimed(worker, "order-1", mark=1.0)[1]
    assert len(impressions(records, worker.journal)) == 1


def test_closing_decides_every_claim(home):
    worker = home.worker(flush_seconds=60.0)
    owners = [worker.journal.claim(rows(f"n{n}"))[1] for n in range(50)]
    worker.journal.close()
    assert len({owner.result(0).request for owner in owners}) == 50
    with pytest.raises(Unavailable, match="the journal is closed"):
        worker.journal.claim(rows("late"))


MORTAL = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from riverdelta.storage.journal import Journal
from riverdelta.storage.log import SqliteLog
from test_names import rows
journal = Journal(SqliteLog(Path({folder!r})), flush_seconds=60.0)
_, owner = journal.claim(rows("answered"))
owner.result(20)
journal.claim(rows("in flight"))
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


def test_after_a_kill_a_name_belongs_to_its_request_or_is_free_and_never_has_two(home, records):
    script = MORTAL.format(tests=str(Path(__file__).parent), folder=str(home.folder))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    worker = home.worker()
    assert not claimed(worker, "answered")[1]
    claimed(worker, "in flight")
    kept = [name.request_id for record in impressions(records, worker.journal) for name in record.names.values()]
    assert sorted(kept) == ["answered", "in flight"]


def test_many_names_are_found_without_reading_them_all(home):
    worker = home.worker()
    with worker.journal.log.transaction() as transaction:
        for number in range(20_000):
            transaction.name(f"order-{number}", Named((7, number), b"content"))
    assert [worker.journal.log.named(f"order-{n}").request for n in (0, 9_999, 19_999)] == [(7, 0), (7, 9_999), (7, 19_999)]
    assert worker.journal.log.named("order-20000") is None


def test_a_damaged_content_is_named(home):
    worker = home.worker()
    with worker.journal.log.transaction() as transaction:
        transaction.name("mine", Named((7, 1), b"content"))
    with pytest.raises(Corrupt, match="has of the request 'mine'"):
        Resolver(worker.journal.log).find(RowName("mine"))


@given(st.text(max_size=200))
def test_a_name_is_taken_as_it_is_or_refused(name):
    try:
        assert check_name(name, "request_id") is name
        assert 1 <= len(name.encode()) <= 128
    except InvalidInput:
        assert not name or len(name.encode(errors="replace")) > 128 or any(category(c) in ("Cc", "Cs") for c in name)


arrays = st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(lambda values: np.array(values, np.float32))
texts = st.lists(st.text(max_size=3), max_size=4).map(lambda values: np.array(values, object))
columns = st.dictionaries(st.text(max_size=3), arrays | texts, max_size=3)


@given(columns, columns)
def test_two_requests_have_one_digest_only_if_their_columns_are_the_same(one, two):
    def told(of):
        return {name: (array.dtype.kind, *map(repr, array.tolist())) for name, array in of.items()}

    assert (content_digest(one) == content_digest(two)) == (told(one) == told(two))
    assert content_digest(one) == content_digest(dict(reversed(one.items())))


def test_an_answer_is_kept_to_the_last_bit():
    scores = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    scores[0, 0] = np.nan
    kept = Answered(b"d" * 16, STATE, scores, scores + 1, hashed(("a", "b", "c", "d", "e")))
    found = Answered.decode(kept.encode(), "a name")
    assert (found.digest, found.state, len(found)) == (kept.digest, STATE, 5)
    for field in ("scores", "base", "row_ids"):
        assert getattr(found, field).tobytes() == getattr(kept, field).tobytes()


def test_a_name_is_forgotten_although_retention_has_deleted_its_request_or_rebase_its_rows(home):
    journal = (worker := home.worker(segment_bytes=1)).journal
    owners = [claimed(worker, name)[0] for name in ("swept", "dropped", "other")]
    journal.write(Tick(1.0))
    journal.sweep(1, -1.0, 10**12, 10**12)
    journal.sweep(journal.last(), 10**13, 10**12, 0.0)
    journal.sweep(journal.last(), 10**13, 10**12, 0.0)
    journal.log.erase({2: Entry.of(Tick.kind, 1, encode(Tick(0.0)))})
    found = [Resolver(journal.log).find(RowName(name, index=0)) for name in ("swept", "dropped")]
    assert found == [Outcome.EXPIRED, (*owners[1].request, 0)]
    for name, owner in (("swept", (0, 0)), ("dropped", owners[1].request)):
        erase(journal, Erased(Subject(None, id64(name), owner)), journal.last())
    journal.log.scrub()
    assert [Resolver(journal.log).find(RowName(name, index=0)) for name in ("swept", "dropped")] == [Outcome.BAD_ID] * 2
    assert Resolver(journal.log).find(RowName("other", index=0)) == (*owners[2].request, 0)
    contents = b"".join(path.read_bytes() for path in home.folder.iterdir() if path.is_file())
    assert (b"dropped" in contents, id64("swept").to_bytes(8, "big", signed=True) in contents) == (False, False)
    assert b"other" in contents
