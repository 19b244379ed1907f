"""Forget: what it names is in no file afterwards, learning goes on bit for bit, and a kill at any step is made up for."""

import asyncio
import struct

import numpy as np
import pytest

from riverdelta.cli.options import work
from riverdelta.core.arrays import part
from riverdelta.core.errors import NotFound
from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.locks import shared
from riverdelta.corrections.calibration import Calibration
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.linear import Linear
from riverdelta.learning.commands import COMMANDS
from riverdelta.learning.definition import Definition
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.recall import Replayed
from riverdelta.storage.impression import find
from riverdelta.storage.journal import Outcome
from riverdelta.storage.journal.names import RowName
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.log.segment import Segment
from riverdelta.storage.registry import FolderRegistry

ANN, BOB = id64("ann"), id64("bob")
Forget = COMMANDS["forget"]


@pytest.fixture
def definition(definition):
    corrections = [Calibration(), Linear("user", "item", ("user", "item"), slots=512), Entity("user", on=["shop"], slots=256)]
    columns = Schema.of({"shop": "float32", "item": "int64"})
    return Definition("ranker", definition.signature.path, "logit", columns=columns, corrections=corrections)


@pytest.fixture
def operator(rig):
    return Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now)


def score(rig, users, seed=0):
    columns = rig.columns(len(users), seed) | {"user": list(users), "item": np.arange(len(users)) % 3}
    return rig.plane.score(columns)


def label(rig, answer, rows, value=1.0):
    labels = np.full(len(rows), value, np.float32)
    return asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in rows], labels)).outcomes


def teach(rig, users, seed=0):
    answer = score(rig, users, seed)
    label(rig, answer, range(len(users)))
    rig.step()
    return answer


def forget(rig, operator, what):
    sequence = operator.ask(Forget(what=what))
    rig.step()
    return rig.trainer.learner.outcomes.of(sequence)


def files_with(home, *needles):
    return [
        (path.name, needle) for path in home.rglob("*") if path.is_file() for needle in needles if needle in path.read_bytes()
    ]


def hashed(number):
    return struct.pack("<q", number)


def test_nothing_of_an_id_is_left_in_any_file_and_others_stay(rig, operator):
    rig.settings.__dict__["release_examples"] = 4
    for seed in range(4):
        teach(rig, ["ann", "bob", "ann", "cleo"], seed)
    home = rig.trainer.home.folder
    assert files_with(home, hashed(ANN))
    outcome = forget(rig, operator, "user=ann")
    assert (outcome.pending, outcome.refused) == (False, None)
    assert outcome.removed["rows"] == outcome.removed["feedback"] == 8
    assert outcome.removed["coefficients"] >= 4
    assert files_with(home, hashed(ANN), b'ann"', str(ANN).encode()) == []
    assert files_with(home, hashed(BOB))
    counts = forget(rig, operator, "user=ann").removed
    assert (counts["rows"], counts["feedback"]) == (0, 0)


def test_every_kept_release_and_the_live_tables_have_what_was_never_learned(rig, operator):
    rig.settings.__dict__["release_examples"] = 4
    for seed in range(4):
        teach(rig, ["ann", "bob", "ann", "cleo"], seed)
    store = rig.trainer.releases.store
    assert len(store.all()) > 2
    forget(rig, operator, "user=ann")
    never, bob = (rows_of(own, rig.definition, store) for own in (id64("never"), BOB))
    assert rows_of(ANN, rig.definition, store) == never
    assert bob[-1] != never[-1]
    for release in store.all():
        release.verify()
        assert "digest" not in release.facts or release.facts["digest"] == stack_at(rig.definition, store, release).digest()
    rig.plane.follower.follow()
    columns = rig.columns(2, 9) | {"user": ["ann", "never"], "item": np.array([1, 1])}
    columns["x"][:], columns["shop"][:] = 0.5, 1.0
    assert len(set(rig.plane.score(columns).scores.tolist())) == 1


def stack_at(definition, store, release):
    stack = definition.new_stack()
    stack.load(part(store.state(release), "stack"))
    return stack


def rows_of(own, definition, store):
    """Return the outputs of an id's rows by the tables of every release."""
    rows = {"user": np.full(3, own), "item": np.arange(3), "shop": np.ones(3, np.float32)}
    stacks = [stack_at(definition, store, release) for release in store.all()]
    return [stack.predict(rows, np.zeros((3, 1), np.float32)).tolist() for stack in stacks]


def replayed(rig, position, state):
    """Return a learner that learned again what came after a position, from its state there."""
    learner = new_learner(rig.definition, rig.settings)
    learner.recall = Replayed(rig.trainer.journal, learner.state())
    learner.load(state)
    for sequence, record in rig.trainer.journal.read(position, 10**6):
        learner.push(sequence, record)
    return learner


def test_a_replay_from_the_checkpoint_gives_the_same_tables_bit_for_bit(rig, operator):
    teach(rig, ["ann", "bob"] * 4, 1)
    late = score(rig, ["ann", "bob"], 2)
    rig.step()
    forget(rig, operator, "user=ann")
    assert label(rig, late, [0, 1]) == [Outcome.IMPRESSION_LOST, Outcome.ACCEPTED]
    checkpoint = rig.trainer.checkpoints.load()
    assert len(rig.trainer.checkpoints._names()) == 1
    teach(rig, ["ann", "cleo"] * 4, 3)
    learner = replayed(rig, checkpoint.position, checkpoint.arrays)
    assert learner.stack.digest() == rig.trainer.learner.stack.digest()
    assert learner.position == rig.trainer.learner.position


def test_a_replay_from_a_release_gives_the_same_tables_with_request_ids_and_weights(rig, operator):
    def order(name, seed):
        rows = ["row-1", "row-2"]
        columns = rig.columns(2, seed) | {"user": ["ann", "bob"], "item": np.array([1, 2])}
        rig.plane.score(columns, request_id=name, row_ids=rows)
        given = {"weights": [0.25, 40.0], "times": [1e9, np.nan]}
        outcomes = asyncio.run(rig.plane.feedback([RowName(name, row) for row in rows], np.float32([1, 0]), **given)).outcomes
        rig.step()
        return outcomes

    rig.now = 1e9
    assert order("order-1", 1) == [Outcome.ACCEPTED] * 2
    forget(rig, operator, "user=ann")
    operator.ask(COMMANDS["release"]())
    rig.step()
    assert order("order-2", 2) == [Outcome.ACCEPTED] * 2
    forget(rig, operator, "request_id=order-2")
    assert order("order-3", 3) == [Outcome.ACCEPTED] * 2
    # Rows of the second forget are erased, so that only what is from after it can be learned again.
    operator.ask(COMMANDS["release"]())
    rig.step()
    store = rig.trainer.home.releases()
    begin = store.all()[-1]
    assert order("order-4", 4) == [Outcome.ACCEPTED] * 2
    assert order("order-4", 4) == [Outcome.DUPLICATE] * 2
    learner = replayed(rig, begin.position, store.state(begin))
    assert learner.stack.digest() == rig.trainer.learner.stack.digest() != stack_at(rig.definition, store, begin).digest()


def test_rows_scored_after_the_command_stay_and_are_learned(rig, operator):
    teach(rig, ["ann", "bob"], 1)
    sequence = operator.ask(Forget(what="user=ann"))
    later = score(rig, ["ann", "bob"], 2)
    label(rig, later, [0, 1])
    rig.step()
    assert rig.trainer.learner.outcomes.of(sequence).removed["rows"] == 1
    assert rig.trainer.learner.examples == 4
    assert label(rig, later, [0]) == [Outcome.DUPLICATE]
    assert files_with(rig.trainer.home.folder, hashed(ANN))


def test_an_id_that_is_in_another_column_too_leaves_only_its_own(rig, operator):
    answer = rig.plane.score(rig.columns(3, 1) | {"user": [7, 8, 7], "item": np.array([1, 7, 7])})
    label(rig, answer, [0, 1, 2])
    rig.step()
    assert forget(rig, operator, "user=7").removed["rows"] == 2
    assert label(rig, answer, [0, 1, 2]) == [Outcome.IMPRESSION_LOST, Outcome.DUPLICATE, Outcome.IMPRESSION_LOST]


@pytest.mark.parametrize("what", ["user=nobody", "request_id=nobody"])
def test_what_was_never_seen_is_forgotten_without_effect(rig, operator, what):
    teach(rig, ["bob"], 1)
    digest = rig.trainer.learner.stack.digest()
    outcome = forget(rig, operator, what)
    assert (outcome.refused, outcome.removed["rows"]) == (None, 0)
    assert rig.trainer.learner.stack.digest() == digest
    assert Forget(what=what).done({"removed": outcome.removed}).startswith(f"no row of {what} was found")


def test_the_record_and_the_status_name_only_the_column(rig, operator):
    teach(rig, ["ann"], 1)
    sequence = operator.ask(Forget(what="user=ann"))
    rig.step()
    ((_, record),) = rig.trainer.journal.read(sequence - 1, 1)
    assert record.fields["what"].startswith("user=#")
    assert rig.trainer.status()["outcomes"][-1]["details"]["what"] == "user"
    assert str(ANN) not in str(rig.trainer.status())


def test_a_request_is_forgotten_by_its_clients_id_and_its_users_other_rows_stay(rig, operator):
    columns = rig.columns(2, 1) | {"user": ["ann", "bob"], "item": np.array([1, 2])}
    answer = rig.plane.score(columns, request_id="order-17", row_ids=["row-of-ann", "row-of-bob"])
    other = rig.plane.score(columns, request_id="order-18")
    label(rig, answer, [0, 1])
    label(rig, other, [0])
    rig.step()
    home = rig.trainer.home.folder
    assert files_with(home, b"order-17")
    assert forget(rig, operator, "request_id=order-17").removed["rows"] == 2
    assert files_with(home, b"order-17", b"row-of-ann", b"row-of-bob") == []
    assert files_with(home, b"order-18")
    assert label(rig, answer, [0, 1]) == [Outcome.IMPRESSION_LOST] * 2
    assert label(rig, other, [0, 1]) == [Outcome.DUPLICATE, Outcome.ACCEPTED]
    assert rig.plane.score(columns, request_id="order-17").impressions != answer.impressions


@pytest.mark.parametrize("rig", [{"labels": "silence", "window_seconds": 60.0}], indirect=True)
def test_rows_that_were_shown_and_wait_become_no_negatives(rig, operator):
    answer = score(rig, ["ann", "bob", "ann"], 1)
    label(rig, answer, [0, 1, 2], np.nan)
    rig.step()
    assert forget(rig, operator, "user=ann").removed["showings"] == 2
    rig.step(seconds=120.0)
    rig.step()
    assert (rig.trainer.learner.examples, rig.trainer.learner.joiner.unmatched) == (1, 0)


def test_held_examples_are_dropped_and_the_others_are_learned_later(rig, operator):
    rig.trainer.learner.admission.breaker._tally["open"] = 1
    teach(rig, ["ann", "bob", "ann"], 1)
    assert len(rig.trainer.learner.held) == 3
    assert forget(rig, operator, "user=ann").removed["held rows"] == 2
    operator.ask(COMMANDS["resume"]())
    rig.step()
    assert rig.trainer.learner.learned == 1


def test_an_id_that_shares_its_slot_resets_the_other_too_and_the_report_says_one_row(rig, operator):
    hashing = rig.trainer.learner.stack.corrections[2]._hash
    own = int(hashing(np.array([BOB]))[0])
    twin = next(n for n in range(10**6) if int(hashing(np.array([n]))[0]) == own)
    teach(rig, ["bob"] * 6 + ["cleo"], 1)
    entity = rig.trainer.learner.stack.corrections[2]
    offset, rows = np.zeros((1, 1), np.float32), {"user": np.array([BOB]), "shop": np.ones(1, np.float32)}
    assert entity.predict(rows, offset)[0, 0] != 0
    forget(rig, operator, f"user={twin}")
    assert entity.predict(rows, offset)[0, 0] == 0


def test_a_rollback_to_a_release_from_before_brings_nothing_back(rig, operator):
    rig.settings.__dict__["release_examples"] = 4
    for seed in range(3):
        teach(rig, ["ann", "bob", "ann", "cleo"], seed)
    forget(rig, operator, "user=ann")
    operator.ask(COMMANDS["rollback"](release=1))
    rig.step()
    rows = {"user": np.array([ANN, id64("never")]), "item": np.ones(2, np.int64), "shop": np.ones(2, np.float32)}
    mine, never = rig.trainer.learner.stack.predict(rows, np.zeros((2, 1), np.float32)).tolist()
    assert mine == never
    assert files_with(rig.trainer.home.folder, hashed(ANN)) == []


def test_the_text_of_an_id_is_noted_shown_and_forgotten(rig, operator):
    answer = teach(rig, ["ann", "bob"], 1)
    home = rig.trainer.home
    assert find(home, f"{answer.impressions}.1")["columns"]["user"] == "bob"
    assert files_with(home.folder, b"ann")
    assert forget(rig, operator, "user=ann").removed["names"] == 1
    assert [name for name, _ in files_with(home.folder, b"ann") if name.endswith(("sqlite", "-wal"))] == []
    assert find(home, f"{answer.impressions}.1")["columns"]["user"] == "bob"
    with pytest.raises(NotFound, match="was erased by `riverdelta forget`"):
        find(home, f"{answer.impressions}.0")


@pytest.mark.parametrize("rig", [{"names": 0}], indirect=True)
def test_without_names_no_text_is_stored(rig):
    answer = teach(rig, ["a-long-name-of-ann"], 1)
    assert files_with(rig.trainer.home.folder, b"a-long-name") == []
    assert find(rig.trainer.home, f"{answer.impressions}.0")["columns"]["user"] == id64("a-long-name-of-ann")


def test_while_a_backup_is_made_the_erasure_waits(rig, operator, monkeypatch):
    monkeypatch.setattr("riverdelta.sidecar.trainer._PAUSE_SECONDS", 0.0)
    teach(rig, ["ann"], 1)
    sequence = operator.ask(Forget(what="user=ann"))
    with shared(rig.trainer.home.key_path.parent / "copying"):
        for _ in range(3):
            rig.trainer.step()
        assert "a backup is being made" in rig.trainer.paused
        assert rig.trainer.learner.outcomes.of(sequence).pending
    rig.step()
    assert not rig.trainer.learner.outcomes.of(sequence).pending
    assert files_with(rig.trainer.home.folder, hashed(ANN)) == []


def test_without_a_learner_the_command_line_does_its_work_and_leaves_one_that_runs_alone(rig, operator):
    teach(rig, ["ann", "bob"], 1)
    sequence = operator.ask(Forget(what="user=ann"))
    assert not work(rig.trainer.home, sequence)
    rig.trainer.close()
    rig.start()
    rig.step()
    label(rig, score(rig, ["ann"], 3), [0])
    rig.trainer.close()
    sequence = operator.ask(Forget(what="user=ann"))
    assert work(rig.trainer.home, sequence)
    answer = asyncio.run(operator.answer(Forget(what="user=ann"), sequence))
    assert (answer.obeyed, answer.removed["rows"]) == (True, 1)
    assert "rows 1, feedback 1" in Forget(what="user=ann").describe(vars(answer))
    assert files_with(rig.trainer.home.folder, hashed(ANN)) == []
    rig.start()


def test_what_write_ahead_logs_have_goes_too_once_their_readers_have_ended(rig, operator, monkeypatch):
    monkeypatch.setattr("riverdelta.sidecar.trainer._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("riverdelta.storage.log.sqlite._SCRUB_SECONDS", 0.0)
    teach(rig, ["ann", "bob"], 1)
    sequence = operator.ask(Forget(what="user=ann"))
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "settle", lambda segment: False)  # as while another process reads
        for _ in range(5):
            rig.trainer.step()
        assert "is in use" in rig.trainer.paused
        assert rig.trainer.learner.outcomes.of(sequence).pending
    rig.step()
    assert not rig.trainer.learner.outcomes.of(sequence).pending
    assert files_with(rig.trainer.home.folder, hashed(ANN), str(ANN).encode(), struct.pack(">q", ANN)) == []


class Killed(BaseException):
    pass


def crash(rig):
    """As after a kill: nothing is saved, the lock is gone with the process."""
    rig.trainer.journal.close()
    rig.trainer._lock.release()


_WHOLE = []


@pytest.mark.parametrize("kills", [None, *range(0, 20, 2)])
def test_killed_before_any_write_or_delete_the_next_start_makes_it_complete_with_the_same_bits(rig, monkeypatch, kills):
    rig.settings.__dict__["release_examples"] = 8
    for seed in range(2):
        teach(rig, ["ann", "bob"] * 4, seed)
    Operator(rig.trainer.home, rig.plane.journal, clock=lambda: rig.now).ask(Forget(what="user=ann"))
    left = iter([] if kills is None else [*[None] * kills, Killed()])

    def guarded(do):
        def run(*args, **given):
            if (error := next(left, None)) is not None:
                raise error
            return do(*args, **given)

        return run

    with monkeypatch.context() as patch:
        for owner, names in ((FolderRegistry, ("write", "delete")), (SqliteLog, ("erase", "scrub"))):
            for each in names:
                patch.setattr(owner, each, guarded(getattr(owner, each)))
        try:
            rig.step()
        except Killed:
            crash(rig)
            patch.undo()
            rig.start()
    rig.step()
    assert not rig.trainer.learner.outcomes[-1].pending
    assert files_with(rig.trainer.home.folder, hashed(ANN), str(ANN).encode()) == []
    _WHOLE.append(rig.trainer.learner.stack.digest())
    assert _WHOLE[-1] == _WHOLE[0]
