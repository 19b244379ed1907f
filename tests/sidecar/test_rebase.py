"""Rebase: another definition learns what an old home's journal has, and serves at once; nothing else changes."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from relearned import relearned
from riverdelta import Calibration, Entity, Linear
from riverdelta.core.arrays import part
from riverdelta.core.errors import ConfigurationError, Corrupt, InvalidInput, Locked, NotFound, Refused
from riverdelta.core.features import Schema
from riverdelta.core.locks import alone
from riverdelta.core.losses import LOG_LOSS
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.learning.commands import Freeze, Promote, Release, Resume, Rollback
from riverdelta.learning.learner import new_learner
from riverdelta.sidecar.operator import Operator
from riverdelta.sidecar.rebase import LogRows, rebase
from riverdelta.storage.backup import back_up
from riverdelta.storage.home import Home
from riverdelta.storage.origin import Origin

STEEPER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { k = Constant<value = float {0.7}>()  logit = Mul(x, k) }"""
TAPPED = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit)
{ k = Constant<value = float {0.7}>()  y = Exp(x)  z = Log(y)  logit = Mul(z, k) }"""


def rolled_back_after(number):
    """A rollback to release 0 after a block that was taught."""

    def between(rig, block):
        if block == number:
            Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask(Rollback(release=0))
            rig.step()

    return between


@pytest.fixture
def teach(definition, tmp_path, make_rig):
    """Return a function that makes an old home: blocks of 32 rows whose label is the user's parity, taught one by one."""

    def taught(blocks=4, between=lambda rig, block: None, base=definition, follow=True, **given):
        rig = make_rig(base, tmp_path / "old", **given)
        ids = []
        for block in range(blocks):
            columns = rig.columns(32, block)
            answer = rig.plane.score(columns)
            ids.append([f"{answer.impressions}.{i}" for i in range(32)])
            asyncio.run(rig.plane.feedback(ids[-1][:24], labels(columns)[:24]))
            rig.step()
            between(rig, block)
            if follow:
                rig.plane.follower.follow()
        rig.close()
        rig.trainer, rig.close = None, lambda: None
        return tmp_path / "old" / base.name, ids

    return taught


def labels(columns):
    return (columns["user"] % 2).astype(np.float32)


def settings(tmp_path, **given):
    return Settings.load(home=tmp_path / "new", grpc_port=0, swap_min_seconds=1e-9, follow_seconds=3600.0, **given)


def tables(home):
    """The stack's tables as a home's checkpoint has them."""
    checkpoint = home.checkpoints().load()
    stack = home.definition.new_stack()
    stack.load(part(checkpoint.arrays, "stack"))
    return stack


def contents(folder):
    """Every file of a home that has what was learned."""
    parts = [path for part in ("releases", "checkpoints", "live") for path in sorted((folder / part).iterdir())]
    return {path: path.read_bytes() for path in parts}


def tear(path):
    """Damage the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)


def new_base(definition, tmp_path, text=STEEPER, **changed):
    path = tmp_path / "steeper.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return replace(definition, base=path, **changed)


CHANGED = {
    "an option": [Calibration(), Entity("user", on=["shop"], slots=512)],
    "a correction added": [Calibration(), Entity("user", on=["shop"], slots=256), Linear("user")],
    "a correction removed": [Entity("user", on=["shop"], slots=256)],
    "another order": [Entity("user", on=["shop"], slots=256), Calibration()],
}


class TestTheSameBase:
    @pytest.mark.parametrize("corrections", CHANGED.values(), ids=CHANGED)
    def test_a_changed_stack_learns_the_journal_again(self, definition, teach, tmp_path, corrections):
        old, _ = teach()
        before = contents(old)
        changed = replace(definition, corrections=corrections)
        done = rebase(changed, settings(tmp_path), old)
        assert (done.rows, done.examples, done.learned, done.unusable, done.swept, done.labels_lost) == (128, 96, 96, 0, 0, 0)
        home = Home(changed, settings(tmp_path))
        assert tables(home).digest() == relearned(home).stack.digest()
        assert [r.number for r in home.releases().all()] == [0, 1]
        assert home.releases().get(1).position == done.position == home.checkpoints().load().position
        assert home.live().head().release == 1
        assert done.comparison["examples"] == 96
        assert done.comparison["corrected"]["loss"] < done.comparison["base"]["loss"]
        assert done.champion == 1
        assert contents(old) == before
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["ranker"]

    def test_the_same_definition_learns_the_same_tables_bit_for_bit(self, definition, teach, tmp_path):
        old, _ = teach()
        rebase(definition, settings(tmp_path), old)
        was = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"}))
        assert tables(Home(definition, settings(tmp_path))).digest() == tables(was).digest()

    def test_rows_are_scored_by_tables_as_old_as_those_that_served_them(self, definition, teach, tmp_path):
        # Nothing was published until the end: the base scored every row, and so it does again.
        old, _ = teach(follow=False)
        rebase(definition, settings(tmp_path), old)
        with closing(Home(definition, settings(tmp_path)).reader()) as journal:
            for _, record in journal.read(0, 10_000):
                if isinstance(record, Impressions):
                    np.testing.assert_array_equal(record.corrected, record.base)

    def test_the_same_definition_scores_what_was_served_but_for_rounding(self, definition, teach, tmp_path):
        old, _ = teach()
        found = rebase(definition, settings(tmp_path), old).comparison
        for name in ("corrected", "served"):
            assert found[name]["loss"] == pytest.approx(found[f"old_{name}"]["loss"], abs=1e-6)
        assert found["corrected"]["loss"] < found["base"]["loss"]

    def test_where_all_was_rolled_back_the_same_definition_has_the_same_tables_too(self, definition, teach, tmp_path):
        old, _ = teach(between=rolled_back_after(1))
        done = rebase(definition, settings(tmp_path), old)
        assert done.rollbacks == 1
        was = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"}))
        assert tables(Home(definition, settings(tmp_path))).digest() == tables(was).digest()

    def test_what_is_measured_of_the_old_is_what_it_logged_and_of_the_new_what_it_predicted_before_it_learned(
        self, definition, teach, tmp_path
    ):
        old, _ = teach()
        done = rebase(replace(definition, corrections=[Calibration()]), settings(tmp_path), old)
        was = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"})).checkpoints().load()
        learner = new_learner(definition, settings(tmp_path))
        learner.prequential.load(part(was.arrays, "prequential"))
        found = learner.prequential.report()["all"]
        assert done.comparison["old_served"]["loss"] == pytest.approx(found["served"]["loss"], abs=1e-12)
        assert done.comparison["base"]["loss"] == pytest.approx(found["base"]["loss"], abs=1e-12)
        home = Home(replace(definition, corrections=[Calibration()]), settings(tmp_path))
        with closing(home.reader()) as journal:
            first = next(r for _, r in journal.read(0, 10_000) if isinstance(r, Impressions))
        # Nothing was learned yet.
        np.testing.assert_array_equal(first.corrected, first.base)
        mine = relearned(home).prequential.report()["all"]
        assert done.comparison["served"]["loss"] == mine["served"]["loss"]

    def test_the_gate_and_the_measures_of_the_new_home_are_those_of_the_new_stack_alone(self, definition, teach, tmp_path):
        old, _ = teach()
        changed = replace(definition, corrections=[Calibration()])
        found = rebase(changed, settings(tmp_path), old).comparison
        arrays = Home(changed, settings(tmp_path)).checkpoints().load().arrays
        learner = new_learner(changed, settings(tmp_path))
        learner.load(arrays)
        gain = found["base"]["loss"] - found["served"]["loss"]
        assert learner.gate.report()["gain"] == pytest.approx(96 * gain, rel=1e-4)
        assert learner.gate.report()["excess"] <= learner.gate.report()["bound"]
        assert learner.prequential.report()["all"]["served"]["loss"] == found["served"]["loss"]
        assert found["served"]["loss"] != found["old_served"]["loss"]


@st.composite
def journals(draw):
    """Steps of an old home: rows with their labels, labels of earlier rows, and commands."""
    rows, seeds = st.integers(1, 12), st.integers(0, 99)
    step = st.one_of(
        st.tuples(st.just("score"), rows, seeds, st.integers(0, 12)),
        st.tuples(st.just("score"), rows, seeds, st.integers(0, 12)),
        st.tuples(st.just("feedback"), seeds),
        st.sampled_from([("freeze",), ("resume",), ("release",)]),
        st.tuples(st.just("rollback"), seeds, st.booleans(), st.booleans()),
    )
    return draw(st.lists(step, min_size=4, max_size=10))


def take(rig, step, waiting):
    """Take a step of a random journal; `waiting` are the rows without a label."""
    ask = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask
    match step:
        case ("score", rows, seed, labelled):
            answer = rig.plane.score(rig.columns(rows, seed))
            waiting += [f"{answer.impressions}.{i}" for i in range(rows)]
            label(rig, waiting, labelled, seed)
        case ("feedback", seed):
            label(rig, waiting, seed % 7, seed)
        case ("freeze",):
            ask(Freeze())
        case ("resume",):
            ask(Resume())
        case ("release",):
            ask(Release())
        case ("rollback", which, relearn, freeze):
            releases = rig.trainer.home.releases().all()
            ask(Rollback(release=releases[which % len(releases)].number, relearn=relearn, freeze=freeze))


def label(rig, waiting, count, seed):
    """Label rows that wait, in a random order."""
    order = np.random.default_rng(seed).permutation(len(waiting))[:count].tolist()
    chosen = [waiting[i] for i in order]
    waiting[:] = [one for i, one in enumerate(waiting) if i not in order]
    if chosen:
        asyncio.run(rig.plane.feedback(chosen, (np.arange(len(chosen)) % 3 > 0).astype(np.float32)))


class TestTheLaw:
    @given(steps=journals())
    @trying(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_the_same_definition_learns_the_same_tables_from_any_journal(self, definition, tmp_path_factory, make_rig, steps):
        folder, waiting = tmp_path_factory.mktemp("law"), []
        rig = make_rig(definition, folder / "old")
        for step in steps:
            take(rig, step, waiting)
            rig.step()
            rig.plane.follower.follow()
        rig.close()
        rig.trainer, rig.close = None, lambda: None
        done = rebase(definition, settings(folder), folder / "old" / "ranker")
        new, old = (Home(definition, settings(folder).model_copy(update={"home": folder / n})) for n in ("new", "old"))
        assert tables(new).digest() == tables(old).digest()
        was = new_learner(definition, settings(folder))
        was.load(old.checkpoints().load().arrays)
        assert (done.examples, done.learned, done.frozen) == (was.examples, was.learned, was.frozen)


class TestServing:
    def test_the_new_home_serves_at_once_and_takes_feedback_for_an_old_id(self, definition, teach, tmp_path, make_rig):
        old, ids = teach()
        changed = replace(definition, corrections=CHANGED["a correction added"])
        done = rebase(changed, settings(tmp_path), old)
        rig = make_rig(changed, tmp_path / "new")
        assert rig.trainer.learner.examples == done.examples
        outcomes = asyncio.run(rig.plane.feedback([*ids[0][24:], ids[0][0]], np.float32([1.0] * 8 + [0.0]))).outcomes
        assert [str(o) for o in outcomes][:8] == ["accepted"] * 8
        assert str(outcomes[-1]) in ("duplicate", "conflict")
        rig.step()
        assert rig.trainer.learner.examples == done.examples + 8
        assert rig.trainer.learner.joiner.unmatched == 0
        assert rig.trainer.paused is None
        rig.teach()
        rig.step()
        assert rig.trainer.learner.examples == done.examples + 24

    def test_a_release_is_made_and_tried_after_it_as_ever(self, definition, teach, tmp_path, make_rig):
        old, _ = teach()
        rebase(definition, settings(tmp_path), old)
        rig = make_rig(definition, tmp_path / "new")
        rig.teach()
        rig.step()
        Operator(rig.trainer.home, rig.trainer.journal).ask(Release())
        rig.step()
        assert [r.number for r in rig.trainer.home.releases().all()] == [0, 1, 2]
        assert rig.trainer.contest.challenger == 2

    def test_with_the_guard_on_releases_the_rebased_champion_serves(self, definition, teach, tmp_path, make_rig):
        old, _ = teach()
        rebase(definition, settings(tmp_path, guard="release"), old)
        rig = make_rig(definition, tmp_path / "new", guard="release")
        rig.step()
        rig.plane.follower.follow()
        assert rig.plane.session.state.release == 1
        columns = rig.columns(8, 1)
        scored = rig.plane.session.run(rig.plane.schema.check(columns)[0])
        learned = tables(rig.trainer.home).predict(columns, np.ascontiguousarray(scored.base[:, None]))[:, 0]
        np.testing.assert_allclose(scored.corrected, learned, atol=1e-4)
        assert np.abs(learned - scored.base).max() > 0.1

    def test_the_journal_is_kept_for_no_longer_than_the_old_one(self, definition, teach, tmp_path):
        old, _ = teach(segment_bytes=16_384)
        written = [path.stat().st_mtime for path in sorted((old / "journal").glob("*.sqlite"))]
        rebase(definition, settings(tmp_path), old)
        new = sorted((tmp_path / "new" / "ranker" / "journal").glob("*.sqlite"))
        assert len(new) > 3
        assert [path.stat().st_mtime for path in new] == pytest.approx(written, abs=1e-3)

    def test_windows_that_are_open_close_in_the_new_home(self, definition, teach, tmp_path, make_rig):
        silence = {"labels": "silence", "window_seconds": 1e6}
        rig = make_rig(definition, tmp_path / "old", **silence)
        answer = rig.plane.score(rig.columns(8, 0))
        shown = [f"{answer.impressions}.{i}" for i in range(8)]
        asyncio.run(rig.plane.feedback(shown, np.full(8, np.nan, np.float32)))
        rig.step()
        rig.close()
        rig.trainer, rig.close = None, lambda: None
        changed = replace(definition, corrections=[Calibration()])
        done = rebase(changed, settings(tmp_path, **silence), tmp_path / "old" / "ranker")
        assert done.examples == 0
        again = make_rig(changed, tmp_path / "new", **silence)
        again.now = 3e6
        again.step()
        again.step()
        assert again.trainer.learner.examples == 8


class TestCommands:
    def test_what_was_rolled_back_as_poisoned_stays_unlearned(self, definition, teach, tmp_path):
        before = {}

        def poison(rig, block):
            operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
            if block == 1:
                operator.ask(Release())
                rig.step()
                before["release"] = rig.trainer.home.releases().all()[-1].number
                for seed in range(20):
                    rig.teach(32, seed, np.ones(32, np.float32))
                    rig.step()
                operator.ask(Rollback(release=before["release"]))
                rig.step()

        old, _ = teach(between=poison)
        changed = replace(definition, corrections=[Calibration()])
        done = rebase(changed, settings(tmp_path), old)
        assert done.rollbacks == 1
        poisoned = tables(Home(changed, settings(tmp_path)))
        (tmp_path / "old").rename(tmp_path / "poisoned")
        (tmp_path / "new").rename(tmp_path / "other")
        clean, _ = teach()
        rebase(changed, settings(tmp_path), clean)
        assert poisoned.digest() == tables(Home(changed, settings(tmp_path))).digest()

    def test_a_rollback_to_what_retention_has_deleted_unlearns_all_that_is_left_before_it(self, definition, teach, tmp_path):
        old, _ = teach(blocks=8, between=rolled_back_after(5), segment_bytes=16_384)
        swept = _sweep(definition, tmp_path, 8)
        assert swept > 1
        done = rebase(definition, settings(tmp_path), old)
        was = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"}))
        assert done.rollbacks == 1
        assert tables(Home(definition, settings(tmp_path))).digest() == tables(was).digest()

    def test_a_freeze_holds(self, definition, teach, tmp_path):
        def freeze(rig, block):
            if block == 1:
                Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask(Freeze())
                rig.step()

        old, _ = teach(between=freeze)
        done = rebase(replace(definition, corrections=[Calibration()]), settings(tmp_path), old)
        assert done.frozen
        assert (done.examples, done.learned) == (96, 48)

    def test_commands_of_the_old_service_name_no_releases_of_the_new(self, definition, teach, tmp_path, make_rig):
        def promote(rig, block):
            operator = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now)
            if block in (0, 1):
                operator.ask(Release())
                rig.step()
            if block == 2:
                operator.ask(Promote(release=2))
                rig.step()

        old, _ = teach(between=promote)
        rebase(definition, settings(tmp_path), old)
        rig = make_rig(definition, tmp_path / "new")
        rig.step()
        assert rig.trainer.home.releases().champion().number == 1
        assert rig.trainer.status()["outcomes"] == []

    def test_the_new_home_says_that_it_was_rebased_and_labels_of_the_old_service_measure_no_gain(
        self, definition, teach, tmp_path, make_rig
    ):
        old, ids = teach()
        done = rebase(definition, settings(tmp_path), old)
        rig = make_rig(definition, tmp_path / "new")
        asyncio.run(rig.plane.feedback(ids[0][24:], labels(rig.columns(32, 0))[24:]))
        rig.step()
        status = rig.trainer.status()
        since = {"action": "rebase", "release": 1, "position": done.position}
        assert (status["worth"]["labels"], status["worth"]["since"] | since) == (0, status["worth"]["since"])
        (event,) = status["events"]
        assert (event["action"], event["details"]) == ("rebase", {"release": 1, "examples": done.examples})
        columns = rig.columns(32, 99)
        answer = rig.plane.score(columns)
        asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(32)], labels(columns)))
        rig.step()
        assert rig.trainer.status()["worth"]["labels"] == 32

    def test_a_rebased_home_names_the_release_that_serves(self, definition, teach, tmp_path, make_rig):
        old, _ = teach(blocks=0)
        rebase(definition, settings(tmp_path, guard="release"), old)
        status = make_rig(definition, tmp_path / "new", guard="release").trainer.status()
        assert (status["release"], status["worth"]["since"]["release"]) == (0, 0)

    @pytest.mark.parametrize("damaged", [-1, 0], ids=["the newest", "the one before"])
    def test_with_one_of_its_checkpoints_damaged_what_was_rolled_back_stays_unlearned(
        self, definition, teach, tmp_path, make_rig, damaged
    ):
        old, _ = teach(between=rolled_back_after(1))
        done = rebase(definition, settings(tmp_path), old)
        home = Home(definition, settings(tmp_path))
        rebased = tables(home).digest()
        saved = sorted((home.folder / "checkpoints").iterdir())
        saved[damaged].write_bytes(b"damaged")
        rig = make_rig(definition, tmp_path / "new")
        assert rig.trainer.learner.stack.digest() == rebased
        assert rig.trainer.learner.examples == done.examples
        rig.teach()
        rig.step()
        assert rig.trainer.paused is None
        assert not [outcome for outcome in rig.trainer.status()["outcomes"] if outcome["refused"]]


class TestAgain:
    """A rebased home is rebased again, or loses its checkpoints."""

    @pytest.fixture
    def serve(self, make_rig, tmp_path):
        """Return a function that serves a rebased home for two blocks, and moves it aside."""

        def served(definition, command=None):
            rig = make_rig(definition, tmp_path / "new")
            for block in range(2):
                rig.teach(32, 50 + block, np.ones(32, np.float32))
                rig.step()
            if command is not None:
                sequence = Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask(command)
                rig.step()
                assert rig.trainer.learner.outcomes.of(sequence).refused is None
            rig.close()
            rig.trainer, rig.close = None, lambda: None
            (tmp_path / "new").rename(tmp_path / "b")
            return tmp_path / "b" / "ranker"

        return served

    def test_the_old_stack_is_that_of_the_home_before_and_what_was_served_is_kept(self, definition, teach, tmp_path):
        old, _ = teach()
        before = rebase(replace(definition, corrections=CHANGED["another order"]), settings(tmp_path), old).comparison
        for name in ("c", "d"):
            home = (tmp_path / "new").rename(tmp_path / name)
            again = rebase(definition, settings(tmp_path), home / "ranker").comparison
            for which in ("corrected", "served"):
                assert again[f"old_{which}"]["loss"] == pytest.approx(before[which]["loss"], abs=1e-12)
            before = again
        served = []
        for home, column in (("new", "#served"), ("old", None)):
            there = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / home}))
            with closing(there.reader()) as journal:
                rows = [r for _, r in journal.read(0, 10_000) if isinstance(r, Impressions)]
            served.append(np.concatenate([r.columns[column] if column else r.served[:, 0] for r in rows]))
        np.testing.assert_array_equal(*served)

    def test_a_rollback_to_its_release_1_is_repeated(self, definition, teach, tmp_path, serve):
        old, _ = teach()
        done = rebase(definition, settings(tmp_path), old)
        expected = tables(Home(definition, settings(tmp_path))).digest()
        again = rebase(definition, settings(tmp_path), serve(definition, Rollback(release=1)))
        assert (again.rollbacks, again.examples) == (1, done.examples + 64)
        assert tables(Home(definition, settings(tmp_path))).digest() == expected

    @pytest.mark.parametrize("log", [True, False], ids=["a log", "the journal"])
    def test_without_checkpoints_it_starts_from_the_tables_that_it_was_given(self, definition, teach, tmp_path, make_rig, log):
        old, _ = teach()
        rebase(definition, settings(tmp_path), old, TestALog().log() if log else None)
        home = Home(definition, settings(tmp_path))
        expected = tables(home).digest()
        for path in (home.folder / "checkpoints").iterdir():
            path.unlink()
        rig = make_rig(definition, tmp_path / "new")
        rig.step()
        assert rig.trainer.learner.stack.digest() == expected
        assert rig.trainer.learner.examples == (384 if log else 96)

    def test_a_backup_keeps_where_it_began(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        done = rebase(definition, settings(tmp_path), old)
        back_up(Home(definition, settings(tmp_path)), tmp_path / "copy")
        assert Origin.of(tmp_path / "copy") == Origin(position=done.position, log=False)

    @pytest.mark.parametrize("written", [b"", b"{}", b'{"position": "1", "log": true}', b"[" * 9_999])
    def test_a_damaged_record_of_where_it_began_is_named(self, tmp_path, written):
        (tmp_path / "rebased.json").write_bytes(written)
        with pytest.raises(Corrupt, match=f"{tmp_path}/rebased.json is damaged: .*; restore it from a backup"):
            Origin.of(tmp_path)

    def test_without_checkpoints_and_releases_it_does_not_start(self, definition, teach, tmp_path, make_rig):
        old, _ = teach()
        rebase(definition, settings(tmp_path), old)
        folder = Home(definition, settings(tmp_path)).folder
        for path in (*(folder / "checkpoints").iterdir(), folder / "releases" / "000001.state"):
            path.write_bytes(b"damaged")
        with pytest.raises(Corrupt, match="has no checkpoint, and no release since it was rebased that can be read"):
            make_rig(definition, tmp_path / "new")

    def test_what_a_log_replaced_does_not_come_back(self, definition, teach, tmp_path, serve):
        old, _ = teach()
        rebase(definition, settings(tmp_path), old, TestALog().log())
        rebased = serve(definition)
        with pytest.raises(Refused, match=r"learned a log instead of its journal up to record \d+, .* --log rows.parquet"):
            rebase(definition, settings(tmp_path), rebased)
        assert rebase(definition, settings(tmp_path), rebased, TestALog().log()).learned == 384
        home = Home(definition, settings(tmp_path))
        with closing(home.journal()) as journal, pytest.raises(Refused, match="a log was learned instead of records 1 to"):
            Operator(home, journal).ask(Rollback(release=0, relearn=True))


class TestAWorseStack:
    def test_where_it_lost_more_as_served_than_the_base_the_base_serves(self, definition, teach, tmp_path, make_rig):
        old, _ = teach(blocks=1)
        worse = replace(definition, corrections=[Linear("user", slots=64, rate=500.0, clip=1e6)])
        labels = np.random.default_rng(1)
        noise = [replace(each, label=labels.integers(0, 2, 64).astype(np.float32)) for each in TestALog().log()]
        done = rebase(worse, settings(tmp_path), old, noise)
        assert done.comparison["served"]["loss"] > done.comparison["base"]["loss"]
        assert (done.champion, done.gate_restarted) == (0, True)
        rig = make_rig(worse, tmp_path / "new")
        rig.step()
        rig.plane.follower.follow()
        answer = rig.plane.score(rig.columns(64, 1))
        np.testing.assert_allclose(answer.scores, 1 / (1 + np.exp(-np.asarray(answer.base))), atol=1e-3)
        report = rig.trainer.learner.gate.report()
        assert (report["examples"], report["weight"]) == (0, 1e-6)
        assert report["bound"] == pytest.approx(np.log(1e6), rel=1e-6)


class TestSwept:
    def test_records_that_retention_deleted_are_counted(self, definition, teach, tmp_path):
        old, _ = teach(blocks=20, segment_bytes=16_384)
        swept = _sweep(definition, tmp_path, 30)
        assert swept > 1
        done = rebase(replace(definition, corrections=[Calibration()]), settings(tmp_path), old)
        assert done.swept == swept - 1
        assert 0 < done.rows < 640
        assert done.records + done.swept == done.position


def _sweep(definition, tmp_path, behind):
    """Let retention delete what it can before a position; return the oldest record that is left."""
    home = Home(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"}))
    with closing(home.journal()) as journal:
        journal.sweep(behind, 0.0, 0, 1e12)
        for _ in range(2):
            journal.sweep(journal.last(), 1e13, 10**12, 1e12)
        return journal.first()


class TestANewBase:
    def test_without_its_inputs_it_is_refused_with_the_lines_to_write(self, definition, teach, tmp_path):
        old, _ = teach(blocks=2)
        changed = new_base(definition, tmp_path, service="new.py:Ranker")
        with pytest.raises(Refused) as refused:
            rebase(changed, settings(tmp_path), old)
        said = str(refused.value)
        assert said.startswith(
            f"none of the 64 rows in {old}/journal can be used: they lack 'x' (float32[N]), which the new scorer needs"
        )
        assert "keep_inputs=True" in said
        assert said.endswith(f"riverdelta rebase --service new.py:Ranker --from {old} --log rows.parquet --label clicked")
        assert list((tmp_path / "new").iterdir()) == []

    def test_with_kept_inputs_it_is_run_over_the_journal(self, definition, teach, tmp_path):
        kept = replace(definition, keep_inputs=True)
        old, _ = teach(base=kept)
        changed = new_base(kept, tmp_path)
        done = rebase(changed, settings(tmp_path), old)
        assert (done.rows, done.learned, done.unusable) == (128, 96, 0)
        home = Home(changed, settings(tmp_path))
        with closing(home.reader()) as journal:
            for _, record in journal.read(0, 10_000):
                if isinstance(record, Impressions):
                    np.testing.assert_array_equal(record.base[:, 0], record.columns["x"] * np.float32(0.7))
        assert tables(home).digest() == relearned(home).stack.digest()

    def test_a_new_tap_and_a_column_of_the_base_are_taken_from_kept_inputs(self, definition, teach, tmp_path):
        old, _ = teach(base=replace(definition, keep_inputs=True))
        changed = new_base(definition, tmp_path, TAPPED, taps={"grown": "y"}, corrections=[Linear("grown", "x")])
        assert rebase(changed, settings(tmp_path), old).learned == 96

    def test_a_column_that_nobody_kept_is_named(self, definition, teach, tmp_path):
        old, _ = teach(blocks=2, base=replace(definition, keep_inputs=True))
        columns = Schema.of({"shop": "float32", "hour": "float32"})
        with pytest.raises(Refused, match=r"they lack 'hour' \(float32\[N\]\), which the new scorer needs"):
            rebase(replace(definition, columns=columns, corrections=[Linear("hour")]), settings(tmp_path), old)

    def test_of_the_same_base_only_the_column_that_is_new_is_named(self, definition, teach, tmp_path):
        old, _ = teach(blocks=2)
        columns = Schema.of({"shop": "float32", "hour": "float32"})
        with pytest.raises(Refused, match=r"they lack 'hour' \(float32\[N\]\), which the new scorer needs"):
            rebase(replace(definition, columns=columns, corrections=[Linear("hour")]), settings(tmp_path), old)

    def test_rows_of_before_inputs_were_kept_are_counted_and_the_others_are_used(self, definition, teach, tmp_path, make_rig):
        old, ids = teach(blocks=3)
        kept = replace(definition, keep_inputs=True)
        rig = make_rig(kept, tmp_path / "old")
        for seed in range(3):
            rig.teach(16, seed)
            rig.step()
        rig.close()
        rig.trainer, rig.close = None, lambda: None
        changed = new_base(kept, tmp_path)
        done = rebase(changed, settings(tmp_path), old)
        assert (done.rows, done.unusable, done.labels_lost, done.examples) == (48, 96, 72, 48)
        assert done.unusable_from < done.unusable_to
        again = make_rig(changed, tmp_path / "new")
        outcomes = asyncio.run(again.plane.feedback(ids[0][24:], np.ones(8, np.float32))).outcomes
        assert {str(o) for o in outcomes} <= {"impression_lost", "expired"}
        again.teach()
        again.step()
        assert again.trainer.paused is None

    def test_a_rollback_that_cannot_be_done_again_ends_the_run(self, definition, teach, tmp_path, make_rig):
        old, _ = teach(blocks=3)
        kept = replace(definition, keep_inputs=True)
        rig = make_rig(kept, tmp_path / "old")
        rig.teach()
        rig.step()
        Operator(rig.trainer.home, rig.trainer.journal, lambda: rig.now).ask(Rollback(release=0, relearn=True))
        rig.step()
        rig.close()
        rig.trainer, rig.close = None, lambda: None
        changed = new_base(kept, tmp_path)
        with pytest.raises(Refused, match=r"96 rows lack 'x' \(float32\[N\]\), .*so the rollback .* cannot be"):
            rebase(changed, settings(tmp_path), old)
        # A log has none of it.
        assert rebase(changed, settings(tmp_path), old, TestALog().log()).learned == 384


class TestALog:
    def log(self, blocks=6, rows=64):
        rng = np.random.default_rng(7)
        for block in range(blocks):
            columns = {
                "user": rng.integers(0, 20, rows),
                "x": rng.normal(size=rows).astype(np.float32),
                "shop": rng.normal(size=rows).astype(np.float32),
            }
            yield LogRows(columns, labels(columns), np.arange(rows) + 1e3 * block)

    def test_it_is_learned_in_place_of_the_journal(self, definition, teach, tmp_path, make_rig):
        old, _ = teach(blocks=3)
        changed = new_base(definition, tmp_path)
        done = rebase(changed, settings(tmp_path), old, self.log())
        assert (done.log_rows, done.examples, done.learned, done.rows, done.unusable) == (384, 384, 384, 0, 96)
        assert done.comparison["examples"] == 384
        assert "old_served" not in done.comparison
        assert done.comparison["corrected"]["loss"] < done.comparison["base"]["loss"]
        rig = make_rig(changed, tmp_path / "new")
        rig.teach()
        rig.step()
        assert rig.trainer.learner.examples == 400
        assert rig.trainer.paused is None

    def test_its_progress_is_shown_block_by_block_and_then_that_of_the_journal(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        shown = []
        done = rebase(definition, settings(tmp_path), old, self.log(blocks=3), lambda *at: shown.append(at))
        assert shown[:3] == [(64, None), (128, None), (192, None)]
        assert shown[-1] == (done.position, done.position)

    def test_one_without_rows_is_refused(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        with pytest.raises(InvalidInput, match="the log has no rows"):
            rebase(definition, settings(tmp_path), old, iter(()))

    def test_a_row_without_a_time_is_refused(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        *blocks, last = self.log(blocks=3)
        last.time[5] = np.nan
        with pytest.raises(InvalidInput, match="the log: row 133 has no time; expected Unix seconds"):
            rebase(definition, settings(tmp_path), old, [*blocks, last])

    @pytest.mark.parametrize("wrong", ["label", "x"])
    def test_what_is_wrong_in_it_is_named_by_the_row_of_the_log(self, definition, teach, tmp_path, wrong):
        old, _ = teach(blocks=1)
        *blocks, last = self.log(blocks=3)
        (last.label if wrong == "label" else last.columns[wrong])[5] = np.nan
        with pytest.raises(InvalidInput, match=f"^the log: .*{wrong}.*" if wrong == "x" else "^the log: row 133 has") as error:
            rebase(definition, settings(tmp_path), old, [*blocks, last])
        assert "row 133" in str(error.value)
        assert list((tmp_path / "new").iterdir()) == []

    def test_how_it_is_cut_changes_nothing(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        rebase(definition, settings(tmp_path), old, self.log())
        once = tables(Home(definition, settings(tmp_path))).digest()
        (tmp_path / "new").rename(tmp_path / "other")
        parts = [
            LogRows({n: c[at : at + 10] for n, c in block.columns.items()}, block.label[at : at + 10], block.time[at : at + 10])
            for block in self.log()
            for at in range(0, 64, 10)
        ]
        rebase(definition, settings(tmp_path), old, parts)
        assert tables(Home(definition, settings(tmp_path))).digest() == once

    def test_rows_of_the_journal_wait_for_feedback_where_they_can_be_used(self, definition, teach, tmp_path, make_rig):
        old, ids = teach(blocks=3)
        rebase(definition, settings(tmp_path), old, self.log())
        rig = make_rig(definition, tmp_path / "new")
        outcomes = asyncio.run(rig.plane.feedback(ids[0][24:], np.ones(8, np.float32))).outcomes
        assert {str(o) for o in outcomes} == {"accepted"}
        rig.step()
        assert rig.trainer.learner.examples == 392


class TestAHomeOf01:
    """Its file `owner` says nothing of outputs and taps; its releases do."""

    TWO = """<ir_version: 8, opset_import: ["" : 17]>
    ranker (int64[N] user, float[N] x) => (float[N] logit, float[N] other) {
      k = Constant<value = float {0.5}>()
      logit = Mul(x, k)
      other = Add(x, k)
      grown = Exp(x)
    }"""

    @pytest.fixture
    def old(self, definition, teach, tmp_path):
        """The definition and the home that it taught."""
        mine = new_base(definition, tmp_path, self.TWO, taps={"t": "grown"}, corrections=[Entity("user", on=["t"], slots=64)])
        folder, _ = teach(blocks=2, base=mine)
        (folder / "definition.json").unlink()
        (folder / "owner").write_text(mine.fingerprint_of_0_1())
        return mine, folder

    def test_the_same_definition_takes_the_journal_as_it_is(self, old, tmp_path):
        mine, folder = old
        assert rebase(mine, settings(tmp_path), folder).rows == 64

    @pytest.mark.parametrize(
        "changed", [{"logit": "other"}, {"logit": None, "probability": "logit", "link": "logit"}, {"taps": {"t": "other"}}]
    )
    def test_another_output_or_tap_is_not_taken_from_the_journal(self, old, tmp_path, changed):
        mine, folder = old
        with pytest.raises(Refused, match=r"none of the 64 rows .* they lack 'x' \(float32\[N\]\), which the new scorer needs"):
            rebase(replace(mine, **changed), settings(tmp_path), folder)

    @pytest.mark.parametrize("changed", [{"logit": "other"}, {"taps": {"t": "other"}}])
    @pytest.mark.parametrize("owner", [True, False], ids=["owner", "neither"])
    def test_another_output_or_tap_is_not_served(self, old, tmp_path, changed, owner):
        mine, folder = old
        if not owner:
            (folder / "owner").unlink()
        other = Home(replace(mine, **changed), settings(tmp_path).model_copy(update={"home": tmp_path / "old"}))
        with pytest.raises(ConfigurationError, match="comes from another tensor of the base in its newest"):
            other.prepare()

    def test_without_a_release_that_can_be_read_nothing_is_taken_from_it(self, old, tmp_path):
        mine, folder = old
        for path in (folder / "releases").glob("*.onnx"):
            path.write_bytes(b"nothing")
        with pytest.raises(Refused, match="none of the 64 rows"):
            rebase(mine, settings(tmp_path), folder)

    def test_labels_of_a_task_that_it_did_not_have_are_refused(self, old, tmp_path):
        class Other(type(LOG_LOSS)):
            def __repr__(self):
                return "Other()"

        mine, folder = old
        with pytest.raises(Refused, match=r"labels of the task LogLoss\(\), and this scorer has the task Other\(\)"):
            rebase(replace(mine, task=Other()), settings(tmp_path), folder)


class TestRefusals:
    def test_a_folder_that_is_not_a_home_is_named_with_the_homes_in_it(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        with pytest.raises(NotFound, match=f"is not the home of a scorer; give one of its folders: --from {old}"):
            rebase(definition, settings(tmp_path), tmp_path / "old")
        with pytest.raises(NotFound, match="give the folder that has journal/"):
            rebase(definition, settings(tmp_path), tmp_path / "nowhere")

    def test_a_destination_that_exists_is_refused_with_the_line_to_type(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        (tmp_path / "new" / "ranker" / "journal").mkdir(parents=True)
        with pytest.raises(InvalidInput, match=f"mv {tmp_path}/new/ranker {tmp_path}/new/ranker.old"):
            rebase(definition, settings(tmp_path), old)

    def test_the_old_home_in_the_new_ones_place_is_refused_with_both_lines(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        with pytest.raises(InvalidInput) as refused:
            rebase(definition, settings(tmp_path).model_copy(update={"home": tmp_path / "old"}), old)
        assert f"mv {old} {old}.old && riverdelta rebase --service " in str(refused.value)

    def test_labels_of_another_task_are_refused(self, definition, teach, tmp_path):
        class Other(type(LOG_LOSS)):
            def __repr__(self):
                return "Other()"

        old, _ = teach(blocks=1)
        with pytest.raises(Refused, match=r"labels of the task .*, and this scorer has the task Other\(\): they cannot"):
            rebase(replace(definition, task=Other()), settings(tmp_path), old)

    @pytest.mark.parametrize(
        ("harm", "kind", "said"),
        [
            (lambda journal: shutil.rmtree(journal), Refused, "journal has no records: there is nothing to carry over"),
            (lambda journal: [p.unlink() for p in journal.glob("*.sqlite*")], Refused, "journal has no records: there is"),
            (lambda journal: (journal / "key").unlink(), Refused, "journal/key is missing, without which the ids"),
            (
                lambda journal: (journal / "key").write_bytes(b"x"),
                ConfigurationError,
                "{journal}/key has 1 bytes",
            ),
            (lambda journal: tear(journal / "000001.sqlite"), Corrupt, "{journal}/000001.sqlite is damaged: "),
        ],
        ids=["no journal", "an empty one", "no key", "a damaged key", "a damaged segment"],
    )
    def test_a_damaged_old_home_is_named_by_its_file(self, definition, teach, tmp_path, harm, kind, said):
        old, _ = teach()
        harm(old / "journal")
        with pytest.raises(kind, match=said.format(journal=old / "journal")):
            rebase(definition, settings(tmp_path), old)
        assert not list((tmp_path / "new").glob("*"))

    def test_a_new_home_inside_the_old_one_is_refused(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        with pytest.raises(InvalidInput, match=f"{old}/journal/ranker is inside {old}, the home to carry over"):
            rebase(definition, settings(tmp_path).model_copy(update={"home": old / "journal"}), old)

    def test_what_appears_in_its_place_meanwhile_is_named(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        appear = (tmp_path / "new" / "ranker").symlink_to
        with pytest.raises(InvalidInput, match="new/ranker already exists; move it away"):
            rebase(definition, settings(tmp_path), old, progress=lambda at, last: appear(tmp_path) if at == last else None)

    def test_an_old_definition_of_a_later_version_is_named_with_its_file(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        stored = old / "definition.json"
        stored.write_text(stored.read_text().replace('"format": 1', '"format": 2'))
        with pytest.raises(ConfigurationError, match=f"{stored} cannot be used: its format is 2"):
            rebase(definition, settings(tmp_path), old)

    def test_a_service_that_starts_meanwhile_is_refused_and_the_home_is_made(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        refused = []

        def start(position, last):
            with pytest.raises(Locked, match=f"a rebase to {tmp_path}/new/ranker is running") as error:
                Home(definition, settings(tmp_path)).prepare()
            refused.append(error)

        assert rebase(definition, settings(tmp_path), old, progress=start).learned == 24
        assert refused
        assert Home(definition, settings(tmp_path)).prepare().number == 1

    def test_a_second_run_at_the_same_time_is_refused(self, definition, teach, tmp_path):
        old, _ = teach(blocks=1)
        (tmp_path / "new" / ".ranker.rebase").mkdir(parents=True)
        with alone(tmp_path / "new" / ".ranker.rebase" / "lock"), pytest.raises(Locked, match="another rebase to "):
            rebase(definition, settings(tmp_path), old)

    def test_a_run_that_fails_or_is_killed_leaves_nothing_and_the_next_one_succeeds(self, definition, teach, tmp_path):
        old, _ = teach(blocks=4)

        def stop(position, last):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rebase(definition, settings(tmp_path), old, progress=stop)
        assert list((tmp_path / "new").iterdir()) == []
        script = (
            "import sys, os, signal; sys.path[:0] = sys.argv[1].split(os.pathsep)\n"
            "from pathlib import Path\n"
            "import test_rebase as t\n"
            "from riverdelta import Calibration, Entity\n"
            "from riverdelta.core.features import Schema\n"
            "from riverdelta.learning.definition import Definition\n"
            "there = Path(sys.argv[2])\n"
            "d = Definition('ranker', there / 'ranker.onnx', 'logit', columns=Schema.of({'shop': 'float32'}),"
            " corrections=[Calibration(), Entity('user', on=['shop'], slots=256)])\n"
            "old = there / 'old' / 'ranker'\n"
            "t.rebase(d, t.settings(there), old, progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
        )
        here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run([sys.executable, "-c", script, here, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (tmp_path / "new" / "ranker").exists()
        rebase(definition, settings(tmp_path), old)
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["ranker"]

    def test_beside_a_running_service_it_takes_what_is_there(self, definition, tmp_path, make_rig):
        rig = make_rig(definition, tmp_path / "old")
        for seed in range(3):
            rig.teach(16, seed)
            rig.step()
        done = rebase(replace(definition, corrections=[Calibration()]), settings(tmp_path), tmp_path / "old" / "ranker")
        assert done.examples == 48
        rig.teach()
        rig.step()
        assert rig.trainer.learner.examples == 64
        new = make_rig(replace(definition, corrections=[Calibration()]), tmp_path / "new")
        assert new.trainer.learner.examples == 48
