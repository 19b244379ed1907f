"""The figures that the README gives, on MovieLens latest-small; skipped where it is not there."""

import os
from pathlib import Path

import pytest

from riverdelta.core.settings import Settings
from riverdelta.lab.base import base_logits
from riverdelta.lab.datasets.find import find_movielens
from riverdelta.lab.quality import beside_base
from riverdelta.lab.workshop import load_stream, open_workshop
from riverdelta.learning.learner import new_learner
from riverdelta.learning.replay import replay

FOLDER = Path(os.environ.get("RIVERDELTA_DATA", "/nonexistent")) / "ml-latest-small"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="RIVERDELTA_DATA names no folder with ml-latest-small")
def test_the_default_stack_lifts_the_frozen_base_to_the_promised_quality(tmp_path):
    workshop = open_workshop(load_stream(find_movielens(FOLDER)), tmp_path)
    second = workshop.second
    base = base_logits(workshop.report.path, second)
    learner = new_learner(workshop.definition, Settings.load(home=tmp_path / "home"))
    served = replay(learner, second.columns, base, second.label, second.time).served
    found = beside_base(base, served, second.label)
    assert found["auc_base"] < 0.70 < 0.815 <= found["auc_served"]
    assert found["log_loss_served"] <= 0.525 < found["log_loss_base"]
