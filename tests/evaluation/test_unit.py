"""Unit: what is typical for the base, from the rows before alone, in any unit and whatever single labels are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.checks import Part, check
from riverdelta.core.errors import Corrupt
from riverdelta.core.losses import Count, Ranking, Regression
from riverdelta.evaluation.trial import Trial
from riverdelta.evaluation.unit import Unit
from riverdelta.evaluation.worth import Worth

SQUARED, RANKING = Regression(), Ranking()


def of(losses, weight=None, unit=None):
    return (unit or Unit(SQUARED)).of(losses, np.ones(len(losses)) if weight is None else weight)


def squares(rows, seed=0):
    return np.random.default_rng(seed).normal(size=rows) ** 2


def test_a_loss_in_nats_with_a_bound_has_the_unit_1_and_no_state():
    assert not Unit(Count()).constant
    for unit in (Unit(), Unit(RANKING)):
        assert (unit.constant, unit.name, unit.scale, unit.state()) == (True, "nats", 1.0, {})
        assert unit.of(squares(3), np.ones(3)).tolist() == [1, 1, 1]


def test_the_scale_before_a_row_is_that_of_the_rows_before_it():
    losses = squares(3_000)
    found = of(losses)
    assert found[0] == 0
    assert found[1] == losses[0]
    assert found[15] == np.median(losses[:15])
    changed = losses.copy()
    changed[1_000:] = 7.0
    assert (of(changed)[:1_001] == found[:1_001]).all()
    assert 0.8 < np.median(found[500:]) < 1.2


@pytest.mark.parametrize("at", [0, 3, 20, 2_000])
def test_an_absurd_loss_at_most_doubles_the_scale(at):
    losses = squares(2_100)
    absurd = losses.copy()
    absurd[at] = 1e30
    assert of(absurd)[-1] <= 2.1 * of(losses)[-1]


def test_a_lasting_change_of_the_unit_is_followed():
    found = of(np.r_[squares(2_000), 1e6 * squares(4_000, 1)])
    assert found[2_000 + 60] > 1e4
    assert found[-1] == pytest.approx(1e6, rel=0.3)


def test_losses_that_are_nearly_always_0_have_a_scale():
    losses = np.zeros(20_000)
    losses[::200] = 50.0
    found = of(losses)
    assert found[1:].min() > 0
    assert found[-1] == pytest.approx(0.25, rel=0.5)
    assert (of(np.zeros(40)) == 0).all()


def test_rows_taken_back_and_losses_that_are_not_finite_change_nothing():
    losses, weight = squares(200), np.ones(200)
    odd = np.arange(200) % 3 == 0
    losses[odd] = np.nan
    weight[np.arange(200) % 3 == 1] = -1.0
    kept = np.arange(200) % 3 == 2
    assert (of(losses, weight)[kept] == of(losses[kept])).all()


@given(st.lists(st.floats(0, 1e6, width=32), max_size=60), st.integers(-20, 20))
def test_losses_in_another_unit_have_scales_in_that_unit(losses, power):
    assert (of(np.array(losses)) * 2.0**power == of(np.array(losses) * 2.0**power)).all()


def stream(rows=4_000, scale=1.0):
    rng = np.random.default_rng(2)
    label = rng.normal(size=rows)
    base, better = label + rng.normal(size=rows), label + 0.9 * rng.normal(size=rows)
    return *(np.asarray(scale * one, np.float32) for one in (base, better, label)), np.ones(rows, np.float32)


def test_verdicts_and_gains_do_not_depend_on_the_unit_of_labels():
    found = []
    for scale in (1.0, 1_000.0):
        trial, worth = Trial(loss=SQUARED), Worth(loss=SQUARED)
        trial.update(*stream(scale=scale))
        worth.update(*stream(scale=scale))
        report, gain = trial.report(), worth.report()["gain"]
        found.append(
            (report["verdict"], report["examples"], report["unit"], report["scale"] / scale**2, report["mean"], gain["lower"])
        )
    assert found[0][:3] == found[1][:3]
    assert found[0][3:] == pytest.approx(found[1][3:], rel=1e-4)
    assert found[0][:3] == ("promoted", found[0][1], "typical losses of the base")
    assert found[0][5] > 0


def test_a_worse_challenger_of_any_unit_is_rejected_and_the_unit_is_that_of_the_base():
    base, better, label, ones = stream(20_000, 1e-3)
    trial = Trial(loss=SQUARED)
    assert trial.update(better, base, label, ones, base).value == "rejected"
    assert trial.report()["scale"] == pytest.approx(0.5e-6, rel=0.3)


def test_a_list_is_one_example_of_a_trial():
    rng = np.random.default_rng(1)
    group, label = np.repeat(np.arange(2_000), 4), np.tile(np.float32([1, 0, 0, 1]), 2_000)
    base, ones = rng.normal(size=8_000).astype(np.float32), np.ones(8_000, np.float32)
    trial, worth = Trial(loss=RANKING), Worth(loss=RANKING)
    assert trial.update(base, base + label, label, ones, base, group).value == "promoted"
    assert trial.report()["examples"] < 100
    one = np.array([RANKING.value(z[:4], label[:4]).sum() for z in (base, base + label)])
    first = Trial(loss=RANKING)
    first.update(base[:4], (base + label)[:4], label[:4], ones[:4], None, group[:4])
    assert first.report()["unclipped"] == pytest.approx(one[0] - one[1])
    worth.update(base, base + label, label, ones, group)
    assert worth.report()["labels"] == 2_000


@pytest.mark.parametrize("make", [lambda: Trial(0.01, loss=SQUARED), lambda: Worth(loss=SQUARED)], ids=["trial", "worth"])
def test_measures_with_a_running_unit_continue_from_their_state(make):
    columns = stream(300)
    check(Part(make, lambda part, a, b: part.update(*(one[a:b] for one in columns)), 300))


def test_a_saved_scale_that_makes_no_sense_is_refused():
    for bad in (-1.0, np.nan):
        with pytest.raises(Corrupt, match="scale"):
            Unit(SQUARED).load({"scale": np.full(17, bad)})
