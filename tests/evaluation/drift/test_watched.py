"""Watched: the loss in its own unit, and the shares of classes by name."""

import numpy as np
import pytest

from riverdelta.core.errors import ConfigurationError
from riverdelta.core.features import Schema
from riverdelta.core.losses import Multiclass, Ranking, Regression
from riverdelta.evaluation.drift import Drift, Reference

SCHEMA = Schema.of({"x": "float32"})


def numbers(rows, unit, error=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows).astype(np.float32)
    raw = (unit * x).astype(np.float32)
    return {"x": x}, raw, raw, (raw + unit * error * rng.normal(size=rows)).astype(np.float32)


def drift(loss, **options):
    return Drift(SCHEMA, 1_024, 1e6, loss=loss, **options)


@pytest.mark.parametrize("unit", [2.0**-10, 1.0, 2.0**20])
def test_a_larger_squared_error_raises_the_alarm_of_the_loss_in_any_unit(unit):
    watching = drift(Regression())
    assert watching.update(*numbers(4_096, unit)) == []
    assert watching.update(*numbers(2_048, unit, error=2.0, seed=1)) == ["loss"]


def test_blocks_and_saves_do_not_change_a_bit():
    whole, resumed, columns = drift(Regression()), drift(Regression()), numbers(2_500, 3.0)
    whole.update(*columns)
    for start in range(0, 2_500, 700):
        cut = slice(start, start + 700)
        resumed.update({"x": columns[0]["x"][cut]}, *(column[cut] for column in columns[1:]))
        again = drift(Regression())
        again.load(resumed.state())
        resumed = again
    bits = [{name: array.tobytes() for name, array in one.state().items()} for one in (whole, resumed)]
    assert bits[0] == bits[1]


def test_a_reference_of_numbers_has_their_unit_and_fits_no_other_task():
    columns, base, _, label = numbers(2_048, 100.0)
    made = Drift.reference_of(SCHEMA, columns, base, label, Regression())
    read = Reference.of_arrays(made.arrays())
    assert read.digest == made.digest
    watching = drift(Regression(), given=read)
    assert watching.update(*numbers(1_024, 100.0, error=3.0, seed=1)) == ["loss"]
    with pytest.raises(ConfigurationError, match="another task"):
        drift(Multiclass("abc"), given=read)


def test_the_alarm_names_the_class_that_became_frequent():
    loss, rng, zero = Multiclass(["ok", "worn", "broken"]), np.random.default_rng(0), np.zeros(4_096, np.float32)
    watching, raw = drift(loss), np.zeros((4_096, 3), np.float32)
    for chances, expected in (([0.8, 0.15, 0.05], []), ([0.5, 0.1, 0.4], ["label broken"])):
        label = rng.choice(3, 4_096, p=chances).astype(np.float32)
        assert watching.update({"x": zero}, raw, raw, label)[:1] == expected


def test_a_list_has_its_own_losses_whatever_its_neighbours():
    loss, zero = Ranking(), np.zeros(1_024, np.float32)
    label, group = np.tile(np.float32([1, 0]), 512), np.repeat(np.arange(512), 2)
    watching = drift(loss)
    watching.update({"x": zero}, zero, zero, label, group)
    # Each list of two loses log 2, half of it per row, of a range of 4.
    assert watching.state()["losses"][:, 0] == pytest.approx(np.log(2) / 8)
