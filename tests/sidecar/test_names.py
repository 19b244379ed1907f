"""A request under its client's own id is learned once, through newer tables, other lives, copies, keys and bases."""

import asyncio
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from relearned import relearned
from riverdelta.core.errors import AlreadyExists
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.sidecar.rebase import rebase
from riverdelta.storage.backup import back_up
from riverdelta.storage.home import Home
from riverdelta.storage.impression import find
from riverdelta.storage.journal.ids import rotate_key
from riverdelta.storage.journal.names import RowName

STEEPER = """<ir_version: 8, opset_import: ["" : 17]>
ranker (int64[N] user, float[N] x) => (float[N] logit) { k = Constant<value = float {0.7}>()  logit = Mul(x, k) }"""
NAMES = [f"sku-{n}" for n in range(16)]


def order(rig, name="order-1", seed=1):
    return rig.plane.score(rig.columns(16, seed), request_id=name, row_ids=NAMES)


def told(answer):
    return answer.impressions, str(answer.state), answer.scores.tobytes(), answer.base.tobytes()


def pay(rig, name="order-1", count=16):
    labels = np.arange(count, dtype=np.float32) % 2
    return asyncio.run(rig.plane.feedback([RowName(name, row) for row in NAMES[:count]], labels)).outcomes


def stored(rig):
    return sum(len(record) for _, record in rig.trainer.journal.read(0, 10_000) if isinstance(record, Impressions))


@pytest.fixture
def rig(definition, tmp_path, make_rig):
    made = make_rig(replace(definition, keep_inputs=True), tmp_path / "home")
    yield made
    made.close()
    made.trainer, made.close = None, lambda: None


def test_it_has_its_first_answer_whatever_was_learned_since_and_counts_once(rig):
    first = order(rig)
    assert told(order(rig)) == told(first)
    assert pay(rig) == ["accepted"] * 16
    assert pay(rig) == ["duplicate"] * 16
    rig.teach(seed=5)
    rig.step()
    rig.plane.follower.follow()
    newer = rig.plane.score(rig.columns(16, 1))
    assert newer.scores.tobytes() != first.scores.tobytes()
    assert told(order(rig)) == told(first)
    ids = [f"{first.impressions}.{row}" for row in range(16)]
    assert asyncio.run(rig.plane.feedback(ids, np.arange(16, dtype=np.float32) % 2)).outcomes == ["duplicate"] * 16
    rig.step()
    assert rig.trainer.learner.examples == 32
    assert stored(rig) == 3 * 16  # `first`, what was taught, and `newer`
    assert relearned(rig.plane.home).stack.digest() == rig.trainer.learner.stack.digest()


def test_it_has_its_first_answer_in_the_next_life_and_while_clocks_jump(rig):
    first = order(rig)
    rig.step()
    for jump in (-1e9, 1e9):
        rig.now += jump
        rig.restart()
        assert told(order(rig)) == told(first)
    with pytest.raises(AlreadyExists, match="columns, propensity or row_ids differ"):
        order(rig, seed=2)
    assert pay(rig) == ["accepted"] * 16
    rig.step()
    assert rig.trainer.learner.examples == 16


def test_after_a_rotation_its_impressions_have_a_new_signature_and_are_the_same(rig):
    first = order(rig)
    rotate_key(rig.plane.home.key_path, rig.now, 1e6)
    rig.plane.follower.ids.refresh(rig.now)
    again = order(rig)
    assert again.impressions != first.impressions
    assert asyncio.run(rig.plane.feedback([f"{first.impressions}.0"], np.ones(1, np.float32))).outcomes == ["accepted"]
    assert asyncio.run(rig.plane.feedback([f"{again.impressions}.0"], np.ones(1, np.float32))).outcomes == ["duplicate"]


def test_a_restored_backup_knows_the_names_of_its_moment(rig, tmp_path):
    first = order(rig)
    copy = tmp_path / "copy"
    back_up(rig.plane.home, copy)
    order(rig, "order-2")
    rig.close()
    shutil.rmtree(rig.plane.home.folder)
    os.rename(copy, rig.plane.home.folder)
    rig.__init__(rig.definition, rig.settings.home)
    assert told(order(rig)) == told(first)
    assert pay(rig, "order-2") == ["bad_id"] * 16
    assert pay(rig) == ["accepted"] * 16


def test_a_rebase_carries_names_and_their_feedback(rig, tmp_path, make_rig):
    first = order(rig)
    assert pay(rig, count=8) == ["accepted"] * 8
    rig.step()
    rig.close()
    rig.trainer, rig.close = None, lambda: None
    onnx.save(onnx.parser.parse_model(STEEPER), tmp_path / "steeper.onnx")
    definition = replace(rig.definition, base=tmp_path / "steeper.onnx")
    settings = Settings.load(home=tmp_path / "new", grpc_port=0)
    rebase(definition, settings, rig.plane.home.folder)
    new = make_rig(definition, tmp_path / "new")
    assert told(order(new)) == told(first)
    assert pay(new) == ["duplicate"] * 8 + ["accepted"] * 8
    found = find(Home(definition, new.settings), RowName("order-1", "sku-3"))
    assert (found["request_id"], found["row_id"], found["label"]) == ("order-1", "sku-3", 1.0)
    new.close()
    new.trainer, new.close = None, lambda: None
