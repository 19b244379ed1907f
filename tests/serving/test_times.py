"""Times: a request without a time gets the server's, which is journalled and learned from; a wrong unit is refused."""

import asyncio
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from riverdelta import Linear, Schema, Seasons
from riverdelta.bento.openapi import document
from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.core.records import Impressions
from riverdelta.core.settings import Settings
from riverdelta.learning.definition import Definition

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))
from conftest import Rig

BASE = '<ir_version: 8, opset_import: ["" : 17]> ranker (float[N] x, double[N] when) => (float[N] logit) { logit = Neg(x) }'


@pytest.fixture
def path(tmp_path):
    onnx.save(onnx.parser.parse_model(BASE), tmp_path / "base.onnx")
    return tmp_path / "base.onnx"


def scorer(path, *corrections, **more):
    return Definition("ranker", path, "logit", corrections=corrections, **more)


def test_a_request_without_a_time_has_the_server_s_which_is_journalled_and_learned(path, tmp_path):
    definition = scorer(path, Linear(Seasons("at", "day")))
    rig = Rig(definition, tmp_path / "home")
    try:
        x = {"x": [1.0, 2.0], "when": [0.0, 0.0]}
        scored_at = rig.plane.clock()
        named = rig.plane.score(x, request_id="order-1")
        assert rig.plane.score(x, request_id="order-1").impressions == named.impressions
        sent = rig.plane.score(x | {"at": [1_800_000_000, 1_800_003_600.5]})
        with pytest.raises(InvalidInput, match=r"expected Unix seconds.* not milliseconds"):
            rig.plane.score(x | {"at": [1_800_000_000_000, 1]})
        asyncio.run(rig.plane.feedback([f"{sent.impressions}.0", f"{sent.impressions}.1"], np.ones(2, np.float32)))
        rig.step()
        assert rig.trainer.learner.examples == 2
        records = [r for _, r in rig.trainer.journal.read(0, 100) if isinstance(r, Impressions)]
        times = np.concatenate([r.columns["at"] for r in records])
        assert times.dtype == np.float64
        assert times[-2:].tolist() == [1_800_000_000.0, 1_800_003_600.5]
        assert times[:2].tolist() == [scored_at] * 2
        columns = document(definition, Settings())["components"]["schemas"]["ScoreRequest"]["properties"]["columns"]
        assert columns["required"] == ["x", "when"]
        assert "at" in columns["properties"]
    finally:
        rig.close()


def test_an_input_of_the_base_may_be_the_time_and_is_not_filled(path):
    definition = scorer(path, Linear(Seasons("when", "day")))
    assert not definition.request_schema.optional
    assert str(definition.schema["when"]) == "float64[N]"
    with pytest.raises(ConfigurationError, match=r"reads an input of the base that is float32\[N\]"):
        _ = scorer(path, Linear(Seasons("x", "day"))).features


def test_a_time_may_be_declared_as_float64_only(path):
    declared = Schema.of({"at": "float64"})
    assert set(scorer(path, Linear(Seasons("at", "day")), columns=declared).request_schema.optional) == {"at"}
    with pytest.raises(ConfigurationError, match="leave it out of columns"):
        scorer(path, Linear(Seasons("at", "day")), columns=Schema.of({"at": "float32"}))
