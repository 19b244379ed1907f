"""Inputs of other types and shapes in the journal, in a release, and after a rebase to another base."""

import asyncio
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser

from riverdelta import Schema, id64
from riverdelta.core.ids import parse_ids
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.sidecar.rebase import rebase
from typed_inputs import PARTS, REST, TEXT, X, typed


def test_the_journal_keeps_features_and_with_keep_inputs_what_was_sent_from_which_a_new_base_is_scored(tmp_path, make_rig):
    kept = replace(typed(tmp_path), keep_inputs=True)
    rig = make_rig(kept, tmp_path / "old")
    answers = [rig.plane.score(REST | PARTS) for _ in range(20)]
    for answer in answers:
        ids = [f"{answer.impressions}.{i}" for i in range(2)]
        asyncio.run(rig.plane.feedback(ids, np.float32([1, 0])))
    rig.step()
    record = next(r for _, r in rig.trainer.journal.read(0, 100) if isinstance(r, Impressions))
    columns = {name: column[:2].tolist() for name, column in record.columns.items()}
    assert columns["city"] == [id64("ann"), id64("eve")]
    assert columns["#input/city"] == [["ann"], ["eve"]]
    assert columns["code"] == [-1, 7]
    assert columns["#input/code"] == [[2**64 - 1], [7]]
    assert parse_ids([f"code={2**64 - 1}"], kept.recorded) == {"code": -1}
    assert (columns["region"], columns["age"], columns["X"]) == ([3, -4], [30.0, 41.0], X)
    assert rig.trainer.learner.examples == 40
    rig.close()
    rig.trainer, rig.close = None, lambda: None
    path = tmp_path / "steeper.onnx"
    onnx.save(onnx.parser.parse_model(TEXT.replace("0.125}", "0.5}")), path)
    changed = replace(kept, base=path, columns=Schema.of({"region": "int64"}))  # age is an id now
    done = rebase(changed, Settings.load(home=tmp_path / "new", grpc_port=0), tmp_path / "old" / "ranker")
    assert (done.examples, done.learned, done.unusable) == (40, 40, 0)


def test_the_merged_model_and_numpy_agree_in_a_release(tmp_path, make_rig):
    rig = make_rig(typed(tmp_path), tmp_path / "home")
    answer = rig.plane.score(REST | PARTS)
    asyncio.run(rig.plane.feedback([f"{answer.impressions}.{i}" for i in range(2)], np.float32([1, 0])))
    rig.step()
    learner = rig.trainer.learner
    release = rig.trainer.releases.make(learner, learner.position, rig.now)
    assert release.number >= 1
    assert {"X", "city", "city_id64"} <= {value.name for value in onnx.load(release.path).graph.input}
