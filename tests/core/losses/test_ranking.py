"""Ranking in a graph: lists by their numbers in `group`, in any order, of one row, and of none."""

import numpy as np
import pytest

from riverdelta import Ranking
from riverdelta.checks.law import OPSET, run
from riverdelta.core.nodes import Nodes

LOSS = Ranking()
GROUPS = {
    "several lists": [0, 0, 0, 1, 1, 2],
    "ids that are not sorted": [9, 9, -4, -4, 2**62, 0],
    "a list of one row": [5],
    "no rows": [],
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_the_graph_predicts_and_mixes_within_lists(group):
    rng, group = np.random.default_rng(0), np.array(group, np.int64)
    base, corrected = (rng.normal(scale=3.0, size=(len(group), 1)).astype(np.float32) for _ in range(2))
    nodes = Nodes(max(OPSET, 18))
    found = run(nodes, LOSS.export_inverse_link(nodes, "raw", "group"), {"raw": base, "group": group})
    np.testing.assert_allclose(found, LOSS.inverse_link(base, group), atol=1e-6)
    nodes = Nodes(max(OPSET, 18))
    feeds = {"base": base, "corrected": corrected, "weight": np.full((1, 1), 0.25, np.float32), "group": group}
    found = run(nodes, LOSS.export_mixture(nodes, "base", "corrected", "weight", "group"), feeds)
    np.testing.assert_allclose(found, LOSS.mix(base, corrected, 0.25, group), atol=1e-5)
