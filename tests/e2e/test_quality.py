"""The figures that the README gives, on MovieLens latest-small; skipped where it is not there."""

import os
from pathlib import Path

import pytest

from riverdelta.lab.datasets.find import find_movielens
from riverdelta.lab.quality import auc, log_loss
from riverdelta.lab.replay import base_logits, replay
from riverdelta.lab.workshop import load_stream, open_workshop

FOLDER = Path(os.environ.get("RIVERDELTA_DATA", "/nonexistent")) / "ml-latest-small"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="RIVERDELTA_DATA names no folder with ml-latest-small")
def test_the_default_stack_lifts_the_frozen_base_to_the_promised_quality(tmp_path):
    workshop = open_workshop(load_stream(find_movielens(FOLDER)), tmp_path)
    base = base_logits(workshop.report.path, workshop.second)
    served = replay(workshop.definition.new_stack(), workshop.second, base).served
    label = workshop.second.label
    assert auc(base, label) < 0.70 < 0.80 <= auc(served, label)
    assert log_loss(served, label) <= 0.54 < log_loss(base, label)
