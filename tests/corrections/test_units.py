"""The unit of labels is the user's: labels and outputs times a constant give outputs times it; huge counts stay in range."""

import numpy as np
import pytest

from riverdelta import Calibration, Count, Entity, Linear, Regression, Schema, Stack
from riverdelta.evaluation.gate import Gate

SCHEMA = Schema.of({"u": "int64", "x": "float32"})
CORRECTIONS = {
    "calibration": lambda: [Calibration()],
    "linear": lambda: [Linear("u", "x", slots=64)],
    "entity": lambda: [Entity("u", on=["x"], slots=64)],
    "stack": lambda: [Calibration(), Linear("u", "x", slots=64), Entity("u", on=["x"], slots=64)],
}
ROWS = 400


def stream(seed=0):
    """Return columns, offsets float64[N], and labels that users and a number move away from them."""
    rng = np.random.default_rng(seed)
    user, x = rng.integers(0, 20, ROWS), rng.normal(size=ROWS).astype(np.float32)
    offset = rng.normal(3.0, 1.0, ROWS)
    return {"u": user, "x": x}, offset, 1.2 * offset + np.sin(user) + 0.5 * x + rng.normal(0.0, 0.2, ROWS)


def learned(corrections, loss, columns, offset, label):
    stack = Stack(corrections, loss)
    stack.bind(SCHEMA)
    base = offset.astype(np.float32).reshape(-1, 1)
    return stack.learn(columns, base, label.astype(np.float32), np.ones(ROWS, np.float32))[:, 0]


@pytest.mark.parametrize("unit", [1e-9, 2.0**-20, 1e6, 1e9])
@pytest.mark.parametrize("made", CORRECTIONS.values(), ids=CORRECTIONS)
def test_values_in_any_unit_are_corrected_alike(made, unit):
    columns, offset, label = stream()
    one, other = (learned(made(), Regression(), columns, size * offset, size * label) for size in (1.0, unit))
    np.testing.assert_allclose(other / unit, one, rtol=1e-3, atol=1e-3)
    late = slice(ROWS // 2, None)
    assert np.abs(one - label)[late].mean() < 0.95 * np.abs(offset - label)[late].mean()


@pytest.mark.parametrize("made", [CORRECTIONS["linear"], CORRECTIONS["entity"]], ids=["linear", "entity"])
def test_counts_of_a_million_are_corrected_towards_their_rate(made):
    rng = np.random.default_rng(1)
    columns, _, _ = stream()
    rate = 1e6 * np.exp(0.3 * np.sin(columns["u"]))
    label = rng.poisson(rate).astype(float)
    served = learned(made(), Count(), columns, np.full(ROWS, np.log(1e6)), label)
    late = slice(ROWS // 2, None)
    assert np.isfinite(served).all()
    assert np.abs(served - np.log(rate))[late].mean() < 0.7 * np.abs(np.log(1e6) - np.log(rate))[late].mean()


def test_the_gate_follows_values_of_any_unit_alike():
    _, offset, label = stream()
    weights = []
    for unit in (1.0, 1e-9, 1e9):
        base, better, y = ((unit * one).astype(np.float32) for one in (offset, (offset + 2 * label) / 3, label))
        gate = Gate(Regression())
        gate.serve(base, better, y)
        weights.append(gate.weight)
    assert weights == pytest.approx([weights[0]] * 3, rel=1e-3)
