"""Measures: what is counted of base, served and simple baselines beside the loss; one class for each kind of label."""

from __future__ import annotations

from riverdelta.core.losses import Loss
from riverdelta.evaluation.measures.base import SCORERS, Measures, Report
from riverdelta.evaluation.measures.binary import Binary
from riverdelta.evaluation.measures.classes import Classes
from riverdelta.evaluation.measures.lists import Lists
from riverdelta.evaluation.measures.numbers import Numbers

__all__ = ["SCORERS", "Measures", "Report", "measures_of"]


def measures_of(loss: Loss, threshold: float = 0.5) -> tuple[Measures, ...]:
    """Return what is measured for a loss; a probability of 1 counts as positive from `threshold` on.

    >>> from riverdelta.core.losses import Regression
    >>> [each.scorers for each in measures_of(Regression(period=86400.0))]
    [('base', 'served', 'last_label', 'last_period')]
    """
    if loss.logit:
        return Binary(loss, threshold), Classes(loss, measured=())
    if loss.classes:
        return (Classes(loss),)
    return (Lists(loss),) if loss.lists else (Numbers(loss),)
