"""What a released version wrote is replayed, served and learned on from by this one.

All but tables is as it was, bit for bit where this version computes it in the same way; the tables of version 0.1 are near.
"""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from prometheus_client import CollectorRegistry
from scorer import ITEMS, KINDS, columns, definition, deserved, settings

from riverdelta.core.arrays import nest, read_arrays
from riverdelta.core.errors import Refused
from riverdelta.core.hashing import id64
from riverdelta.evaluation.gate import hedge
from riverdelta.graph.files import export
from riverdelta.learning.commands import Rollback
from riverdelta.learning.identity import describe
from riverdelta.learning.learner import new_learner
from riverdelta.serving.dataplane import DataPlane
from riverdelta.serving.session import Session
from riverdelta.sidecar import Trainer
from riverdelta.sidecar.contest import stack_of
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.recall import Kept, Replayed
from riverdelta.storage.backup import back_up
from riverdelta.storage.home import Home
from riverdelta.storage.journal import Reader
from riverdelta.storage.log import SqliteLog
from riverdelta.storage.registry import State

HOMES = sorted(folder.parent for folder in Path(__file__).parent.glob("*/*/ranker"))
WHOLE = [folder for folder in HOMES if folder.name != "swept"]
NOW = 10_000.0
#: What of the gate's state version 0.1 lacks, or lacks for rows that were taken back.
SINCE = {"slowed", "slowest", "far_spread", "late_share", "late_spread"}
#: How near parts come to what version 0.1 saved, which are not the same to the last bit: it summed the gate's logs as
#: products, and took losses and scores from tables, to 2e-6.
NEAR = {"gate/": 1e-9, "contest/trial/": 1e-9, "adaptation/drift/": 1e-3, "account/history/": 1e-4, "account/slices/": 1e-4}
#: Version 0.1 limited no number where it scored, and kept nothing that limits are made of: its records now make other tables.
#: By how many logits the output of each correction may differ when a third of the records is learned again; measured were 1e-7,
#: 0.05, 0.43 and 0.024.
NEAR_LOGITS = {"calibration": 0.01, "linear": 0.1, "entity_user": 0.8, "river": 0.05}
#: How many nats a row these tables may lose more than those of version 0.1, on what the rows deserve; measured: none
#: loses more, and one of the homes loses 0.05 less.
NEAR_NATS = 0.003


def name(folder):
    return f"{folder.parent.name}-{folder.name}"


every = pytest.mark.parametrize("golden", HOMES, ids=name)
whole = pytest.mark.parametrize("golden", WHOLE, ids=name)


@pytest.fixture
def folder(golden, tmp_path):
    """A copy of a golden home's folder: opening a journal writes to it."""
    return Path(shutil.copytree(golden, tmp_path / "home"))


@pytest.fixture
def learner(folder):
    return lambda: new_learner(definition(folder), settings(folder))


@pytest.fixture
def home(folder):
    return Home(definition(folder), settings(folder))


class Service:
    """A worker and its learner, on a clock that stands still."""

    def __init__(self, folder, now=NOW):
        self.trainer = Trainer(definition(folder), settings(folder), clock=lambda: now)
        self.plane = DataPlane(definition(folder), settings(folder), clock=lambda: now, registry=CollectorRegistry())
        self.last = json.loads((folder / "last.json").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.trainer.close()
        self.plane.close()

    def learn(self):
        while self.trainer.step():
            pass
        assert self.trainer.paused is None

    def label(self):
        """Label the request that has no feedback yet; return the outcomes."""
        ids = self.last["ids"]
        return asyncio.run(self.plane.feedback(ids, np.ones(len(ids), np.float32))).outcomes

    def state(self):
        """Everything that the learner saves."""
        learner = self.trainer.learner
        parts = nest({"learner": learner.state()}) | nest({name: each.state() for name, each in learner.observers.items()})
        return {name: array.copy() for name, array in parts.items()}


def checkpoints(folder):
    return [(int(path.stem), path) for path in sorted(folder.glob("ranker/checkpoints/*.checkpoint"))]


def assert_same(found, expected, near=()):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        off = [NEAR[name] for name in near if key.removeprefix("learner/").startswith(name)]
        if off and array.dtype.kind == "f":
            np.testing.assert_allclose(found[key], array, rtol=off[0], atol=off[0], err_msg=key)
        else:
            assert found[key].tobytes() == array.tobytes(), key


def of_0_1(golden):
    return golden.parent.name == "0.1"


def kept(arrays, golden):
    """Return what today's learner comes to as well: version 0.1 saved no outcomes, and was too quick for weights above 1.

    Nor did it measure the gain of the serving tables, the shares of senders and the baselines, which begin anew at its
    checkpoints. Tables are compared by their outputs.

    Rows that only its checkpoint has are kept until they are done with, and a replay has all of them in its journal.
    """
    left_out = ("stack/", "outcomes/", "joiner/kept/", "account/worth/", "admission/shares/", "admission/breaker/")
    left_out += ("prequential/baselines",)
    left_out = left_out if of_0_1(golden) else ()
    left_out += ("gate/",) if of_0_1(golden) and "keep_negatives" in KINDS[golden.name] else ()
    return {name: array for name, array in arrays.items() if not name.removeprefix("learner/").startswith(left_out)}


def assert_at(replayed, path, learner, golden, near):
    """Assert that a learner's state is that of a checkpoint, and that its tables are `near` those that version 0.1 learned."""
    loaded = learner()
    loaded.load(read_arrays(path))
    found, expected = replayed.state(), loaded.state()
    if of_0_1(golden):
        for state in (found, expected):
            state["gate/state"] = since_0_1(state["gate/state"])
        near(replayed.stack, loaded.stack)
    assert_same(kept(found, golden), kept(expected, golden), NEAR if of_0_1(golden) else ())


def rows_of_any_user():
    """Return rows as the corrections read them, their base logits, and the logits that they deserve."""
    made = columns(4000, 7)[0]
    x, item = made["x"], [ITEMS.index(each) for each in made["item"]]
    truth = deserved(made["user"], np.array(item), x, made["shop"])
    return (
        made | {"pair": np.stack([x, x * x], axis=1), "item": np.array([id64(each) for each in made["item"]])},
        x[:, None] / 2,
        truth,
    )


def outputs_are_near(found, expected):
    """Assert that each correction moves outputs as its older self does."""
    read, base, _ = rows_of_any_user()
    for name, mine, its in zip(found.names, found.corrections, expected.corrections, strict=True):
        off = mine.predict(read, base) - its.predict(read, base)
        assert np.abs(off).max() <= NEAR_LOGITS[name], name


def nothing_is_lost(found, expected):
    """Assert that the outputs are as good as the older ones, or better."""
    read, base, truth = rows_of_any_user()
    chance = 1 / (1 + np.exp(-truth))

    def loss(stack):
        z = stack.predict(read, base).ravel()
        return np.mean(np.logaddexp(0, z) - chance * z)

    assert loss(found) <= loss(expected) + NEAR_NATS


def since_0_1(gate):
    """Return the numbers of a gate that version 0.1 kept as well."""
    return gate[[name not in SINCE for name in hedge.STATE.names]]


def test_homes_of_every_kind_are_recorded_and_what_they_show_is_not_trivial():
    assert {folder.name for folder in HOMES} == KINDS.keys()
    for folder in HOMES:
        status = json.loads((folder / "ranker" / "status.json").read_text())
        gate, (older, newer) = status["gate"], checkpoints(folder)
        assert (folder / "ranker" / "journal" / "000001.sqlite").exists() or folder not in WHOLE
        assert newer[0] - older[0] > 30
        assert gate["delay"] > 100
        assert abs(gate["gain"]) > 1
        assert gate["rate"] < 1
        assert read_arrays(newer[1])["gate/delays"].shape[0] > 20
        assert status["swap"] > 20
        assert status["slices"]["country"]["de"]["base"]["examples"] > 100
        assert [event["details"].get("by") for event in status["events"]].count("trial") == 1
        assert (status["drift"]["alarms"], status["admission"]["limited"] > 0) == (2 * (folder.name == "explicit",))


@whole
def test_a_replay_from_the_first_record_comes_to_every_checkpoint(golden, folder, learner):
    segments, replayed = Reader(SqliteLog(folder / "ranker" / "journal")), learner()
    replayed.recall = Replayed(segments, replayed.state())
    seen = 0
    while records := segments.read(replayed.position, 1):
        for sequence, record in records:
            replayed.push(sequence, record)
            for position, path in checkpoints(folder):
                if sequence == position:
                    assert_at(replayed, path, learner, golden, nothing_is_lost)
                    seen += 1
    assert seen == 2
    assert replayed.joiner.unmatched == 0
    segments.close()


@every
def test_a_replay_from_the_older_checkpoint_comes_to_the_newer_one(golden, folder, home, learner):
    (_, older), (newest, newer) = checkpoints(folder)
    segments, replayed = Reader(SqliteLog(folder / "ranker" / "journal")), learner()
    replayed.recall = Kept(home.releases(), segments, lambda *_: None)
    replayed.load(read_arrays(older))
    while replayed.position < newest:
        for sequence, record in segments.read(replayed.position, 1):
            replayed.push(sequence, record)
    assert_at(replayed, newer, learner, golden, outputs_are_near)
    segments.close()


@every
def test_learner_trial_and_account_go_on_alike_from_either_checkpoint(golden, folder, tmp_path):
    states = []
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    checkpoints(other)[1][1].unlink()
    for each in (folder, other):
        with Service(each) as service:
            service.learn()
            states.append(service.state())
    for state in states if of_0_1(golden) else ():
        # It kept nothing of what today's bounds are made of, and not which release serves.
        state["learner/gate/state"] = since_0_1(state["learner/gate/state"])
        state["contest/numbers"] = state["contest/numbers"][:3]
    assert_same(*(kept(state, golden) for state in states), NEAR if of_0_1(golden) else ())


@every
def test_its_tables_are_served_bit_for_bit(folder):
    with Service(folder) as service:
        expected = np.array(service.last["scores"], np.float32)
        scores = service.plane.score(columns(len(expected), service.last["seed"])[0]).scores
        assert scores.tobytes() == expected.tobytes()


@every
def test_its_graph_follows_the_tables_that_this_version_learns(folder):
    with Service(folder) as service:
        before = service.plane.session.state
        service.label()
        service.learn()
        service.plane.follower.follow()
        assert service.plane.session.state == service.trainer.live.head != before
        checked, _ = definition(folder).request_schema.check(columns(64, 7)[0], 64)
        scored, stack = service.plane.session.run(checked), service.trainer.live.stack
        expected = stack.predict({**checked, **scored.taps}, np.ascontiguousarray(scored.base[:, None]))
        # The graph of version 0.1 limits no number: two of 64 rows differ by 0.003 at most, the others by rounding.
        off = np.abs(scored.corrected - expected[:, 0])
        assert off.max() < 0.01
        assert np.median(off) < 1e-5


@every
def test_its_ids_of_either_key_are_accepted_and_all_that_is_open_is_learned(folder):
    with Service(folder) as service:
        learner = service.trainer.learner
        before, unmatched = learner.examples, learner.joiner.unmatched
        outcomes = service.label()
        assert outcomes == ["accepted"] * len(outcomes)
        service.learn()
        # Four labels were accepted while nobody learned; where silence makes negatives, the windows that are over end too.
        assert learner.examples >= before + len(outcomes) + 4
        assert learner.joiner.unmatched == unmatched


@every
def test_what_waits_in_its_checkpoint_is_learned_after_checkpoints_of_this_version_too(folder):
    when = json.loads((folder / "ranker" / "status.json").read_text())["time"]
    for _ in range(3):
        with Service(folder, when) as service:  # no window ends
            service.learn()
    with Service(folder) as service:
        service.learn()
        assert service.trainer.learner.joiner.unmatched == 0


@every
def test_its_releases_are_intact_and_can_be_exported(folder, home, tmp_path):
    releases = home.releases()
    checked, _ = home.definition.request_schema.check(columns(16, 7)[0], 16)
    assert len(releases.all()) == 2
    for release in releases.all():
        release.verify()
        assert releases.state(release)
        alone = onnxruntime.InferenceSession(*export(release.path, tmp_path / "alone.onnx"))
        feeds = {of.name: checked[of.name].reshape(len(checked[of.name]), *of.shape[1:]) for of in alone.get_inputs()}
        (score,) = alone.run(["score"], feeds)
        expected = Session(release.path, State(release.number, 0, release.position)).run(checked).score
        assert score.ravel().tobytes() == expected.tobytes()


@every
def test_a_rollback_to_its_release_brings_back_its_tables(folder):
    with Service(folder) as service:
        service.learn()
        operator = Operator(service.trainer.home, service.plane.journal, lambda: NOW)
        sequence = operator.ask(Rollback(release=1))
        service.learn()
        (done,) = [outcome for outcome in service.trainer.learner.outcomes if outcome.sequence == sequence]
        assert (done.release, done.refused) == (1, None)
        release = service.trainer.releases.store.get(1)
        tables = stack_of(release, service.trainer.releases.store, definition(folder).new_stack)
        assert service.trainer.learner.stack.digest() == tables.digest()


@every
def test_a_rollback_learns_again_what_came_since_where_the_journal_still_has_it(folder):
    with Service(folder) as service:
        service.learn()
        operator = Operator(service.trainer.home, service.plane.journal, lambda: NOW)
        if service.plane.journal.first() > service.trainer.releases.store.get(1).position + 1:
            with pytest.raises(Refused, match=r"cannot be learned again: records .* were deleted"):
                operator.ask(Rollback(release=1, relearn=True))
            return
        sequence = operator.ask(Rollback(release=1, relearn=True))
        service.learn()
        (done,) = [outcome for outcome in service.trainer.learner.outcomes if outcome.sequence == sequence]
        assert (done.release, done.refused) == (1, None)


@every
def test_its_owner_is_recognized_and_its_definition_is_stored_from_then_on(golden, folder, home):
    owner, made = folder / "ranker" / "owner", home.definition
    assert owner.read_text() == made.fingerprint_of_0_1()
    home.prepare()
    assert home.stored() == describe(made)
    assert not owner.exists()


@every
def test_a_backup_of_it_starts_where_it_was(folder, home):
    with Service(folder) as service:
        service.learn()
        service.trainer.save()
        back_up(home, folder / "copy")
        expected, outcomes = service.state(), service.label()
    (folder / "ranker").rename(folder / "before")
    (folder / "copy").rename(folder / "ranker")
    with Service(folder) as service:
        assert_same(service.state(), expected)
        assert service.label() == outcomes
