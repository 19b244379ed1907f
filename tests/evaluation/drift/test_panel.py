"""Panel: alarms are rarer than stated while means stay under their bounds, whatever the stream does, and come soon else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.evaluation.drift import Panel
from riverdelta.evaluation.drift.panel import SHARES

HALF = np.array([0.5])
ALL = np.array([1.0])


def first_alarm(draw, run_length, most):
    panel = Panel(HALF.copy(), ALL, run_length)
    for step in range(1, most + 1):
        if panel.update(np.array([draw(panel)])):
            return step
    return most


@pytest.mark.parametrize("kind", ["coins", "constant", "an adversary who knows the wealth"])
def test_the_mean_run_to_a_false_alarm_is_at_least_the_stated_length(kind):
    rng = np.random.default_rng(7)
    draws = {
        "coins": lambda panel: float(rng.random() < 0.5),
        "constant": lambda panel: 0.5,
        # Means stay at the bound; the spread is as large as it can be just when the evidence is.
        "an adversary who knows the wealth": lambda panel: (
            (float(rng.random() < 0.5) if panel.evidence()[0] < 20 else 2 * float(rng.random() < 0.25))
            / (1 if panel.evidence()[0] < 20 else 2)
        ),
    }
    lengths = [first_alarm(draws[kind], run_length=100.0, most=1_000) for _ in range(200)]
    assert np.mean(lengths) >= 100.0


def test_the_evidence_grows_by_no_more_than_a_step_in_the_mean():
    # E M(t) <= t is what the theorem rests on; for a coin the mean over both sides can be taken exactly.
    rng = np.random.default_rng(0)
    panel = Panel(HALF.copy(), ALL, 1e300)
    for _ in range(200):
        before = panel.wealth.copy()
        grown = [(before + 1) * (1 + SHARES * (x - 0.5) / 0.5) for x in (0.0, 1.0)]
        assert np.allclose(np.mean(grown, 0), before + 1, rtol=1e-12)
        panel.update(np.array([float(rng.random() < 0.5)]))
        assert (panel.wealth >= 0).all()


@pytest.mark.parametrize(("mean", "most"), [(0.6, 2_000), (0.8, 200), (1.0, 40)])
def test_a_mean_above_the_bound_raises_the_alarm_soon(mean, most):
    rng = np.random.default_rng(1)
    assert first_alarm(lambda _: float(rng.random() < mean), run_length=1e6, most=10_000) <= most


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
@settings(derandomize=True, max_examples=100)
def test_what_never_passes_its_bound_never_raises_it(values):
    panel = Panel(HALF.copy(), ALL, 201.0)
    assert not any(panel.update(np.array([x])) for x in values)


def test_the_evidence_is_shared_out_to_those_who_bring_it():
    panel = Panel(np.array([0.5, 0.5]), np.array([0.5, 0.5]), 1e9)
    for _ in range(20):
        panel.update(np.array([0.2, 0.9]))
    quiet, loud = panel.evidence()
    assert loud > 100 * quiet
