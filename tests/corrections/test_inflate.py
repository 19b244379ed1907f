"""Widen: coefficients stay as they are, and the next examples move them more."""

import numpy as np
import pytest

from riverdelta import Calibration, Entity, Linear, Schema
from riverdelta.corrections.stack import Stack
from riverdelta.river import River

SCHEMA = Schema.of({"user": "int64", "x": "float32", "y": "float32[2]"})
CORRECTIONS = {
    "calibration": Calibration,
    "linear": lambda: Linear("user", "x", "y", slots=256),
    "ftrl": lambda: Linear("user", "x", "y", method="ftrl", l1=0.01, slots=256),
    "entity": lambda: Entity("user", on=["x", "y"], slots=256),
}


def rows(count, seed):
    rng = np.random.default_rng(seed)
    columns = {
        "user": rng.integers(0, 9, count),
        "x": rng.normal(size=count).astype(np.float32),
        "y": rng.normal(size=(count, 2)).astype(np.float32),
    }
    return columns, rng.normal(size=(count, 1)).astype(np.float32), (rng.random(count) < 0.7).astype(np.float32)


def taught(make):
    stack = Stack([make()])
    stack.bind(SCHEMA)
    columns, base, label = rows(2_000, 0)
    stack.learn(columns, base, label, np.ones(len(label), np.float32))
    return stack


@pytest.mark.parametrize("name", CORRECTIONS)
def test_no_logit_changes_and_the_next_examples_move_it_more(name):
    columns, base, _ = rows(64, 1)
    moved = {}
    for keep in (1.0, 0.25):
        stack = taught(CORRECTIONS[name])
        before, digest = stack.predict(columns, base), stack.digest()
        stack.inflate(keep)
        assert np.array_equal(stack.predict(columns, base), before)
        assert (stack.digest() == digest) == (keep == 1.0) or name == "ftrl"
        more, offset, label = rows(64, 2)
        stack.learn(more, offset, 1 - label, np.ones(len(label), np.float32))
        moved[keep] = float(np.abs(stack.predict(columns, base) - before).mean())
    assert moved[0.25] > 1.2 * moved[1.0] > 0


@pytest.mark.parametrize("name", CORRECTIONS)
def test_all_certainty_may_go_and_learning_stays_finite(name):
    stack = taught(CORRECTIONS[name])
    stack.inflate(0.0)
    columns, base, label = rows(200, 3)
    stack.learn(columns, base, label, np.ones(len(label), np.float32))
    assert np.isfinite(stack.predict(columns, base)).all()


def test_a_correction_without_such_a_belief_stays_as_it_is():
    from river import linear_model

    stack = taught(lambda: River(linear_model.LogisticRegression(), features=("x",)))
    digest = stack.digest()
    stack.inflate(0.1)
    assert stack.digest() == digest
