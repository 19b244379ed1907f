"""Binary: the measures of logits stand beside baselines that cost little, and old states are read."""

import numpy as np
import pytest

from riverdelta.evaluation.prequential import Prequential


def stream(rows, seed=0):
    rng = np.random.default_rng(seed)
    base, served = rng.normal(size=(2, rows)).astype(np.float32)
    return base, served, (rng.random(rows) < 0.3).astype(np.float32), np.ones(rows, np.float32)


def fed(columns):
    prequential = Prequential()
    prequential.update(*columns)
    return prequential


def test_a_state_of_version_0_1_has_no_baselines_and_its_logits_become_facts():
    base, served, label, weight = columns = stream(200)
    state = {name: array for name, array in fed(columns).state().items() if not name.startswith("baselines")}
    resumed = Prequential()
    resumed.load({**state, "recent": np.stack([base, served, label, weight], axis=1).astype(np.float64)})
    found, wanted = resumed.report(), fed(columns).report()
    for window in ("all", "recent"):
        assert [found[window][s] for s in ("base", "served")] == [wanted[window][s] for s in ("base", "served")]
        assert found[window]["majority"]["examples"] == 0


def test_baselines_have_accuracy_and_loss_and_are_not_served():
    label = np.float32([1, 1, 0, 1])
    found = fed((np.zeros(4, np.float32), np.zeros(4, np.float32), label, np.ones(4, np.float32))).report()["all"]
    assert set(found) == {"base", "served", "last_label", "majority"}
    # Right of the second row alone: the first has no label before, the others differ from theirs.
    assert found["last_label"]["accuracy"] == 0.25
    assert found["majority"]["loss"] == pytest.approx(-np.log([1 / 2, 2 / 3, 1 / 4, 3 / 5]).mean())


@pytest.mark.parametrize("hostile", [np.nan, 99.0, -1.0, 0.5])
def test_a_hostile_label_teaches_a_baseline_nothing(hostile):
    columns = [c.copy() for c in stream(50, seed=2)]
    wanted = fed([np.delete(c, 9) for c in columns]).report()["all"]["majority"]
    columns[2][9] = hostile
    assert fed(columns).report()["all"]["majority"] == wanted | {"skipped": 1}
