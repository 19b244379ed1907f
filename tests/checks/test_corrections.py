"""The laws of corrections bite: every broken one is caught by the law that it breaks, whose message names the row."""

import pytest
from broken_corrections import (
    BROKEN,
    SCHEMA,
    LearnsWeightZero,
    PredictWritesServed,
    ReadsMoreThanItNames,
    Shift,
    StartsElsewhere,
)
from mutants import broken_by, each_law_has_its_own, each_of

from riverdelta import Entity, Linear
from riverdelta.checks import LawBroken, check, parametrize_with_checks


@each_of(BROKEN)
def test_a_broken_correction_breaks_the_law(law, mutant):
    assert law in broken_by(mutant, SCHEMA)


def test_every_law_has_a_mutant_of_its_own():
    each_law_has_its_own(BROKEN, Shift(), SCHEMA)


GENTLE = {
    "a low rate": Linear("u", slots=64, rate=1e-3),
    "a high penalty": Linear("u", slots=64, method="ftrl", l1=3.0),
    "a higher penalty": Linear("u", "h", slots=64, method="ftrl", l1=100.0),
    "a narrow prior": Entity("u", slots=64, variance=1e-4),
    "a low clip": Entity("u", slots=64, clip=1e-3),
    "a small radius": Entity("u", on="h", slots=64, radius=1e-3),
    "one slot": Entity("u", slots=1, offset=None),
}


@parametrize_with_checks(GENTLE, SCHEMA)
def test_options_that_slow_learning_down_keep_the_laws(check):
    check()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (StartsElsewhere("u", slots=64), r"StartsElsewhere: fresh_residual_is_zero: predict differs in row 0 \(u=12, h=-0.004"),
        (
            LearnsWeightZero(),
            r"with a row whose weight is 0: learn differs in row 5 \(u=4, .*\): \[3\.77.*\]; expected \[3\.77",
        ),
        (ReadsMoreThanItNames(), r"raised KeyError: 'u' \(in predict, broken_corrections.py:\d+\)"),
        (PredictWritesServed("u", slots=64), r"learn_returns_the_prediction.* row 9 \(u=9223372036854775807,"),
    ],
    ids=lambda each: "" if isinstance(each, str) else type(each).__name__,
)
def test_the_message_names_the_correction_the_law_and_the_first_row_with_its_values(broken, words):
    with pytest.raises(LawBroken, match=words):
        check(broken, SCHEMA)
