"""Every measure asks its loss: one without two labels and without a mixable rate is measured, and the gate's bounds hold."""

import numba
import numpy as np
import pytest

from riverdelta.core.features import Schema
from riverdelta.core.hashing import id64
from riverdelta.core.losses import Loss
from riverdelta.core.losses.kernels import MIX, PREDICT, VALUE, Kernels
from riverdelta.core.losses.log_loss import _derivatives
from riverdelta.evaluation.drift import Drift, Reference
from riverdelta.evaluation.gate import Gate
from riverdelta.evaluation.history import History
from riverdelta.evaluation.prequential import Prequential
from riverdelta.evaluation.slices import Slices
from riverdelta.evaluation.traffic import Traffic
from riverdelta.evaluation.trial import Trial


@numba.njit(VALUE)
def value(raw, label, losses):
    for i in range(len(label)):
        losses[i] = ((raw[i] - label[i]) ** 2).sum()


@numba.njit(MIX)
def mix(base, corrected, weight, served):
    served[:] = base + weight * (corrected - base)


@numba.njit(PREDICT)
def predict(raw, prediction):
    prediction[:] = raw


class Squares(Loss):
    """Σ (z - y)² of two outputs within ±1 and a label within ±1."""

    task, outputs, bound, reach = "squares", 2, 8.0, 2.0
    kernels = Kernels(value, _derivatives, mix, predict)  # nothing here asks for its derivatives

    def spread(self, base, corrected):
        b, c = self.rows(base), self.rows(corrected)
        return (np.abs(b - c) * (np.abs(b + c) + 2.0)).sum(1)

    def mixable(self, weight):
        return np.zeros(np.shape(weight))

    def link(self, prediction):
        return self.rows(prediction)

    def export_link(self, nodes, prediction):
        return prediction

    def export_inverse_link(self, nodes, raw):
        return raw

    def export_mixture(self, nodes, base, corrected, weight):
        raise NotImplementedError


LOSS = Squares()


def stream(rows, seed=0, kind="drawn"):
    """Base and corrected float32[rows, 2] and labels; they alternate so that whoever was better is worse next, or are drawn."""
    rng = np.random.default_rng(seed)
    base, corrected = rng.uniform(-1, 1, (2, rows, 2)).astype(np.float32)
    label = rng.uniform(-1, 1, rows)
    if kind == "alternating":
        base[:], corrected[:], label = -1.0, 1.0, np.where(np.arange(rows) // 20 % 2, 1.0, -1.0)
    return base, corrected, label.astype(np.float32)


def losses(label, *raws):
    return [float(((raw.astype(float) - label[:, None]) ** 2).sum()) for raw in raws]


@pytest.mark.parametrize("kind", ["drawn", "alternating"])
@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("weight", [0.5, 7.0])
def test_without_a_mixable_rate_the_gates_excess_is_within_both_bounds(kind, delay, weight):
    gate, (base, corrected, label) = Gate(LOSS), stream(4_000, kind=kind)
    weights, served, w = [0.5] * (delay + 1), np.empty_like(base), np.full(1, weight, np.float32)
    for i in range(len(label)):
        one = slice(i, i + 1)
        served[one] = LOSS.mix(base[one], corrected[one], weights[-1 - delay])
        gate.update(base[one], corrected[one], served[one], label[one], w, np.array([i - delay]))
        gate.note(i + 1)
        weights.append(gate.weight)
    found, *alone = losses(label, served, base, corrected)
    report = gate.report()
    assert report["excess"] == pytest.approx(weight * (found - min(alone)), rel=1e-6)
    assert report["excess"] <= report["bound"] <= report["worst_case"] + 1e-3
    assert (report["rate"] < 1.0) == (weight > 1 or kind == "alternating")
    assert report["delay"] == delay


def test_a_mixture_of_values_that_is_served_at_once_comes_to_the_better_expert():
    gate, rng = Gate(LOSS), np.random.default_rng(1)
    label = rng.uniform(-0.5, 0.5, 3_000).astype(np.float32)
    base = label[:, None] + rng.normal(0, 0.4, (3_000, 2)).astype(np.float32)
    corrected = label[:, None] + rng.normal(0, 0.1, (3_000, 2)).astype(np.float32)
    assert gate.serve(base, corrected, label).shape == (3_000, 2)
    assert gate.weight > 0.99


def test_measures_have_the_mean_loss_and_nothing_that_needs_two_labels():
    base, served, label = stream(500)
    mean = {name: found / 500 for name, found in zip(("base", "served"), losses(label, base, served), strict=True)}
    prequential, history = Prequential(window=100, loss=LOSS), History(loss=LOSS)
    slices = Slices({"country": ["de"]}, Schema.of({"country": "int64"}), LOSS)
    prequential.update(base, served, label)
    history.update(base, served, label, np.ones(500), np.zeros(500))
    slices.update({"country": np.full(500, id64("de"))}, base, served, label, np.ones(500))
    again = Prequential(window=100, loss=LOSS)
    again.load(prequential.state())
    assert again.report() == prequential.report()
    for scorer, expected in mean.items():
        report = again.report()["all"][scorer]
        assert report.keys() == {"examples", "skipped", "loss", "clipped", "mae", "rmse", "r2", "bias"}
        assert report["loss"] == pytest.approx(expected)
        assert slices.report()["country"]["de"][scorer].keys() == {"examples", "loss"}
        sizes = np.diff([0, *history.report()["examples"]])
        assert np.average(history.report()[scorer], weights=sizes) == pytest.approx(expected, abs=0.1)
    last = losses(label[-100:], served[-100:])[0] / 100
    assert prequential.report()["recent"]["served"]["loss"] == pytest.approx(last, rel=1e-6)


def test_a_trial_traffic_and_drift_take_outputs_and_labels_of_any_loss():
    base, served, label = stream(4_096)
    near = np.stack([label, label], 1)
    assert Trial(loss=LOSS).update(served, near, label, np.ones(4_096)).value == "promoted"
    traffic = Traffic(loss=LOSS)
    traffic.update(np.arange(10), np.zeros(10, int), base[:10], served[:10], served[:10])
    report = traffic.report()
    assert report["residual"]["1"] == np.abs(served[:10] - base[:10]).max()
    assert (report["top_changed"], report["expected_loss"]) == (None, {"base": None, "served": None})
    schema = Schema.of({"x": "float32"})
    made = Drift.reference_of(schema, {"x": label}, base, label, LOSS)
    drift = Drift(schema, 1_024, given=Reference.of_arrays(made.arrays()), loss=LOSS)
    assert drift.quantities == ("loss", "x", "score")
    assert drift.update({"x": label}, base, served, label) == []
    assert drift.update({"x": label}, base, served, -np.sign(served[:, 0])) == ["loss"]
